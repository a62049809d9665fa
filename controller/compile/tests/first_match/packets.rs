//! Packets at the edges of what a world's rules ask for.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use headgate_crds::{Endpoint, IpNet, PortRange, Protocol};
use proptest::{prelude::*, sample::Index};

use super::policies::{KINDS, PROTOCOLS};
use crate::model::{Fields, Piece, World};

/// Values where the answer may change, and their neighbours.
pub struct Edges {
    v4: Vec<u32>,
    v6: Vec<u128>,
    ports: Vec<u16>,
}

impl Edges {
    pub fn of(world: &World) -> Self {
        let (mut v4, mut v6) = (
            BTreeSet::from([0, u32::MAX]),
            BTreeSet::from([0, u128::MAX]),
        );
        let mut ports = BTreeSet::from([0, u16::MAX]);
        let rules = world.policies.iter().flat_map(|policy| &policy.spec.rules);
        let endpoints = rules
            .clone()
            .flat_map(|rule| [&rule.from, &rule.to])
            .flatten();
        let inline =
            endpoints.flat_map(|Endpoint { cidrs, except, .. }| cidrs.iter().chain(except));
        let services = world.services.iter().map(|service| &service.spec);
        let ranges = services.flat_map(|spec| spec.source_ranges.iter().flatten());
        let inline = inline.chain(ranges);
        for cidr in inline.chain(world.groups.iter().flat_map(|group| &group.cidrs)) {
            match cidr.parse().unwrap() {
                IpNet::V4(net) => {
                    let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
                    v4.extend([first.saturating_sub(1), first, last, last.saturating_add(1)]);
                }
                IpNet::V6(net) => {
                    let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
                    v6.extend([first.saturating_sub(1), first, last, last.saturating_add(1)]);
                }
            }
        }
        for protocol in rules.flat_map(|rule| &rule.protocols).flatten() {
            for range in port_ranges(protocol) {
                let (first, last) = (range.port, range.end_port.unwrap_or(range.port));
                ports.extend([first.saturating_sub(1), first, last, last.saturating_add(1)]);
            }
        }
        Self {
            v4: v4.into_iter().collect(),
            v6: v6.into_iter().collect(),
            ports: ports.into_iter().collect(),
        }
    }
}

fn port_ranges(protocol: &Protocol) -> impl Iterator<Item = &PortRange> {
    let (ports, source_ports) = match protocol {
        Protocol::Tcp(tcp) => (&tcp.ports, &tcp.source_ports),
        Protocol::Udp(udp) => (&udp.ports, &udp.source_ports),
        Protocol::Sctp(sctp) => (&sctp.ports, &sctp.source_ports),
        Protocol::Icmp(_) | Protocol::Icmpv6(_) | Protocol::Number(_) => (&None, &None),
    };
    ports.iter().chain(source_ports).flatten()
}

/// A packet before it is known which edges there are.
#[derive(Clone, Debug)]
pub struct Seed {
    v6: bool,
    source: Pick,
    destination: Pick,
    protocol: u8,
    piece: Piece,
    source_port: Pick,
    destination_port: Pick,
    flags: u8,
    kind: u8,
}

/// One of the edges, or any value.
#[derive(Clone, Debug)]
enum Pick {
    Edge(Index),
    Any(u128),
}

impl Pick {
    fn of<T: Copy>(&self, edges: &[T], narrow: impl Fn(u128) -> T) -> T {
        match self {
            Self::Edge(index) => *index.get(edges),
            Self::Any(value) => narrow(*value),
        }
    }
}

fn pick() -> impl Strategy<Value = Pick> {
    prop_oneof![
        4 => any::<Index>().prop_map(Pick::Edge),
        1 => any::<u128>().prop_map(Pick::Any),
    ]
}

pub fn seed() -> impl Strategy<Value = Seed> {
    let protocol = prop_oneof![
        6 => proptest::sample::select(&PROTOCOLS[..5]),
        1 => proptest::sample::select(&PROTOCOLS[..]),
        // An IPv6 extension header never is the protocol.
        1 => any::<u8>().prop_filter("a protocol", |number| ![0, 43, 44, 60].contains(number)),
    ];
    let piece =
        prop_oneof![4 => Just(Piece::Whole), 1 => Just(Piece::First), 1 => Just(Piece::Later)];
    // Half of the segments carry flags that are usual, the others any.
    let flags = prop_oneof![
        proptest::sample::select(vec![0x02, 0x12, 0x10, 0x04, 0x18]),
        any::<u8>()
    ];
    let kind = prop_oneof![proptest::sample::select(&KINDS[..]), any::<u8>()];
    (
        any::<bool>(),
        pick(),
        pick(),
        protocol,
        piece,
        pick(),
        pick(),
        flags,
        kind,
    )
        .prop_map(
            |(
                v6,
                source,
                destination,
                protocol,
                piece,
                source_port,
                destination_port,
                flags,
                kind,
            )| {
                Seed {
                    v6,
                    source,
                    destination,
                    protocol,
                    piece,
                    source_port,
                    destination_port,
                    flags,
                    kind,
                }
            },
        )
}

impl Seed {
    /// The packet, with the fields that one of its kind has.
    pub fn packet(&self, edges: &Edges) -> Fields {
        let address = |pick: &Pick| -> IpAddr {
            if self.v6 {
                Ipv6Addr::from_bits(pick.of(&edges.v6, |any| any)).into()
            } else {
                Ipv4Addr::from_bits(pick.of(&edges.v4, |any| any as u32)).into()
            }
        };
        let port = |pick: &Pick| pick.of(&edges.ports, |any| any as u16);
        let has_header = self.piece != Piece::Later;
        let has_ports = has_header && matches!(self.protocol, 6 | 17 | 132);
        let icmp = if self.v6 { 58 } else { 1 };
        Fields {
            source: address(&self.source),
            destination: address(&self.destination),
            protocol: self.protocol,
            piece: self.piece,
            ports: has_ports.then(|| (port(&self.source_port), port(&self.destination_port))),
            flags: (has_header && self.protocol == 6).then_some(self.flags),
            kind: (has_header && self.protocol == icmp).then_some(self.kind),
        }
    }
}
