//! What becomes of a packet at the tunnel's device: to which peer it goes, and whether the peer that it is
//! from may send it.

use headgate_layout::{
    services::mapped,
    tables::{ADDRESSES_V4, ADDRESSES_V6, AddressTables4, AddressTables6},
    tunnel::{Event, Peer, TUNNEL, Tunnel},
};

use crate::{
    frame::Frame,
    parse::{Addresses, ETHERTYPE_IPV4, ETHERTYPE_IPV6, PROTOCOL_UDP, Parsed, parse},
    tables::Tables,
    trie,
};

/// What a tunnel's header says of a packet that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// Who sent it, in host order; IPv4 as IPv4-mapped IPv6.
    pub source: [u64; 2],
    /// Number of the network.
    pub vni: u32,
}

/// The peer that has the destination of `frame`.
///
/// # Errors
/// Why there is none.
#[inline(always)]
pub fn way_out<'a, F, T>(frame: &F, tables: Option<&'a T>) -> Result<&'a Peer, Event>
where
    F: Frame + ?Sized,
    T: Tables,
{
    let tables = tables.ok_or(Event::SentNoTables)?;
    let packet = match parse(frame) {
        Ok(Parsed::Ip(packet)) => packet,
        Ok(Parsed::NotIp) => return Err(Event::SentNotIp),
        Err(_) => return Err(Event::SentMalformed),
    };
    if is_multicast(&packet.addresses) {
        return Err(Event::Multicast);
    }
    let class = destination_class(tables, &packet.addresses).ok_or(Event::SentNoTables)?;
    peer(tables, class).ok_or(Event::NoPeer)
}

/// A packet that came, from its network header on, as the stack will take it.
pub trait Received {
    /// The EtherType that the stack goes by.
    fn ethertype(&self) -> u16;

    /// The words at `offset`, in host order, or `None` behind the end. Words, for the verifier wants what
    /// lies on the stack to be read aligned.
    fn words<const N: usize>(&self, offset: u32) -> Option<[u32; N]>;
}

/// Who sent a packet that may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The peer's place among those of the tables.
    pub place: u32,
    /// Whether it goes to a pod without the node's stack, where the pod is known.
    pub is_direct: bool,
}

/// Where a packet goes that does without the node's stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// In host order; IPv4 as IPv4-mapped IPv6.
    pub address: [u64; 2],
    /// The word of the network header that has the hops which are left.
    pub hops: u32,
    /// Whether it is IPv6.
    pub is_v6: bool,
}

/// The destination of `packet`. `None` where it has no hop left, whose sender the stack tells.
#[inline(always)]
pub fn destination<P: Received>(packet: &P) -> Option<Destination> {
    match packet.ethertype() {
        ETHERTYPE_IPV4 => {
            let [hops, _, address]: [u32; 3] = packet.words(8)?;
            let is_alive = hops >> 24 > 1;
            is_alive.then_some(Destination {
                address: mapped(address),
                hops,
                is_v6: false,
            })
        }
        _ => {
            let [hops]: [u32; 1] = packet.words(4)?;
            let [a, b, c, d]: [u32; 4] = packet.words(24)?;
            let half = |upper: u32, lower: u32| u64::from(upper) << 32 | u64::from(lower);
            let is_alive = hops & 0xff > 1;
            is_alive.then_some(Destination {
                address: [half(a, b), half(c, d)],
                hops,
                is_v6: true,
            })
        }
    }
}

/// Whether `packet`, which came with the header `outer`, may go on, and from whom it is.
///
/// # Errors
/// Why not.
#[inline(always)]
pub fn way_in<P: Received, T: Tables>(
    packet: &P,
    tables: Option<&T>,
    outer: &Outer,
) -> Result<Admitted, Event> {
    let tables = tables.ok_or(Event::ReceivedNoTables)?;
    let (class, transport) = match packet.ethertype() {
        ETHERTYPE_IPV4 => of_v4(packet, tables)?,
        ETHERTYPE_IPV6 => of_v6(packet, tables)?,
        _ => return Err(Event::ReceivedNotIp),
    };
    let peer = peer(tables, class).ok_or(Event::UnknownSource)?;
    let admitted = Admitted {
        place: class - 1,
        is_direct: peer.is_direct != 0,
    };
    if peer.endpoint != outer.source {
        return Err(Event::SpoofedSource);
    }
    if peer.accepted_vni != outer.vni {
        return Err(Event::WrongVni);
    }
    let tunnel: &Tunnel = tables.at(TUNNEL).ok_or(Event::ReceivedNoTables)?;
    let Some(offset) = transport else {
        return Ok(admitted);
    };
    let [ports] = packet.words(offset).ok_or(Event::ReceivedMalformed)?;
    match ports & 0xffff == tunnel.port {
        true => Err(Event::Nested),
        false => Ok(admitted),
    }
}

/// Class of the source, and where a UDP header is, if there is one in this packet.
#[inline(always)]
fn of_v4<P: Received, T: Tables>(packet: &P, tables: &T) -> Result<(u32, Option<u32>), Event> {
    let header: [u32; 5] = packet.words(0).ok_or(Event::ReceivedMalformed)?;
    let words = header[0] >> 24 & 0xf;
    if header[0] >> 28 != 4 || words < 5 {
        return Err(Event::ReceivedMalformed);
    }
    let source = header[3];
    let fields: &AddressTables4 = tables.at(ADDRESSES_V4).ok_or(Event::ReceivedNoTables)?;
    let class = match fields.source.base {
        0 => fields.source_class,
        _ => trie::lookup_v4(tables, &fields.source, source),
    };
    // Of a later fragment nobody knows; its datagram is never whole without the first one.
    let is_later = header[1] & 0x1fff != 0;
    let is_udp = header[2] >> 16 & 0xff == u32::from(PROTOCOL_UDP) && !is_later;
    Ok((class, is_udp.then_some(words * 4)))
}

/// Extension headers are not looked through: a tunnel's packet behind them is no peer's either, for no
/// endpoint lies in a network of the tunnel.
#[inline(always)]
fn of_v6<P: Received, T: Tables>(packet: &P, tables: &T) -> Result<(u32, Option<u32>), Event> {
    let header: [u32; 6] = packet.words(0).ok_or(Event::ReceivedMalformed)?;
    if header[0] >> 28 != 6 {
        return Err(Event::ReceivedMalformed);
    }
    let half = |upper: u32, lower: u32| u64::from(upper) << 32 | u64::from(lower);
    let (upper, lower) = (half(header[2], header[3]), half(header[4], header[5]));
    let fields: &AddressTables6 = tables.at(ADDRESSES_V6).ok_or(Event::ReceivedNoTables)?;
    let class = match fields.source.base {
        0 => fields.source_class,
        _ => trie::lookup_v6(tables, &fields.source, upper, lower),
    };
    let is_udp = header[1] >> 8 & 0xff == u32::from(PROTOCOL_UDP);
    Ok((class, is_udp.then_some(40)))
}

#[inline(always)]
fn is_multicast(addresses: &Addresses) -> bool {
    match *addresses {
        Addresses::V4 { destination, .. } => destination >> 28 == 0xe,
        Addresses::V6 { destination, .. } => destination.0 >> 56 == 0xff,
    }
}

#[inline(always)]
fn peer<T: Tables>(tables: &T, class: u32) -> Option<&Peer> {
    let tunnel: &Tunnel = tables.at(TUNNEL)?;
    let index = class.checked_sub(1).filter(|index| *index < tunnel.count)?;
    tables.at(tunnel.peers + index * size_of::<Peer>() as u32)
}

#[inline(always)]
fn destination_class<T: Tables>(tables: &T, addresses: &Addresses) -> Option<u32> {
    match *addresses {
        Addresses::V4 { destination, .. } => {
            let fields: &AddressTables4 = tables.at(ADDRESSES_V4)?;
            let trie = &fields.destination;
            Some(match trie.base {
                0 => fields.destination_class,
                _ => trie::lookup_v4(tables, trie, destination),
            })
        }
        Addresses::V6 { destination, .. } => {
            let fields: &AddressTables6 = tables.at(ADDRESSES_V6)?;
            let trie = &fields.destination;
            Some(match trie.base {
                0 => fields.destination_class,
                _ => trie::lookup_v6(tables, trie, destination.0, destination.1),
            })
        }
    }
}

impl Outer {
    /// The header of a packet from this IPv4 address, in host order.
    #[inline(always)]
    #[must_use]
    pub const fn v4(source: u32, vni: u32) -> Self {
        Self {
            source: mapped(source),
            vni,
        }
    }
}
