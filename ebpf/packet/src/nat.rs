//! Network address translation: a frame for a service becomes one from this node to a backend, and the
//! backend's reply one from the service to the client.

use headgate_layout::{
    flows::{Flow, Guard},
    services::{Backend, Way, mapped},
    verdict::Reason,
};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    byteorder::network_endian::{U16, U32, U64},
};

use crate::{
    aging::{Segment, advance, answers},
    balance::{LinkHeader, rewrite},
    flows::{Ends, FlowTable, Known, begin, of_reply_here},
    forward::Departure,
    frame::{Frame, FrameMut},
    parse::{ETHERNET_LENGTH, ETHERTYPE_IPV4, ETHERTYPE_IPV6, PROTOCOL_TCP, PROTOCOL_UDP},
};

/// An IPv4 header without options.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Ipv4Header {
    version_and_length: u8,
    before: [u8; 5],
    fragment: U16,
    time_to_live: u8,
    protocol: u8,
    checksum: U16,
    source: U32,
    destination: U32,
}
const IPV4_WITHOUT_OPTIONS: u8 = 0x45;
/// "More fragments", and the offset.
const IPV4_FRAGMENT: u16 = 0x3fff;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Ipv6Header {
    before: [u8; 6],
    next_header: u8,
    hop_limit: u8,
    source: [U64; 2],
    destination: [U64; 2],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct TcpHeader {
    source: U16,
    destination: U16,
    sequence: U32,
    acknowledgement: U32,
    data_offset: u8,
    flags: u8,
    window: U16,
    checksum: U16,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct UdpHeader {
    source: U16,
    destination: U16,
    length: U16,
    checksum: U16,
}

/// IP version of a frame whose transport header lies where it does without VLAN tags, IPv4 options and
/// IPv6 extension headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V4,
    V6,
}

impl Version {
    #[inline(always)]
    fn of<F: Frame + ?Sized>(frame: &F) -> Option<Result<Self, Reason>> {
        let link: &LinkHeader = frame.at(0)?;
        match link.ethertype.get() {
            ETHERTYPE_IPV4 => {
                let header: &Ipv4Header = frame.at(ETHERNET_LENGTH)?;
                Some(match header.version_and_length {
                    IPV4_WITHOUT_OPTIONS => Ok(Self::V4),
                    _ => Err(Reason::HeaderOptions),
                })
            }
            ETHERTYPE_IPV6 => {
                let header: &Ipv6Header = frame.at(ETHERNET_LENGTH)?;
                Some(match header.next_header {
                    PROTOCOL_TCP | PROTOCOL_UDP => Ok(Self::V6),
                    _ => Err(Reason::HeaderOptions),
                })
            }
            _ => None,
        }
    }

    const fn transport(self) -> u32 {
        match self {
            Self::V4 => ETHERNET_LENGTH + size_of::<Ipv4Header>() as u32,
            Self::V6 => ETHERNET_LENGTH + size_of::<Ipv6Header>() as u32,
        }
    }
}

/// Whether addresses and ports lie where they are changed.
#[inline(always)]
pub fn can_be_changed<F: Frame + ?Sized>(frame: &F) -> bool {
    matches!(Version::of(frame), Some(Ok(_)))
}

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
    /// The flow that the frame was found to belong to.
    pub known: Known,
    /// The backend that the ring has for it; `None` for replies, and where the ring has none.
    pub backend: Option<&'a Backend>,
    /// The interface that it came by.
    pub ifindex: u32,
    /// Bytes of link-layer header and IP packet.
    pub length: u32,
}

/// Makes `frame`, a client's for a service or a backend's reply, one for the other side. `Ok(None)`: it has
/// a VLAN tag, and was left as it is.
///
/// # Errors
/// Why it must be dropped instead.
#[inline(always)]
pub fn pass_on<F: FrameMut + ?Sized, T: FlowTable>(
    frame: &mut F,
    passage: &Passage<'_, T>,
) -> Result<Option<Departure>, Reason> {
    let version = match Version::of(frame) {
        None => return Ok(None),
        Some(version) => version?,
    };
    let (ends, segment) = read(frame, version).ok_or(Reason::HeaderNotLinear)?;
    let back = way_back(frame, passage).ok_or(Reason::HeaderNotLinear)?;
    let known = match passage.known.is_some() {
        true => passage.known,
        false => first(passage, &ends, segment, back)?,
    };
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
        return Err(Reason::FlowsExhausted);
    }
    if !known.is_reply() {
        follow(flow, passage.backend, back);
    }
    advance(passage.flows, flow, known, segment);
    write(frame, version, &ends, &new).ok_or(Reason::HeaderNotLinear)?;
    if !departure.way.is_to_stack() {
        rewrite(frame, &departure.way, passage.length)?;
    }
    Ok(Some(departure))
}

/// Begins the flow of a client's first packet.
#[inline(always)]
fn first<T: FlowTable>(
    passage: &Passage<'_, T>,
    ends: &Ends,
    segment: Option<Segment>,
    back: Way,
) -> Result<Known, Reason> {
    let backend = passage.backend.ok_or(Reason::NoBackend)?;
    if backend.way.ifindex == 0 {
        return Err(Reason::NoNextHop);
    }
    if segment.is_some_and(|segment| segment.resets()) {
        return Err(Reason::UnknownFlow);
    }
    begin(passage.flows, ends, backend, back).ok_or(Reason::FlowsExhausted)
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

#[inline(always)]
fn to_client(flow: &Flow, ends: &Ends) -> (Ends, Departure) {
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

#[inline(always)]
fn to_backend(flow: &Flow, ends: &Ends, of_ring: Option<&Backend>) -> (Ends, Departure) {
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

/// The way to where `frame` came from.
#[inline(always)]
fn way_back<F: Frame + ?Sized, T>(frame: &F, passage: &Passage<'_, T>) -> Option<Way> {
    let link: &LinkHeader = frame.at(0)?;
    let same = passage
        .backend
        .filter(|backend| backend.way.ifindex == passage.ifindex);
    // Of another interface the kernel knows what it takes.
    let (mtu, reflecting) = same.map_or((u16::MAX, 0), |b| (b.way.mtu, b.way.reflecting));
    Some(Way {
        ifindex: passage.ifindex,
        mtu,
        reflecting,
        link: link.addresses().reversed(),
    })
}

#[inline(always)]
fn read<F: Frame + ?Sized>(frame: &F, version: Version) -> Option<(Ends, Option<Segment>)> {
    let (source, destination, protocol) = match version {
        Version::V4 => {
            let header: &Ipv4Header = frame.at(ETHERNET_LENGTH)?;
            let source = mapped(header.source.get());
            (source, mapped(header.destination.get()), header.protocol)
        }
        Version::V6 => {
            let header: &Ipv6Header = frame.at(ETHERNET_LENGTH)?;
            let words = |address: &[U64; 2]| [address[0].get(), address[1].get()];
            let destination = words(&header.destination);
            (words(&header.source), destination, header.next_header)
        }
    };
    let ports: &UdpHeader = frame.at(version.transport())?;
    let ends = Ends {
        source,
        destination,
        source_port: ports.source.get(),
        destination_port: ports.destination.get(),
        protocol,
    };
    if protocol != PROTOCOL_TCP {
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
    match version {
        Version::V4 => {
            change.word(old.source[1] as u32, new.source[1] as u32);
            change.word(old.destination[1] as u32, new.destination[1] as u32);
            let header: &mut Ipv4Header = frame.at_mut(ETHERNET_LENGTH)?;
            header.source.set(new.source[1] as u32);
            header.destination.set(new.destination[1] as u32);
            header.checksum.set(change.applied(header.checksum.get()));
        }
        Version::V6 => {
            change.address(&old.source, &new.source);
            change.address(&old.destination, &new.destination);
            let header: &mut Ipv6Header = frame.at_mut(ETHERNET_LENGTH)?;
            header.source = new.source.map(U64::new);
            header.destination = new.destination.map(U64::new);
        }
    }
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

#[inline(always)]
fn ports(ends: &Ends) -> u32 {
    u32::from(ends.source_port) << 16 | u32::from(ends.destination_port)
}

/// What a checksum has to follow: the sum of all that goes, inverted, and of all that comes (RFC 1624,
/// equation 3).
#[derive(Clone, Copy, Default)]
struct Change(u64);

impl Change {
    #[inline(always)]
    fn word(&mut self, old: u32, new: u32) {
        self.0 += u64::from(!old) + u64::from(new);
    }

    #[inline(always)]
    fn address(&mut self, old: &[u64; 2], new: &[u64; 2]) {
        for (old, new) in old.iter().zip(new) {
            self.word((old >> 32) as u32, (new >> 32) as u32);
            self.word(*old as u32, *new as u32);
        }
    }

    #[inline(always)]
    fn applied(self, checksum: u16) -> u16 {
        let sum = u64::from(!checksum) + self.0;
        let sum = (sum & 0xffff_ffff) + (sum >> 32);
        let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        !(sum as u16)
    }
}
