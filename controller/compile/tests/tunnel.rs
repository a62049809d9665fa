//! The tunnel's tables, read by the programs' own code, against a naive model; and what becomes of frames.
#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::PacketBuilder;
use headgate_compile::tunnel::{RemotePeer, tables};
use headgate_crds::IpNet;
use headgate_datapath::state::Block;
use headgate_layout::{services::mapped, tunnel::Event};
use headgate_packet::{
    tables::HostTables,
    tunnel::{Outer, Received, destination, way_in, way_out},
};
use proptest::prelude::*;

const PORT: u16 = 8472;

/// A frame, as the stack takes it.
struct Arrived<'a>(&'a [u8]);

impl Received for Arrived<'_> {
    fn ethertype(&self) -> u16 {
        let bytes = self.0.get(12..14).map(|b| [b[0], b[1]]);
        bytes.map_or(0, u16::from_be_bytes)
    }

    fn words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        let bytes = self.0.get(14 + offset as usize..)?.get(..4 * N)?;
        let word = |index: usize| bytes[4 * index..].first_chunk().copied().unwrap();
        Some(std::array::from_fn(|index| u32::from_be_bytes(word(index))))
    }
}

fn words(block: &Block) -> Vec<u64> {
    let chunks = block.bytes().chunks_exact(8);
    chunks
        .map(|chunk| u64::from_le_bytes(chunk.try_into().unwrap()))
        .collect()
}

fn halves(address: IpAddr) -> [u64; 2] {
    match address {
        IpAddr::V4(v4) => mapped(v4.to_bits()),
        IpAddr::V6(v6) => [(v6.to_bits() >> 64) as u64, v6.to_bits() as u64],
    }
}

fn frame(source: IpAddr, destination: IpAddr, port: u16) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2([2; 6], [2; 6]);
    let ip = match (source, destination) {
        (IpAddr::V4(s), IpAddr::V4(d)) => ethernet.ipv4(s.octets(), d.octets(), 64),
        (IpAddr::V6(s), IpAddr::V6(d)) => ethernet.ipv6(s.octets(), d.octets(), 64),
        _ => panic!("two families"),
    };
    let mut frame = Vec::new();
    ip.udp(1_000, port).write(&mut frame, b"data").unwrap();
    frame
}

fn out(block: &Block, destination: IpAddr) -> Result<[u64; 2], Event> {
    let words = words(block);
    let source = match destination {
        IpAddr::V4(_) => Ipv4Addr::new(10, 200, 0, 1).into(),
        IpAddr::V6(_) => Ipv6Addr::from([0xfd00, 200, 0, 0, 0, 0, 0, 1]).into(),
    };
    let frame = frame(source, destination, 53);
    let tables = HostTables::new(&words);
    let peer = way_out(frame.as_slice(), Some(&tables));
    peer.map(|peer| peer.endpoint)
}

fn received(block: &Block, source: IpAddr, outer: IpAddr, vni: u32, port: u16) -> Event {
    let words = words(block);
    let destination = match source {
        IpAddr::V4(_) => Ipv4Addr::new(10, 200, 0, 1).into(),
        IpAddr::V6(_) => Ipv6Addr::from([0xfd00, 200, 0, 0, 0, 0, 0, 1]).into(),
    };
    let frame = frame(source, destination, port);
    let outer = Outer {
        source: halves(outer),
        vni,
    };
    let judged = way_in(&Arrived(&frame), Some(&HostTables::new(&words)), &outer);
    judged.err().unwrap_or(Event::Received)
}

fn peer(networks: &[&str], endpoint: &str, vni: u32) -> RemotePeer {
    RemotePeer {
        networks: networks.iter().map(|n| n.parse().unwrap()).collect(),
        endpoint: endpoint.parse().unwrap(),
        local: None,
        vni,
        accepted_vni: vni,
        is_direct: false,
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_packet_without_a_hop_left_has_no_destination_past_the_stack() {
    for (from, to) in [("10.0.0.1", "10.200.0.1"), ("fd00::1", "fd00:200::1")] {
        let mut frame = frame(address(from), address(to), 53);
        let hops = if to.contains(':') { 14 + 7 } else { 14 + 8 };
        for (left, goes) in [(0, false), (1, false), (2, true), (255, true)] {
            frame[hops] = left;
            let found = destination(&Arrived(&frame));
            let expected = goes.then(|| halves(address(to)));
            assert_eq!(found.map(|d| d.address), expected, "{to}, {left} hops");
            assert!(found.is_none_or(|d| d.is_v6 == to.contains(':')));
        }
        assert_eq!(destination(&Arrived(&frame[..30])), None, "cut short");
    }
}

#[test]
fn whose_packets_go_directly_is_told() {
    let direct = RemotePeer {
        is_direct: true,
        ..peer(&["10.2.0.0/16"], "192.0.2.2", 7)
    };
    let peers = [peer(&["10.1.0.0/16"], "192.0.2.1", 7), direct];
    let block = tables(&peers, &[], PORT).unwrap();
    let words = words(&block);
    for (source, outer, is_direct) in [
        ("10.1.0.1", "192.0.2.1", false),
        ("10.2.0.1", "192.0.2.2", true),
    ] {
        let frame = frame(address(source), address("10.200.0.1"), 53);
        let outer = Outer {
            source: halves(address(outer)),
            vni: 7,
        };
        let tables = HostTables::new(&words);
        let admitted = way_in(&Arrived(&frame), Some(&tables), &outer).unwrap();
        assert_eq!(admitted.is_direct, is_direct, "{source}");
    }
}

#[test]
fn a_packet_goes_to_the_peer_of_the_longest_prefix() {
    let peers = [
        peer(&["10.0.0.0/8", "fd00::/16"], "192.0.2.1", 7),
        peer(&["10.1.0.0/16"], "2001:db8::2", 7),
        peer(&["10.1.2.3/32"], "192.0.2.3", 7),
    ];
    let block = tables(&peers, &[], PORT).unwrap();
    for (destination, endpoint) in [
        ("10.0.0.0", "192.0.2.1"),
        ("10.255.255.255", "192.0.2.1"),
        ("10.1.0.0", "2001:db8::2"),
        ("10.1.2.2", "2001:db8::2"),
        ("10.1.2.3", "192.0.2.3"),
        ("10.1.2.4", "2001:db8::2"),
        ("fd00::1", "192.0.2.1"),
    ] {
        let expected = Ok(halves(address(endpoint)));
        assert_eq!(out(&block, address(destination)), expected, "{destination}");
    }
    for nobodys in ["9.255.255.255", "11.0.0.0", "192.0.2.1", "fd01::1"] {
        let sent = out(&block, address(nobodys));
        assert_eq!(sent, Err(Event::NoPeer), "{nobodys}");
    }
    for group in ["224.0.0.1", "239.255.255.255", "ff02::16"] {
        let sent = out(&block, address(group));
        assert_eq!(sent, Err(Event::Multicast), "{group}");
    }
}

#[test]
fn what_comes_must_be_its_senders_to_send() {
    let peers = [
        peer(&["10.1.0.0/16", "fd00:1::/64"], "192.0.2.1", 7),
        peer(&["10.2.0.0/16"], "2001:db8::2", 8),
    ];
    let block = tables(&peers, &[], PORT).unwrap();
    let judged = |source, outer, vni| received(&block, address(source), address(outer), vni, 53);
    assert_eq!(judged("10.1.9.9", "192.0.2.1", 7), Event::Received);
    assert_eq!(judged("fd00:1::9", "192.0.2.1", 7), Event::Received);
    assert_eq!(judged("10.2.9.9", "2001:db8::2", 8), Event::Received);
    // A peer itself may speak, but for nobody else.
    assert_eq!(judged("192.0.2.1", "192.0.2.1", 7), Event::Received);
    assert_eq!(judged("2001:db8::2", "192.0.2.1", 8), Event::SpoofedSource);
    assert_eq!(judged("10.2.9.9", "192.0.2.1", 8), Event::SpoofedSource);
    assert_eq!(judged("10.1.9.9", "192.0.2.9", 7), Event::SpoofedSource);
    assert_eq!(judged("10.3.9.9", "192.0.2.1", 7), Event::UnknownSource);
    assert_eq!(judged("192.0.2.9", "192.0.2.9", 7), Event::UnknownSource);
    assert_eq!(judged("10.1.9.9", "192.0.2.1", 8), Event::WrongVni);
    let nested = received(&block, address("10.1.9.9"), address("192.0.2.1"), 7, PORT);
    assert_eq!(nested, Event::Nested);
}

#[test]
fn nobody_speaks_for_the_nodes_own_networks() {
    let peers = [peer(&["10.0.0.0/8", "fd00::/16"], "192.0.2.1", 7)];
    let own = ["10.1.0.0/16", "fd00:1::/64"].map(|network| network.parse().unwrap());
    let block = tables(&peers, &own, PORT).unwrap();
    let judged = |source, outer| received(&block, address(source), address(outer), 7, 53);
    for source in ["10.1.2.3", "fd00:1::3"] {
        for outer in ["192.0.2.1", "192.0.2.9", "::", "0.0.0.0"] {
            let expected = match outer {
                // No packet comes from there; the number of the network is not a peer's either.
                "::" => Event::WrongVni,
                _ => Event::SpoofedSource,
            };
            assert_eq!(judged(source, outer), expected, "{source} by {outer}");
        }
    }
    assert_eq!(judged("10.2.2.3", "192.0.2.1"), Event::Received);
    assert_eq!(judged("fd00:2::3", "192.0.2.1"), Event::Received);
    // The way out is the route's affair: what comes here is for the peer.
    assert_eq!(
        out(&block, address("10.1.2.3")),
        Ok(halves(address("192.0.2.1")))
    );
}

#[test]
fn what_is_no_whole_ip_packet_goes_nowhere() {
    let block = tables(&[peer(&["10.1.0.0/16"], "192.0.2.1", 7)], &[], PORT).unwrap();
    let words = words(&block);
    let tables = HostTables::new(&words);
    let outer = Outer::v4(Ipv4Addr::new(192, 0, 2, 1).to_bits(), 7);
    let whole = frame(address("10.1.0.1"), address("10.1.0.2"), 53);
    for length in 0..whole.len() {
        let cut = &whole[..length];
        assert!(way_out(cut, Some(&tables)).is_err(), "{length} bytes");
        // Where no port is cut off, the packet has all that the tunnel asks for.
        let received = way_in(&Arrived(cut), Some(&tables), &outer);
        assert_eq!(received.is_err(), length < 14 + 20 + 4, "{length} bytes");
    }
    let mut arp = whole;
    arp[12..14].copy_from_slice(&0x0806_u16.to_be_bytes());
    assert_eq!(
        way_out(arp.as_slice(), Some(&tables)),
        Err(Event::SentNotIp)
    );
    let received = way_in(&Arrived(&arp), Some(&tables), &outer);
    assert_eq!(received, Err(Event::ReceivedNotIp));
    let nothing: Option<&HostTables<'_>> = None;
    assert_eq!(way_out(arp.as_slice(), nothing), Err(Event::SentNoTables));
    assert_eq!(
        way_in(&Arrived(&arp), nothing, &outer),
        Err(Event::ReceivedNoTables)
    );
}

#[test]
fn five_thousand_peers_fit_and_more_than_fit_are_refused() {
    let many = |count: u32| -> Vec<RemotePeer> {
        let peer = |index: u32| RemotePeer {
            networks: vec![
                IpNet::new(Ipv4Addr::from_bits(10 << 24 | index << 8).into(), 24).unwrap(),
            ],
            endpoint: Ipv4Addr::from_bits(172 << 24 | 16 << 16 | index).into(),
            local: None,
            vni: 7,
            accepted_vni: 7,
            is_direct: false,
        };
        (0..count).map(peer).collect()
    };
    let block = tables(&many(5_000), &[], PORT).unwrap();
    println!("5,000 peers take {} bytes", block.length());
    let last = Ipv4Addr::from_bits(10 << 24 | 4_999 << 8 | 77);
    assert!(out(&block, last.into()).is_ok());
    assert!(tables(&many(65_000), &[], PORT).is_err());
}

/// Few bits differ, so that networks nest and meet.
fn any_network() -> impl Strategy<Value = IpNet> {
    let v4 = (0u32..16, 24u8..=32).prop_map(|(bits, length)| {
        let address = Ipv4Addr::from_bits((10 << 24) | ((bits * 17) % 256));
        IpNet::new(address.into(), length).unwrap().trunc()
    });
    let v6 = (0u128..16, 56u8..=72).prop_map(|(bits, length)| {
        let address = Ipv6Addr::from_bits(0xfd00 << 112 | bits << 60);
        IpNet::new(address.into(), length).unwrap().trunc()
    });
    prop_oneof![v4, v6]
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0u32..256).prop_map(|last| Ipv4Addr::from_bits(10 << 24 | last).into()),
        (0u128..256).prop_map(|bits| Ipv6Addr::from_bits(0xfd00 << 112 | bits << 58).into()),
        (0u32..8).prop_map(endpoint),
    ]
}

fn endpoint(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(192 << 24 | 2 << 8 | number).into()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_tables_are_the_longest_prefix_of_all(
        owners in prop::collection::btree_map(any_network(), 0u32..8, 0..12),
        asked in prop::collection::vec((any_address(), 0u32..8), 1..40),
    ) {
        let peers: Vec<RemotePeer> = (0..8)
            .map(|number| RemotePeer {
                networks: owners.iter().filter(|(_, o)| **o == number).map(|(n, _)| *n).collect(),
                endpoint: endpoint(number),
                local: None,
                vni: 7,
                accepted_vni: 7,
                is_direct: false,
            })
            .collect();
        let block = tables(&peers, &[], PORT).unwrap();
        for (address, outer) in asked {
            let around = owners.iter().filter(|(network, _)| network.contains(&address));
            let owner = around.max_by_key(|(network, _)| network.prefix_len()).map(|(_, o)| *o);
            let expected = owner.map(|owner| halves(endpoint(owner))).ok_or(Event::NoPeer);
            prop_assert_eq!(out(&block, address), expected);
            let speaker = owner.or((0..8).find(|number| endpoint(*number) == address));
            let expected = match speaker {
                None => Event::UnknownSource,
                Some(speaker) if speaker == outer => Event::Received,
                Some(_) => Event::SpoofedSource,
            };
            prop_assert_eq!(received(&block, address, endpoint(outer), 7, 53), expected);
        }
    }
}
