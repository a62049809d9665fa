//! From a packet's fields to a decision, through the classes of `headgate_layout::tables`.

use headgate_layout::tables::{
    ADDRESSES_V4, ADDRESSES_V6, AddressTables4, AddressTables6, Decision, Detail, Header,
    PORT_BLOCKS, kind_of_detail, kind_of_protocol,
};

use crate::{
    parse::{Addresses, Fragment, Packet, TransportKind},
    tables::Tables,
    trie,
};

/// The decision on `packet`, or `None` where the tables are cut short, which their builder rules out.
#[inline(always)]
pub fn classify<T: Tables>(tables: &T, packet: &Packet) -> Option<Decision> {
    let header: &Header = tables.at(0)?;
    // First what depends on how the packet was parsed: the verifier walks the tries once more for
    // each outcome of the parser that is still needed behind them.
    let transport = transport_class(tables, header, packet)?;
    let addresses = address_class(tables, header, packet)?;
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
fn address_class<T: Tables>(tables: &T, header: &Header, packet: &Packet) -> Option<u32> {
    let (source, destination) = match packet.addresses {
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
fn transport_class<T: Tables>(tables: &T, header: &Header, packet: &Packet) -> Option<u32> {
    if header.kinds == 0 {
        return Some(0);
    }
    let kind = u32::from(*tables.at::<u16>(header.kinds + kind_index(header, packet) * 2)?);
    // A kind without ports matches no port qualifier, whatever the class of port 0.
    let transport = packet.transport;
    let destination = port_class(
        tables,
        header.destination_ports,
        transport.destination_port(),
    )?;
    let source = port_class(tables, header.source_ports, transport.source_port())?;
    let ports = cross(tables, header.ports, header.ports_row, destination, source)?;
    cross(tables, header.transport, header.transport_row, kind, ports)
}

#[inline(always)]
fn kind_index(header: &Header, packet: &Packet) -> u32 {
    let fragment = packet.fragment as u32;
    if header.details != 0 && packet.fragment != Fragment::Later {
        let detail = match packet.transport.kind {
            TransportKind::Tcp => Some(Detail::Tcp),
            TransportKind::Icmp => Some(Detail::Icmp),
            TransportKind::Icmpv6 => Some(Detail::Icmpv6),
            TransportKind::Ports | TransportKind::None => None,
        };
        if let Some(detail) = detail {
            return kind_of_detail(detail, fragment, packet.transport.detail());
        }
    }
    let family = match packet.addresses {
        Addresses::V4 { .. } => 0,
        Addresses::V6 { .. } => 1,
    };
    kind_of_protocol(family, fragment, packet.protocol)
}

#[inline(always)]
fn port_class<T: Tables>(tables: &T, table: u32, port: u16) -> Option<u32> {
    if table == 0 {
        return Some(0);
    }
    let port = u32::from(port);
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
