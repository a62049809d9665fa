//! What becomes of a packet at the tunnel's device: to which peer it goes, and whether the peer that it is
//! from may send it.

use headgate_layout::{
    tables::{ADDRESSES_V4, ADDRESSES_V6, AddressTables4, AddressTables6},
    tunnel::{Event, Peer, TUNNEL, Tunnel, mapped},
};

use crate::{
    frame::Frame,
    parse::{Addresses, PROTOCOL_UDP, Packet, Parsed, parse},
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

/// Whether `frame`, which came with the header `outer`, may go on to the stack.
///
/// # Errors
/// Why not.
#[inline(always)]
pub fn way_in<F, T>(frame: &F, tables: Option<&T>, outer: &Outer) -> Result<(), Event>
where
    F: Frame + ?Sized,
    T: Tables,
{
    let tables = tables.ok_or(Event::ReceivedNoTables)?;
    let packet = match parse(frame) {
        Ok(Parsed::Ip(packet)) => packet,
        Ok(Parsed::NotIp) => return Err(Event::ReceivedNotIp),
        Err(_) => return Err(Event::ReceivedMalformed),
    };
    let tunnel: &Tunnel = tables.at(TUNNEL).ok_or(Event::ReceivedNoTables)?;
    let nested = is_for(&packet, tunnel.port);
    let class = source_class(tables, &packet.addresses).ok_or(Event::ReceivedNoTables)?;
    let peer = peer(tables, class).ok_or(Event::UnknownSource)?;
    if peer.endpoint != outer.source {
        return Err(Event::SpoofedSource);
    }
    if peer.accepted_vni != outer.vni {
        return Err(Event::WrongVni);
    }
    if nested {
        return Err(Event::Nested);
    }
    Ok(())
}

#[inline(always)]
fn is_multicast(addresses: &Addresses) -> bool {
    match *addresses {
        Addresses::V4 { destination, .. } => destination >> 28 == 0xe,
        Addresses::V6 { destination, .. } => destination.0 >> 56 == 0xff,
    }
}

/// Of a later fragment nobody knows; its datagram is never whole without the first one.
#[inline(always)]
fn is_for(packet: &Packet, port: u32) -> bool {
    packet.protocol == PROTOCOL_UDP && u32::from(packet.transport.destination_port()) == port
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

#[inline(always)]
fn source_class<T: Tables>(tables: &T, addresses: &Addresses) -> Option<u32> {
    match *addresses {
        Addresses::V4 { source, .. } => {
            let fields: &AddressTables4 = tables.at(ADDRESSES_V4)?;
            let trie = &fields.source;
            Some(match trie.base {
                0 => fields.source_class,
                _ => trie::lookup_v4(tables, trie, source),
            })
        }
        Addresses::V6 { source, .. } => {
            let fields: &AddressTables6 = tables.at(ADDRESSES_V6)?;
            let trie = &fields.source;
            Some(match trie.base {
                0 => fields.source_class,
                _ => trie::lookup_v6(tables, trie, source.0, source.1),
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
