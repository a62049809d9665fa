//! Packets by their fields.

use std::net::IpAddr;

use headgate_packet::parse::{Addresses, Fragment, Packet, Transport};

use crate::model::{Fields, Piece};

/// A whole UDP packet from this address, of either family.
pub fn udp_from(source: &str) -> Fields {
    let source: IpAddr = source.parse().unwrap();
    let destination = match source {
        IpAddr::V4(_) => "203.0.113.1",
        IpAddr::V6(_) => "2001:db8:ffff::1",
    };
    Fields {
        source,
        destination: destination.parse().unwrap(),
        protocol: 17,
        piece: Piece::Whole,
        ports: Some((40_000, 53)),
        flags: None,
        kind: None,
    }
}

/// A whole TCP segment to this port.
pub fn tcp_to(source: &str, port: u16, flags: u8) -> Fields {
    Fields {
        protocol: 6,
        ports: Some((40_000, port)),
        flags: Some(flags),
        ..udp_from(source)
    }
}

/// A packet of another protocol, of which nothing but the number is known.
pub fn other_from(source: &str, protocol: u8) -> Fields {
    Fields {
        protocol,
        ports: None,
        ..udp_from(source)
    }
}

/// The fields as the parser gives them.
pub fn packet_of(fields: &Fields) -> Packet {
    let addresses = match (fields.source, fields.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Addresses::V4 {
            source: source.to_bits(),
            destination: destination.to_bits(),
        },
        (IpAddr::V6(source), IpAddr::V6(destination)) => Addresses::V6 {
            source: halves(source.to_bits()),
            destination: halves(destination.to_bits()),
        },
        mixed => panic!("two families: {mixed:?}"),
    };
    let transport = match (fields.ports, fields.flags, fields.kind) {
        (Some((source_port, destination_port)), Some(flags), _) => {
            Transport::tcp(source_port, destination_port, flags)
        }
        (Some((source_port, destination_port)), None, _) => {
            Transport::ports(source_port, destination_port)
        }
        (None, _, Some(kind)) if fields.source.is_ipv4() => Transport::icmp(kind),
        (None, _, Some(kind)) => Transport::icmpv6(kind),
        (None, _, None) => Transport::NONE,
    };
    Packet {
        addresses,
        protocol: fields.protocol,
        hop_limit: 64,
        fragment: match fields.piece {
            Piece::Whole => Fragment::Whole,
            Piece::First => Fragment::First,
            Piece::Later => Fragment::Later,
        },
        transport,
        is_plain: true,
        length: 100,
    }
}

fn halves(address: u128) -> (u64, u64) {
    ((address >> 64) as u64, address as u64)
}
