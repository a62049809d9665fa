//! The load balancer: from a packet's destination to a backend, and the way there.

use headgate_layout::{
    flows::is_given,
    services::{
        Backend, LinkAddresses, NAT, SERVICES, Service, Services, Way, bucket, hash_of,
        hash_of_flow, mapped, port_and_protocol, ring_entry, slot, tag_of,
    },
    tables::{FIXED_LENGTH, Header},
    verdict::Reason,
};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    byteorder::{little_endian, network_endian::U16},
};

use crate::{
    aging::begins,
    blind::blinded,
    flows::{Asking, Ends, Known, of_client, of_reply},
    frame::FrameMut,
    judge::Environment,
    parse::{
        Addresses, ETHERNET_LENGTH, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Fragment, PROTOCOL_TCP,
        PROTOCOL_UDP, Packet, TransportKind,
    },
    tables::Tables,
};

/// What the load balancer makes of a packet, in words that are cheap to carry past the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Target {
    /// 0: it is for no service. Below [`FIXED_LENGTH`]: a [`Reason`] to drop it, plus 1. Else the offset
    /// of its [`Backend`].
    word: u32,
    /// The flow that it belongs to.
    pub flow: Known,
}

impl Target {
    /// Of a packet that goes to the stack.
    pub const NONE: Self = Self {
        word: 0,
        flow: Known::NONE,
    };

    /// What becomes of `packet`, if policies let it through.
    #[inline(always)]
    #[must_use]
    pub fn of<E: Environment>(
        environment: &E,
        tables: &E::Tables,
        header: &Header,
        packet: &Packet,
    ) -> Self {
        let table = tables.at::<Services>(SERVICES);
        let question = table.filter(|table| table.count != 0).and(ends(packet));
        let Some(ends) = question else {
            return Self::NONE;
        };
        let is_tcp = packet.transport.kind == TransportKind::Tcp;
        let traits = [
            (packet.fragment == Fragment::Whole, WHOLE),
            (is_tcp, TCP),
            (is_tcp && begins(packet.transport.detail()), BEGINS),
        ];
        let traits = traits.iter().map(|(has, what)| u32::from(*has) * what);
        let traits = traits.sum();
        let question = Question {
            ends,
            traits: blinded(traits, header),
        };
        let mut target = Self::NONE;
        find(environment, tables, &question, &mut target);
        target
    }

    /// The same, of which the verifier knows nothing: see [`blinded`].
    #[inline(always)]
    #[must_use]
    pub fn blinded(self, header: &Header) -> Self {
        Self {
            word: blinded(self.word, header),
            flow: self.flow.blinded(header),
        }
    }

    /// Why it ends here, or where its [`Backend`] lies; `None` if it is for no service.
    #[inline(always)]
    #[must_use]
    pub fn backend(self) -> Option<Result<u32, Reason>> {
        const NO_BACKEND: u32 = refusal(Reason::NoBackend);
        match self.word {
            0 => None,
            NO_BACKEND => Some(Err(Reason::NoBackend)),
            other if other < FIXED_LENGTH => Some(Err(Reason::ServiceFragment)),
            offset => Some(Ok(offset)),
        }
    }
}

const fn refusal(reason: Reason) -> u32 {
    reason as u32 + 1
}

/// What is asked of services and flows.
#[derive(Clone, Copy, Debug)]
struct Question {
    ends: Ends,
    /// [`WHOLE`] and others, of which the verifier knows nothing: see [`blinded`].
    traits: u32,
}

/// Of [`Question::traits`]: it is no fragment.
const WHOLE: u32 = 1;
/// It is TCP.
const TCP: u32 = 2;
/// It begins a connection.
const BEGINS: u32 = 4;

impl Question {
    #[inline(always)]
    const fn is(&self, what: u32) -> bool {
        self.traits & what != 0
    }
}

/// Answers into `target`. A function of its own in programs as well: the verifier gives it registers and a
/// stack of its own, of which the rest keeps nothing.
#[inline(never)]
fn find<E: Environment>(
    environment: &E,
    tables: &E::Tables,
    question: &Question,
    target: &mut Target,
) {
    // What the tables cannot tell because they are cut short, which their builder rules out, is nothing.
    let _ = answer(environment, tables, question, target);
}

#[inline(always)]
fn answer<E: Environment>(
    environment: &E,
    tables: &E::Tables,
    question: &Question,
    target: &mut Target,
) -> Option<()> {
    let table: &Services = tables.at(SERVICES)?;
    let ends = &question.ends;
    let key = port_and_protocol(ends.destination_port, ends.protocol);
    let hash = hash_of(ends.destination, key);
    let Some(service) = service(tables, table, hash)
        .filter(|service| service.address == ends.destination && service.port == key)
    else {
        if table.translates != 0 && is_given(ends.destination_port) && question.is(WHOLE) {
            target.flow = of_reply(&environment.flows()?, ends);
        }
        return Some(());
    };
    if !question.is(WHOLE) {
        target.word = refusal(Reason::ServiceFragment);
        return Some(());
    }
    let flow = hash_of_flow(hash, ends.source, ends.source_port);
    target.word = match service.ring_size {
        0 => refusal(Reason::NoBackend),
        size => {
            let entry = service.ring + ring_entry(flow, size) * 2;
            let number = u32::from(*tables.at::<u16>(entry)?);
            service.backends + number * size_of::<Backend>() as u32
        }
    };
    if service.forwarding == NAT {
        let asking = Asking {
            hash: flow,
            begins: question.is(BEGINS),
            backend: match (question.is(TCP), target.backend()) {
                (false, Some(Ok(offset))) => tables.at(offset),
                _ => None,
            },
        };
        target.flow = of_client(&environment.flows()?, ends, &asking);
    }
    Some(())
}

/// Both ends of a packet that may be for a service, or a reply of a backend. A service of port 0 stands for
/// its address and protocol, and is where fragments go.
#[inline(always)]
fn ends(packet: &Packet) -> Option<Ends> {
    let ports = (
        packet.transport.source_port(),
        packet.transport.destination_port(),
    );
    let (source_port, destination_port) = match (packet.transport.kind, packet.protocol) {
        (TransportKind::Tcp, _) | (TransportKind::Ports, PROTOCOL_UDP)
            if packet.fragment == Fragment::Whole =>
        {
            ports
        }
        (_, PROTOCOL_TCP | PROTOCOL_UDP) if packet.fragment != Fragment::Whole => (0, 0),
        _ => return None,
    };
    let (source, destination) = match packet.addresses {
        Addresses::V4 {
            source,
            destination,
        } => (mapped(source), mapped(destination)),
        Addresses::V6 {
            source,
            destination,
        } => (source.into(), destination.into()),
    };
    Some(Ends {
        source,
        destination,
        source_port,
        destination_port,
        protocol: packet.protocol,
    })
}

/// The one service that may have the key with this hash.
#[inline(always)]
fn service<'a, T: Tables>(tables: &'a T, table: &Services, hash: u64) -> Option<&'a Service> {
    let displacement: &u16 =
        tables.at(table.displacements + bucket(hash, table.displacement_mask) * 2)?;
    let value: u32 = *tables.at(table.slots + slot(hash, *displacement, table.slot_mask) * 4)?;
    let number = value & 0xffff;
    if number == 0 || value >> 16 != tag_of(hash) {
        return None;
    }
    tables.at(table.services + (number - 1) * size_of::<Service>() as u32)
}

/// A link-layer header without VLAN tags.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct LinkHeader {
    addresses: [little_endian::U32; 3],
    pub(crate) ethertype: U16,
}

impl LinkHeader {
    #[inline(always)]
    pub(crate) fn addresses(&self) -> LinkAddresses {
        LinkAddresses(self.addresses.map(little_endian::U32::get))
    }
}

/// The second and third word of an IPv4 header.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Ipv4Lifetime {
    time_to_live: u8,
    protocol: u8,
    checksum: U16,
}
const IPV4_LIFETIME: u32 = ETHERNET_LENGTH + 8;
const IPV6_HOP_LIMIT: u32 = ETHERNET_LENGTH + 7;

/// Makes `frame`, of which `length` bytes are link-layer header and IP packet, one for this way: the next
/// hop's MAC address, and a hop less to live. `Ok(false)`: it has a VLAN tag, and was left as it is.
///
/// # Errors
/// Why it must be dropped instead.
#[inline(always)]
pub fn rewrite<F: FrameMut + ?Sized>(
    frame: &mut F,
    way: &Way,
    length: u32,
) -> Result<bool, Reason> {
    let Some(link) = frame.at_mut::<LinkHeader>(0) else {
        return Ok(false);
    };
    let ethertype = link.ethertype.get();
    if ethertype != ETHERTYPE_IPV4 && ethertype != ETHERTYPE_IPV6 {
        return Ok(false);
    }
    if way.ifindex == 0 {
        return Err(Reason::NoNextHop);
    }
    link.addresses = way.link.0.map(little_endian::U32::new);
    let lives = if ethertype == ETHERTYPE_IPV4 {
        age_v4(frame)
    } else {
        age_v6(frame)
    };
    match lives {
        Some(true) if length > u32::from(way.mtu) + ETHERNET_LENGTH => Err(Reason::MtuExceeded),
        Some(true) => Ok(true),
        _ => Err(Reason::TtlExceeded),
    }
}

/// Counts the time to live down, and the checksum with it (RFC 1624).
#[inline(always)]
fn age_v4<F: FrameMut + ?Sized>(frame: &mut F) -> Option<bool> {
    let header: &mut Ipv4Lifetime = frame.at_mut(IPV4_LIFETIME)?;
    if header.time_to_live <= 1 {
        return Some(false);
    }
    header.time_to_live -= 1;
    let sum = u32::from(header.checksum.get()) + 0x100;
    header.checksum.set((sum + u32::from(sum >= 0xffff)) as u16);
    Some(true)
}

#[inline(always)]
fn age_v6<F: FrameMut + ?Sized>(frame: &mut F) -> Option<bool> {
    let hop_limit: &mut u8 = frame.at_mut(IPV6_HOP_LIMIT)?;
    if *hop_limit <= 1 {
        return Some(false);
    }
    *hop_limit -= 1;
    Some(true)
}
