//! The load balancer: from a packet's destination to a backend, and the way there.

use headgate_layout::{
    flows::is_given,
    services::{
        Backend, NAT, SERVICES, Service, Services, Way, bucket, hash_of, hash_of_flow, mapped,
        port_and_protocol, ring_entry, slot, tag_of,
    },
    tables::{FIXED_LENGTH, Header},
    verdict::Reason,
};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, byteorder::network_endian::U16,
};

use crate::{
    blind::blinded,
    flows::{Asking, Ends, FlowTable, Known, begins, of_client, of_reply},
    frame::FrameMut,
    parse::{
        Addresses, ETHERNET_LENGTH, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Fragment, PROTOCOL_TCP,
        PROTOCOL_UDP, Packet, TransportKind,
    },
    tables::Tables,
};

/// What the load balancer makes of a packet, in words that are cheap to carry past the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// 0: it is for no service. Below [`FIXED_LENGTH`]: a [`Reason`] to drop it, plus 1. Else the offset
    /// of its [`Backend`].
    word: u32,
    /// Which flows are asked whether it is one of theirs.
    asked: Asked,
}

/// Which flows are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    None,
    /// Those of clients, by [`Ends::hash`].
    Clients(u64),
    /// Those to whose port of this node it goes.
    Replies,
}

impl Target {
    /// Of a packet that goes to the stack.
    pub const NONE: Self = Self {
        word: 0,
        asked: Asked::None,
    };

    /// What becomes of `packet`, if policies let it through.
    #[inline(always)]
    #[must_use]
    pub fn of<T: Tables>(tables: &T, packet: &Packet) -> Self {
        find(tables, packet).unwrap_or(Self::NONE)
    }

    /// The flow that `packet`, for which `tables` gave this, belongs to.
    #[inline(always)]
    #[must_use]
    pub fn flow<S: Tables, T: FlowTable>(
        &self,
        tables: &S,
        flows: impl FnOnce() -> Option<T>,
        packet: &Packet,
    ) -> Known {
        if self.asked == Asked::None {
            return Known::NONE;
        }
        let (Some(ends), Some(flows)) = (ends(packet), flows()) else {
            return Known::NONE;
        };
        let (begins, backend) = match packet.transport.kind {
            TransportKind::Tcp => (begins(packet.transport.detail()), None),
            _ => (false, self.backend().and_then(Result::ok)),
        };
        match self.asked {
            Asked::Clients(hash) => {
                let asking = Asking {
                    hash,
                    begins,
                    backend: backend.and_then(|offset| tables.at(offset)),
                };
                of_client(&flows, &ends, &asking)
            }
            _ => of_reply(&flows, &ends),
        }
    }

    /// The same, of which the verifier knows nothing: see [`blinded`].
    #[inline(always)]
    #[must_use]
    pub fn blinded(self, header: &Header) -> Self {
        Self {
            word: blinded(self.word, header),
            ..self
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

impl Target {
    const fn refused(reason: Reason) -> Self {
        Self {
            word: refusal(reason),
            asked: Asked::None,
        }
    }
}

const fn refusal(reason: Reason) -> u32 {
    reason as u32 + 1
}

#[inline(always)]
fn find<T: Tables>(tables: &T, packet: &Packet) -> Option<Target> {
    let table: &Services = tables.at(SERVICES)?;
    if table.count == 0 {
        return None;
    }
    let ends = ends(packet)?;
    let key = port_and_protocol(ends.destination_port, ends.protocol);
    let hash = hash_of(ends.destination, key);
    let is_whole = packet.fragment == Fragment::Whole;
    let Some(service) = service(tables, table, hash)
        .filter(|service| service.address == ends.destination && service.port == key)
    else {
        let may_be_reply = table.translates != 0 && is_given(ends.destination_port) && is_whole;
        return may_be_reply.then_some(Target {
            word: 0,
            asked: Asked::Replies,
        });
    };
    if !is_whole {
        return Some(Target::refused(Reason::ServiceFragment));
    }
    let flow = hash_of_flow(hash, ends.source, ends.source_port);
    let word = match service.ring_size {
        0 => refusal(Reason::NoBackend),
        size => {
            let entry = service.ring + ring_entry(flow, size) * 2;
            let number = u32::from(*tables.at::<u16>(entry)?);
            service.backends + number * size_of::<Backend>() as u32
        }
    };
    let asked = match service.forwarding {
        NAT => Asked::Clients(flow),
        _ => Asked::None,
    };
    Some(Target { word, asked })
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
    pub(crate) destination: [u8; 6],
    pub(crate) source: [u8; 6],
    pub(crate) ethertype: U16,
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
    link.destination = way.destination;
    link.source = way.source;
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
