//! Network address translation: a frame for a service becomes one from this node to a backend, and the
//! backend's reply one from the service to the client.

use headgate_layout::{
    flows::{Flow, Guard},
    services::{Backend, Way},
    verdict::Reason,
};

use crate::{
    aging::{Segment, advance, answers},
    flows::{Ends, FlowTable, Known, begin, of_reply_here},
    forward::{Departure, Refusal, check, rewrite},
    frame::{Frame, FrameMut},
    parse::{ETHERNET_LENGTH, PROTOCOL_TCP, PROTOCOL_UDP},
    wire::{
        Change, IPV4_FRAGMENT, Ipv4Header, TcpHeader, UdpHeader, Version, addresses, ports,
        set_addresses,
    },
};

/// Both ends of a client's TCP segment and its flags; `None` of anything else, and where addresses and ports
/// do not lie where they are changed.
#[inline(always)]
pub(crate) fn segment_of<F: Frame + ?Sized>(frame: &F) -> Option<(Ends, u8)> {
    let version = Version::of(frame)?.ok()?;
    let (ends, segment) = read(frame, version)?;
    Some((ends, segment?.flags))
}

/// What Nat needs besides the frame.
pub struct Passage<'a, T> {
    /// The flows.
    pub flows: &'a T,
    /// The flow that the frame belongs to.
    pub known: Known,
    /// The backend that the ring has for it; `None` for replies, and where the ring has none.
    pub backend: Option<&'a Backend>,
    /// The way to where it came from.
    pub back: Way,
    /// Bytes of link-layer header and IP packet.
    pub length: u32,
}

/// Makes `frame`, a client's for a service or a backend's reply, one for the other side. `Ok(None)`: it has
/// a VLAN tag, and was left as it is.
///
/// # Errors
/// Why it must be dropped instead; the frame is then as it was.
#[inline(always)]
pub fn pass_on<F: FrameMut + ?Sized, T: FlowTable>(
    frame: &mut F,
    passage: &Passage<'_, T>,
) -> Result<Option<Departure>, Refusal> {
    let version = match Version::of(frame) {
        None => return Ok(None),
        Some(version) => version?,
    };
    let (ends, segment) = read(frame, version).ok_or(Reason::HeaderNotLinear)?;
    let known = passage.known;
    let flow = passage
        .flows
        .flow(known.number())
        .ok_or(Reason::FlowsExhausted)?;
    let (new, departure) = match known.is_reply() {
        true => to_client(flow, &ends),
        false => to_backend(flow, &ends, passage.backend),
    };
    // What was read is of one flow, and of the one that was found.
    if !known.guard().is_same(Guard(flow.guard.get())) {
        return Err(Reason::FlowsExhausted.into());
    }
    let is_sent = !departure.way.is_to_stack();
    if is_sent {
        check(frame, &departure.way, passage.length)?;
    }
    if !known.is_reply() {
        follow(flow, passage.backend, passage.back);
    }
    advance(passage.flows, flow, known, segment);
    write(frame, version, &ends, &new).ok_or(Reason::HeaderNotLinear)?;
    if is_sent {
        rewrite(frame, &departure.way);
    }
    Ok(Some(departure))
}

/// Begins the flow of a client's first packet. [`Known::NONE`]: it has a VLAN tag.
///
/// # Errors
/// Why it must be dropped instead.
#[inline(always)]
pub fn open<F: Frame + ?Sized, T: FlowTable>(
    frame: &F,
    flows: &T,
    backend: &Backend,
    back: Way,
) -> Result<Known, Reason> {
    let version = match Version::of(frame) {
        None => return Ok(Known::NONE),
        Some(version) => version?,
    };
    if backend.way.ifindex == 0 {
        return Err(Reason::NoNextHop);
    }
    let (ends, segment) = read(frame, version).ok_or(Reason::HeaderNotLinear)?;
    if segment.is_some_and(|segment| segment.resets()) {
        return Err(Reason::UnknownFlow);
    }
    begin(flows, &ends, backend, back).ok_or(Reason::FlowsExhausted)
}

/// A reply of a backend on this node, where it leaves.
pub struct Reply {
    /// Whether it is IPv6.
    pub is_v6: bool,
    /// Where its transport header lies.
    pub transport: u32,
    /// Its ends as the backend sent it.
    pub sent: Ends,
    /// Its ends as the client awaits it: from the service.
    pub awaited: Ends,
}

/// Looks whether `frame` is a reply of a backend on this node, and follows its flow.
#[inline(always)]
pub fn reply_of<F: Frame + ?Sized, T: FlowTable>(frame: &F, flows: &T) -> Option<Reply> {
    let version = Version::of(frame)?.ok()?;
    if version == Version::V4 && is_fragment(frame)? {
        return None;
    }
    let (sent, segment) = read(frame, version)?;
    if sent.protocol != PROTOCOL_TCP && sent.protocol != PROTOCOL_UDP {
        return None;
    }
    let known = of_reply_here(flows, &sent);
    let answers = segment.is_none_or(|s| answers(known.guard().state(), s.flags));
    if !known.is_some() || !answers {
        return None;
    }
    let flow = flows.flow(known.number())?;
    let (awaited, _) = to_client(flow, &sent);
    if !known.guard().is_same(Guard(flow.guard.get())) {
        return None;
    }
    advance(flows, flow, known, segment);
    Some(Reply {
        is_v6: version == Version::V6,
        transport: version.transport(),
        sent,
        awaited,
    })
}

#[inline(always)]
fn is_fragment<F: Frame + ?Sized>(frame: &F) -> Option<bool> {
    let header: &Ipv4Header = frame.at(ETHERNET_LENGTH)?;
    Some(header.fragment.get() & IPV4_FRAGMENT != 0)
}

/// What a backend has sent, as its client awaits it.
#[inline(always)]
pub(crate) fn to_client(flow: &Flow, ends: &Ends) -> (Ends, Departure) {
    let new = Ends {
        source: flow.service.get(),
        destination: flow.client.get(),
        source_port: flow.service_port.get(),
        destination_port: flow.client_port.get(),
        ..*ends
    };
    let way = flow.to_client.get();
    (new, Departure { way, counter: None })
}

/// What a client has sent, as its backend sees it.
#[inline(always)]
pub(crate) fn to_backend(flow: &Flow, ends: &Ends, of_ring: Option<&Backend>) -> (Ends, Departure) {
    let new = Ends {
        source: flow.local.get(),
        destination: flow.backend.get(),
        source_port: flow.local_port.get(),
        destination_port: flow.backend_port.get(),
        ..*ends
    };
    // What the ring knows of the same backend is newer.
    let way = match of_ring {
        Some(backend) if is_same_way(flow, backend) => backend.way,
        _ => flow.to_backend.get(),
    };
    let counter = of_ring.map_or(u32::from(flow.counter.get()), |backend| backend.counter);
    let counter = Some(counter);
    (new, Departure { way, counter })
}

/// Whether the ring has the flow's backend, and it still sees what it saw: the client, or this node.
#[inline(always)]
fn is_same_way(flow: &Flow, backend: &Backend) -> bool {
    backend.address == flow.backend.get()
        && backend.way.is_to_stack() == flow.to_backend.get().is_to_stack()
}

/// Keeps the ways that may be asked for later.
#[inline(always)]
fn follow(flow: &Flow, of_ring: Option<&Backend>, back: Way) {
    if flow.to_client.get() != back {
        flow.to_client.set(back);
    }
    if let Some(backend) = of_ring
        && is_same_way(flow, backend)
        && backend.way.ifindex != 0
        && backend.way != flow.to_backend.get()
    {
        flow.to_backend.set(backend.way);
    }
}

/// Ends of the frame's packet, and what a TCP segment says.
#[inline(always)]
pub(crate) fn read<F: Frame + ?Sized>(
    frame: &F,
    version: Version,
) -> Option<(Ends, Option<Segment>)> {
    let outer = addresses(frame, version, ETHERNET_LENGTH)?;
    let ports: &UdpHeader = frame.at(version.transport())?;
    let ends = Ends {
        source_port: ports.source.get(),
        destination_port: ports.destination.get(),
        ..outer
    };
    if ends.protocol != PROTOCOL_TCP {
        return Some((ends, None));
    }
    let header: &TcpHeader = frame.at(version.transport())?;
    let segment = Segment {
        flags: header.flags,
        sequence: header.sequence.get(),
        acknowledgement: header.acknowledgement.get(),
    };
    Some((ends, Some(segment)))
}

/// Puts `new` in the place of `old`, and mends the checksums.
#[inline(always)]
fn write<F: FrameMut + ?Sized>(
    frame: &mut F,
    version: Version,
    old: &Ends,
    new: &Ends,
) -> Option<()> {
    let mut change = Change::default();
    set_addresses(frame, version, ETHERNET_LENGTH, old, new, &mut change)?;
    change.word(ports(old), ports(new));
    if new.protocol == PROTOCOL_TCP {
        let header: &mut TcpHeader = frame.at_mut(version.transport())?;
        header.source.set(new.source_port);
        header.destination.set(new.destination_port);
        header.checksum.set(change.applied(header.checksum.get()));
    } else {
        let header: &mut UdpHeader = frame.at_mut(version.transport())?;
        header.source.set(new.source_port);
        header.destination.set(new.destination_port);
        // 0 says that there is none (RFC 768).
        if header.checksum.get() != 0 {
            let checksum = match change.applied(header.checksum.get()) {
                0 => 0xffff,
                checksum => checksum,
            };
            header.checksum.set(checksum);
        }
    }
    Some(())
}
