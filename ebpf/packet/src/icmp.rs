//! ICMP messages for the addresses of services, and about flows through Nat (RFC 792, RFC 4443; through Nat
//! RFC 5508).
//!
//! An echo request for a service's address is answered: the load balancer is there. An error goes on to whom
//! the packet was from that it quotes: to the backend, by the quoted packet's own flow, or to the client.

use core::hint::black_box;

use headgate_layout::{
    flows::{Flow, Guard},
    services::{Backend, NAT, SERVICES, SETTLING, Service, Services, Way},
    settling::Choice,
    verdict::Reason,
};

use crate::{
    balance::{Subject, place_in_ring, service_of},
    flows::{Asking, Ends, FlowTable, Known, of_client, of_reply},
    forward::{Departure, Passing, Refusal, check, rewrite, way_back},
    frame::{Frame, FrameMut},
    nat::{to_backend, to_client},
    parse::{ETHERNET_LENGTH, PROTOCOL_TCP, PROTOCOL_UDP},
    settling::{self, PlacementTable},
    tables::Tables,
    wire::{
        Change, ICMP_LENGTH, IPV4_OFFSET, IPV4_WITHOUT_OPTIONS, IcmpHeader, Ipv4Header, Ipv6Header,
        LinkHeader, UdpHeader, Version, addresses, is_one_host, ports, set_addresses,
    },
};

/// Hops that an answer may live.
pub(crate) const HOPS: u8 = 64;

/// What a message is, as far as it is dealt with here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message {
    Echo,
    Error,
    Other,
}

impl Message {
    #[inline(always)]
    const fn of(version: Version, kind: u8) -> Self {
        match (version, kind) {
            (Version::V4, 8) | (Version::V6, 128) => Self::Echo,
            // Unreachable, time exceeded, parameter problem.
            (Version::V4, 3 | 11 | 12) => Self::Error,
            // The same, and packet too big.
            (Version::V6, 1..=4) => Self::Error,
            _ => Self::Other,
        }
    }
}

/// Makes `frame`, an ICMP message, the answer to it or one for whom it concerns. `Ok(None)`: it is the
/// stack's, and was left as it is.
///
/// # Errors
/// Why it must be dropped instead; no error is ever told of an ICMP message.
#[inline(always)]
pub fn pass_on<F: FrameMut + ?Sized, S: Tables, T: FlowTable, P: PlacementTable>(
    frame: &mut F,
    subject: Subject,
    passing: &Passing,
    tables: &S,
    flows: impl FnOnce() -> Option<T>,
    placements: impl FnOnce() -> Option<P>,
) -> Result<Option<Departure>, Reason> {
    let version = match Version::of(frame) {
        None => return Ok(None),
        Some(version) => version?,
    };
    let header: &IcmpHeader = frame
        .at(version.transport())
        .ok_or(Reason::HeaderNotLinear)?;
    let outer = addresses(frame, version, ETHERNET_LENGTH).ok_or(Reason::HeaderNotLinear)?;
    // Policies have judged a message for this address, and no other.
    let quoted = |frame: &F| quoted(frame, version).filter(|q| q.source == outer.destination);
    match (Message::of(version, header.kind), subject) {
        (Message::Echo, Subject::Service) if is_one_host(version, &outer.source) => {
            let way = way_back(frame, tables, passing.ifindex).ok_or(Reason::HeaderNotLinear)?;
            answer_echo(frame, version, &way).ok_or(Reason::HeaderNotLinear)?;
            Ok(Some(Departure { way, counter: None }))
        }
        (Message::Error, Subject::Service) => {
            let quoted = quoted(frame).ok_or(Reason::UnknownFlow)?;
            let asked = quoted.reversed();
            let table: &Services = tables.at(SERVICES).ok_or(Reason::UnknownFlow)?;
            let (service, hash) = service_of(tables, table, &asked).ok_or(Reason::UnknownFlow)?;
            let departure = match service.forwarding {
                NAT => to_sender(frame, version, &quoted, hash, passing, flows),
                _ => {
                    let is_tcp = quoted.protocol == PROTOCOL_TCP;
                    let placements = is_tcp.then(placements);
                    to_backend_itself(frame, service, hash, placements, passing, tables)
                }
            };
            departure.map(Some)
        }
        (Message::Error, Subject::Node) => match quoted(frame) {
            Some(quoted) => to_flows_client(frame, version, &quoted, passing, flows),
            None => Ok(None),
        },
        _ => Ok(None),
    }
}

/// Makes `frame`, an ICMP error that has come out of an overlay, one for the client of the flow that it quotes, and says
/// the way there; `length` is that of the frame. `Ok(None)`: it is the stack's, and was left as it is.
///
/// # Errors
/// Why it must be dropped instead.
#[inline(always)]
pub fn tell_client<F: FrameMut + ?Sized, T: FlowTable>(
    frame: &mut F,
    length: u32,
    flows: T,
) -> Result<Option<Way>, Reason> {
    let version = match Version::of(frame) {
        None => return Ok(None),
        Some(version) => version?,
    };
    let Some(error) = quoting(frame, version) else {
        return Ok(None);
    };
    let passing = Passing {
        backend: 0,
        flow: Known::NONE,
        length,
        ifindex: 0,
    };
    let departure = to_flows_client(frame, version, &error.quoted, &passing, || Some(flows))?;
    Ok(departure.map(|departure| departure.way))
}

/// An ICMP error.
pub(crate) struct Quoting {
    /// Its own addresses.
    pub(crate) outer: Ends,
    /// Ends of the packet that it quotes.
    pub(crate) quoted: Ends,
}

/// The ICMP error that `frame` is, if it was sent to whom its quoted packet was from.
#[inline(always)]
pub(crate) fn quoting<F: Frame + ?Sized>(frame: &F, version: Version) -> Option<Quoting> {
    let header: &IcmpHeader = frame.at(version.transport())?;
    if Message::of(version, header.kind) != Message::Error {
        return None;
    }
    let outer = addresses(frame, version, ETHERNET_LENGTH)?;
    let quoted = quoted(frame, version).filter(|q| q.source == outer.destination)?;
    Some(Quoting { outer, quoted })
}

#[inline(always)]
fn answer_echo<F: FrameMut + ?Sized>(frame: &mut F, version: Version, way: &Way) -> Option<()> {
    match version {
        Version::V4 => {
            let header: &mut Ipv4Header = frame.at_mut(ETHERNET_LENGTH)?;
            let mut change = Change::default();
            change.word(u32::from(header.time_to_live) << 8, u32::from(HOPS) << 8);
            header.time_to_live = HOPS;
            header.checksum.set(change.applied(header.checksum.get()));
            core::mem::swap(&mut header.source, &mut header.destination);
        }
        Version::V6 => {
            let header: &mut Ipv6Header = frame.at_mut(ETHERNET_LENGTH)?;
            header.hop_limit = HOPS;
            core::mem::swap(&mut header.source, &mut header.destination);
        }
    }
    let reply = match version {
        Version::V4 => 0,
        Version::V6 => 129,
    };
    let header: &mut IcmpHeader = frame.at_mut(version.transport())?;
    let mut change = Change::default();
    change.word(u32::from(header.kind) << 8, u32::from(reply) << 8);
    header.kind = reply;
    header.checksum.set(change.applied(header.checksum.get()));
    let link: &mut LinkHeader = frame.at_mut(0)?;
    link.set_addresses(way.link);
    Some(())
}

/// Where the quoted packet's headers lie.
const fn quoted_header(version: Version) -> u32 {
    version.transport() + ICMP_LENGTH
}

const fn quoted_ports(version: Version) -> u32 {
    quoted_header(version) + version.header_length()
}

/// Ends of the packet that an error quotes; `None` where its headers are not plain TCP or UDP.
#[inline(always)]
fn quoted<F: Frame + ?Sized>(frame: &F, version: Version) -> Option<Ends> {
    let start = quoted_header(version);
    if version == Version::V4 {
        let header: &Ipv4Header = frame.at(start)?;
        let is_plain = header.version_and_length == IPV4_WITHOUT_OPTIONS
            && header.fragment.get() & IPV4_OFFSET == 0;
        if !is_plain {
            return None;
        }
    }
    let ends = addresses(frame, version, start)?;
    if ends.protocol != PROTOCOL_TCP && ends.protocol != PROTOCOL_UDP {
        return None;
    }
    let header: &UdpHeader = frame.at(quoted_ports(version))?;
    Some(Ends {
        source_port: header.source.get(),
        destination_port: header.destination.get(),
        ..ends
    })
}

/// An error about what a backend has sent to a client by itself: to the backend, as it is. `placements` is `None`
/// where no connection is quoted.
#[inline(always)]
fn to_backend_itself<F: FrameMut + ?Sized, S: Tables, P: PlacementTable>(
    frame: &mut F,
    service: &Service,
    hash: u64,
    placements: Option<Option<P>>,
    passing: &Passing,
    tables: &S,
) -> Result<Departure, Reason> {
    let offset = place_in_ring(tables, service, hash).ok_or(Reason::NoBackend)?;
    let choice: &Choice = tables.at(offset).ok_or(Reason::NoBackend)?;
    let offset = match (choice.forwarding, placements) {
        (SETTLING, Some(placements)) => settling::found(tables, offset, hash, placements),
        (SETTLING, None) => choice.place_of(offset, choice.new),
        _ => offset,
    };
    // Else the compiler adds the offset up before it is compared with the limit, which the verifier refuses.
    let backend: &Backend = tables.at(black_box(offset)).ok_or(Reason::NoBackend)?;
    check(frame, &backend.way, passing.length).map_err(|refusal| refusal.reason)?;
    rewrite(frame, &backend.way);
    Ok(Departure {
        way: backend.way,
        counter: Some(backend.counter),
    })
}

/// An error about what a service has sent to a client by Nat: to the backend that sent it.
#[inline(always)]
fn to_sender<F: FrameMut + ?Sized, T: FlowTable>(
    frame: &mut F,
    version: Version,
    quoted: &Ends,
    hash: u64,
    passing: &Passing,
    flows: impl FnOnce() -> Option<T>,
) -> Result<Departure, Reason> {
    let asked = quoted.reversed();
    let flows = flows().ok_or(Reason::UnknownFlow)?;
    let asking = Asking {
        hash,
        begins: false,
        backend: None,
    };
    let known = of_client(&flows, &asked, &asking);
    let flow = flow_of(&flows, known).ok_or(Reason::UnknownFlow)?;
    let (seen, departure) = to_backend(flow, &asked, None);
    if !is_still(flow, known) {
        return Err(Reason::UnknownFlow);
    }
    let outer = addresses(frame, version, ETHERNET_LENGTH).ok_or(Reason::HeaderNotLinear)?;
    let is_here = departure.way.is_to_stack();
    let new = Ends {
        // A pod on this node may know who tells; another host sees this node alone, as in all of Nat.
        source: if is_here { outer.source } else { seen.source },
        destination: seen.destination,
        ..outer
    };
    if !is_here {
        check(frame, &departure.way, passing.length).map_err(|refusal| refusal.reason)?;
    }
    let quotes = [*quoted, seen.reversed()];
    translate(frame, version, &[outer, new], &quotes).ok_or(Reason::HeaderNotLinear)?;
    if !is_here {
        rewrite(frame, &departure.way);
    }
    Ok(departure)
}

/// An error about what this node has sent to a backend for a client: to the client.
#[inline(always)]
fn to_flows_client<F: FrameMut + ?Sized, T: FlowTable>(
    frame: &mut F,
    version: Version,
    quoted: &Ends,
    passing: &Passing,
    flows: impl FnOnce() -> Option<T>,
) -> Result<Option<Departure>, Reason> {
    let Some(flows) = flows() else {
        return Ok(None);
    };
    let known = of_reply(&flows, &quoted.reversed());
    let Some(flow) = flow_of(&flows, known) else {
        return Ok(None);
    };
    let (sent, departure) = to_client(flow, &quoted.reversed());
    if !is_still(flow, known) {
        return Ok(None);
    }
    let outer = addresses(frame, version, ETHERNET_LENGTH).ok_or(Reason::HeaderNotLinear)?;
    let new = Ends {
        source: sent.source,
        destination: sent.destination,
        ..outer
    };
    check(frame, &departure.way, passing.length).map_err(|refusal: Refusal| refusal.reason)?;
    let quotes = [*quoted, sent.reversed()];
    translate(frame, version, &[outer, new], &quotes).ok_or(Reason::HeaderNotLinear)?;
    rewrite(frame, &departure.way);
    Ok(Some(departure))
}

#[inline(always)]
fn flow_of<T: FlowTable>(flows: &T, known: Known) -> Option<&Flow> {
    match known.is_some() {
        true => flows.flow(known.number()),
        false => None,
    }
}

/// Whether what was read of `flow` is of the one that was found.
#[inline(always)]
fn is_still(flow: &Flow, known: Known) -> bool {
    known.guard().is_same(Guard(flow.guard.get()))
}

/// Puts the second of each pair in the place of the first: the message's addresses, and those and the ports of
/// what it quotes. The transport checksum in the quote stays: nobody looks at it, and most often it
/// is cut off or is of more than is quoted.
#[inline(always)]
fn translate<F: FrameMut + ?Sized>(
    frame: &mut F,
    version: Version,
    outer: &[Ends; 2],
    quotes: &[Ends; 2],
) -> Option<()> {
    let mut of_outer = Change::default();
    let (old, new) = (&outer[0], &outer[1]);
    set_addresses(frame, version, ETHERNET_LENGTH, old, new, &mut of_outer)?;
    let mut of_quote = Change::default();
    let (old, new) = (&quotes[0], &quotes[1]);
    let start = quoted_header(version);
    set_addresses(frame, version, start, old, new, &mut of_quote)?;
    let header: &mut UdpHeader = frame.at_mut(quoted_ports(version))?;
    header.source.set(new.source_port);
    header.destination.set(new.destination_port);
    let mut change = match version {
        // The quoted header's own checksum takes up what changes in it.
        Version::V4 => Change::default(),
        // The pseudo-header, and a quote without a checksum of its own.
        Version::V6 => of_outer.and(of_quote),
    };
    change.word(ports(old), ports(new));
    let header: &mut IcmpHeader = frame.at_mut(version.transport())?;
    header.checksum.set(change.applied(header.checksum.get()));
    Some(())
}
