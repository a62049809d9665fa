//! From a packet's fields to a decision, through the classes of `headgate_layout::tables`.

use headgate_layout::tables::{
    ADDRESSES_V4, ADDRESSES_V6, AddressTables4, AddressTables6, Decision, Detail, Header, KINDS,
    PORT_BLOCKS, kind_of_detail, kind_of_protocol,
};

use crate::{
    parse::{Addresses, Fragment, Packet, TransportKind},
    tables::Tables,
    trie,
};

const _: () = assert!(KINDS <= 1 << 16);

/// What is asked of the kind table and of ports, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// [`kind_of_protocol`].
    protocol: u32,
    /// [`kind_of_detail`], or 0 where the packet has none.
    detail: u32,
    /// Source port in the upper half, destination port in the lower.
    ports: u32,
}

impl Shape {
    /// That of `packet`.
    #[inline(always)]
    #[must_use]
    pub const fn of(packet: &Packet) -> Self {
        let fragment = packet.fragment as u32;
        let family = match packet.addresses {
            Addresses::V4 { .. } => 0,
            Addresses::V6 { .. } => 1,
        };
        let value = packet.transport.detail();
        let detail = match packet.transport.kind {
            _ if matches!(packet.fragment, Fragment::Later) => 0,
            TransportKind::Tcp => kind_of_detail(Detail::Tcp, fragment, value),
            TransportKind::Icmp => kind_of_detail(Detail::Icmp, fragment, value),
            TransportKind::Icmpv6 => kind_of_detail(Detail::Icmpv6, fragment, value),
            TransportKind::Ports | TransportKind::None => 0,
        };
        Self {
            protocol: kind_of_protocol(family, fragment, packet.protocol),
            detail,
            ports: packet.transport.both_ports(),
        }
    }

    /// In a word of 64 bits, and [`Self::from_word`] back: both indices are below [`KINDS`], 2^16 at most.
    #[inline(always)]
    #[must_use]
    pub const fn to_word(self) -> u64 {
        (self.detail as u64) << 48 | (self.protocol as u64) << 32 | self.ports as u64
    }

    /// See [`Self::to_word`].
    #[inline(always)]
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        Self {
            protocol: (word >> 32) as u32 & 0xffff,
            detail: (word >> 48) as u32,
            ports: word as u32,
        }
    }
}

/// The decision on a packet, or `None` where the tables are cut short, which their builder rules out.
#[inline(always)]
pub fn classify<T: Tables>(tables: &T, shape: Shape, addresses: &Addresses) -> Option<Decision> {
    let header: &Header = tables.at(0)?;
    // First what depends on how the packet was parsed: the verifier walks the tries once more for
    // each outcome of the parser that is still needed behind them.
    let transport = transport_class(tables, header, shape)?;
    let addresses = address_class(tables, header, addresses)?;
    let class = cross(
        tables,
        header.matches,
        header.matches_row,
        addresses,
        transport,
    )?;
    tables.at(header.decisions + class * 8).copied()
}

#[inline(always)]
fn address_class<T: Tables>(tables: &T, header: &Header, addresses: &Addresses) -> Option<u32> {
    let (source, destination) = match *addresses {
        Addresses::V4 {
            source,
            destination,
        } => {
            let fields: &AddressTables4 = tables.at(ADDRESSES_V4)?;
            let mut classes = (fields.source_class, fields.destination_class);
            if fields.source.base != 0 {
                classes.0 = trie::lookup_v4(tables, &fields.source, source);
            }
            if fields.destination.base != 0 {
                classes.1 = trie::lookup_v4(tables, &fields.destination, destination);
            }
            classes
        }
        Addresses::V6 {
            source,
            destination,
        } => {
            let fields: &AddressTables6 = tables.at(ADDRESSES_V6)?;
            let mut classes = (fields.source_class, fields.destination_class);
            if fields.source.base != 0 {
                classes.0 = trie::lookup_v6(tables, &fields.source, source.0, source.1);
            }
            if fields.destination.base != 0 {
                classes.1 =
                    trie::lookup_v6(tables, &fields.destination, destination.0, destination.1);
            }
            classes
        }
    };
    cross(
        tables,
        header.addresses,
        header.addresses_row,
        source,
        destination,
    )
}

#[inline(always)]
fn transport_class<T: Tables>(tables: &T, header: &Header, shape: Shape) -> Option<u32> {
    if header.kinds == 0 {
        return Some(0);
    }
    let index = match shape.detail {
        detail if header.details != 0 && detail != 0 => detail,
        _ => shape.protocol,
    };
    let kind = u32::from(*tables.at::<u16>(header.kinds + index * 2)?);
    // A kind without ports matches no port qualifier, whatever the class of port 0.
    let destination = port_class(tables, header.destination_ports, shape.ports & 0xffff)?;
    let source = port_class(tables, header.source_ports, shape.ports >> 16)?;
    let ports = cross(tables, header.ports, header.ports_row, destination, source)?;
    cross(tables, header.transport, header.transport_row, kind, ports)
}

#[inline(always)]
fn port_class<T: Tables>(tables: &T, table: u32, port: u32) -> Option<u32> {
    if table == 0 {
        return Some(0);
    }
    let block = u32::from(*tables.at::<u16>(table + (port >> 8) * 2)?);
    let offset = table + (PORT_BLOCKS + block * 256 + (port & 0xff)) * 2;
    tables.at::<u16>(offset).map(|class| u32::from(*class))
}

/// One crossing. Where a table is left out, one of the two classes is always 0.
#[inline(always)]
fn cross<T: Tables>(tables: &T, table: u32, row: u32, a: u32, b: u32) -> Option<u32> {
    if table == 0 {
        return Some(a + b);
    }
    let offset = table + (a * row + b) * 2;
    tables.at::<u16>(offset).map(|class| u32::from(*class))
}
