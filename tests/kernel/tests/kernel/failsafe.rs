//! Failsafe peers pass whatever policies say.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
    num::NonZeroU16,
    ops::RangeInclusive,
};

use headgate_datapath::{
    diff::diff,
    failsafe::{FailsafePeer, Passage, PortRange},
    kernel::Kernel as _,
    state::DatapathState,
};
use headgate_kernel::object_digest;
use headgate_kernel_tests::{
    blocks::default_of,
    frames::{Segment, XDP_DROP, XDP_PASS, udp4, udp6},
    network::veth,
    node::{Node, peers, port, wanted},
    trials::in_kernel,
};
use headgate_layout::{failsafe::MAX_NESTING, verdict::Action};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        in_kernel("peers_pass_and_others_do_not", peers_pass),
        in_kernel("the_whole_of_one_family_is_not_the_other", whole_families),
        in_kernel("peers_that_share_a_bit_are_removed_apart", shared_bits),
        in_kernel("all_sizes_of_prefixes_are_read_back", sizes),
        in_kernel("replies_of_a_peer_open_nothing_else", replies),
        in_kernel("a_service_is_open_to_its_peers_only", services),
        in_kernel("fragments_of_a_service_are_dropped", fragments),
        in_kernel("what_a_wider_prefix_may_a_longer_one_may_as_well", nested),
        in_kernel("passages_change_side_by_side", changing),
        in_kernel("a_chain_of_prefixes_is_replaced_by_another", chains),
    ]
}

/// A port that drops everything, with these peers.
fn dropping(texts: &[&str]) -> (Node, DatapathState) {
    let mut node = Node::new();
    let interface = veth("v0", "v1");
    let mut state = wanted(&[(port(0), interface, &default_of(Action::Drop))]);
    state.failsafe = peers(texts);
    node.converge(&state);
    (node, state)
}

fn verdict4(node: &Node, source: &str) -> u32 {
    let source: Ipv4Addr = source.parse().expect("an address");
    node.verdict(port(0), &udp4(source))
}

fn verdict6(node: &Node, source: &str) -> u32 {
    let source: Ipv6Addr = source.parse().expect("an address");
    node.verdict(port(0), &udp6(source))
}

fn peers_pass() {
    let (mut node, mut state) = dropping(&["10.1.0.0/16", "2001:db8:5::/48"]);
    assert_eq!(verdict4(&node, "10.1.255.255"), XDP_PASS);
    assert_eq!(verdict4(&node, "10.2.0.0"), XDP_DROP);
    assert_eq!(verdict6(&node, "2001:db8:5:ffff::1"), XDP_PASS);
    assert_eq!(verdict6(&node, "2001:db8:6::1"), XDP_DROP);
    state.failsafe = peers(&["10.2.0.0/16"]);
    node.converge(&state);
    assert_eq!(verdict4(&node, "10.1.255.255"), XDP_DROP);
    assert_eq!(verdict4(&node, "10.2.0.0"), XDP_PASS);
    assert_eq!(verdict6(&node, "2001:db8:5:ffff::1"), XDP_DROP);
}

fn whole_families() {
    let (mut node, mut state) = dropping(&["0.0.0.0/0"]);
    assert_eq!(verdict4(&node, "203.0.113.9"), XDP_PASS);
    assert_eq!(verdict6(&node, "2001:db8::9"), XDP_DROP);
    // The second shares its upper 16 bits with an address that is no peer.
    state.failsafe = peers(&["::/0", "10.1.2.3/32"]);
    node.converge(&state);
    assert_eq!(verdict6(&node, "2001:db8::9"), XDP_PASS);
    assert_eq!(verdict6(&node, "::2"), XDP_PASS);
    assert_eq!(verdict4(&node, "203.0.113.9"), XDP_DROP);
    assert_eq!(verdict4(&node, "10.1.2.3"), XDP_PASS);
    assert_eq!(verdict4(&node, "10.1.2.4"), XDP_DROP);
    // An IPv6 source that is written as a peer of IPv4.
    state.failsafe = peers(&["::1/128", "10.1.2.3/32"]);
    node.converge(&state);
    assert_eq!(verdict6(&node, "::ffff:10.1.2.3"), XDP_DROP);
    state.failsafe = peers(&["0.0.0.0/0", "::/0"]);
    node.converge(&state);
    assert_eq!(verdict4(&node, "203.0.113.9"), XDP_PASS);
    assert_eq!(verdict6(&node, "2001:db8::9"), XDP_PASS);
}

fn shared_bits() {
    let (mut node, mut state) = dropping(&["10.1.2.3/32", "10.1.2.4/32"]);
    state.failsafe = peers(&["10.1.2.4/32"]);
    node.converge(&state);
    assert_eq!(verdict4(&node, "10.1.2.3"), XDP_DROP);
    assert_eq!(verdict4(&node, "10.1.2.4"), XDP_PASS);
}

fn sizes() {
    let texts: Vec<String> = (0..=32)
        .map(|length| {
            let address = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            format!("{}/{length}", Ipv4Addr::from(address))
        })
        .chain(
            (0..=128)
                .filter(|length| *length < 80 || *length > 120)
                .map(|length| {
                    let address = u128::MAX.checked_shl(128 - length).unwrap_or(0);
                    format!("{}/{length}", Ipv6Addr::from(address))
                }),
        )
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let (mut node, mut state) = dropping(&[]);
    // As many as may lie around each other.
    for texts in texts.chunks(MAX_NESTING as usize) {
        state.failsafe = peers(texts);
        node.converge(&state);
        assert_eq!(node.observe().failsafe, state.failsafe);
    }
}

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

const API: [&str; 2] = ["192.0.2.10/32", "2001:db8::10/128"];

fn port_number(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).expect("a port")
}

fn replying(port: u16) -> Passage {
    Passage::Replies {
        port: port_number(port),
        local_ports: PortRange::new(32_768, 60_999).expect("a range"),
    }
}

fn service(port: u16) -> Passage {
    Passage::Service {
        port: port_number(port),
    }
}

/// Each of these prefixes with each of these passages.
fn may(prefixes: &[&str], passages: &[Passage]) -> BTreeSet<FailsafePeer> {
    let peers = peers(prefixes).into_iter();
    let all = peers.flat_map(|peer| {
        passages.iter().map(move |passage| FailsafePeer {
            passage: *passage,
            ..peer
        })
    });
    all.collect()
}

fn dropping_but(failsafe: BTreeSet<FailsafePeer>) -> (Node, DatapathState) {
    let (mut node, mut state) = dropping(&[]);
    state.failsafe = failsafe;
    node.converge(&state);
    assert_eq!(node.observe().failsafe, state.failsafe);
    (node, state)
}

/// Whether the segment passes; from both of these, which must be the same.
fn passes(node: &Node, sources: [&str; 2], ports: (u16, u16), flags: u8) -> bool {
    let [v4, v6] = sources.map(|source| {
        let segment = Segment {
            source: source.parse().expect("an address"),
            ports,
            flags,
            offset: 0,
        };
        node.verdict(port(0), &segment.frame()) == XDP_PASS
    });
    assert_eq!(v4, v6, "one family differs from the other");
    v4
}

const PEER: [&str; 2] = ["192.0.2.10", "2001:db8::10"];
/// Neighbours of the peer, which share its bit before the trie.
const OTHER: [&str; 2] = ["192.0.2.11", "2001:db8::11"];

fn replies() {
    let (node, _) = dropping_but(may(&API, &[replying(6443)]));
    for (flags, expected) in [
        (SYN | ACK, true),
        (ACK, true),
        (FIN | ACK, true),
        (RST, true),
        (SYN, false),
        (FIN, false),
        (0, false),
    ] {
        let passed = passes(&node, PEER, (6443, 40_000), flags);
        assert_eq!(passed, expected, "flags {flags:#x}");
        assert!(!passes(&node, OTHER, (6443, 40_000), flags));
    }
    for (ports, expected) in [
        ((6443, 32_768), true),
        ((6443, 60_999), true),
        ((6443, 32_767), false),
        ((6443, 61_000), false),
        ((6443, 22), false),
        ((443, 40_000), false),
        ((0, 40_000), false),
        ((40_000, 6443), false),
    ] {
        assert_eq!(passes(&node, PEER, ports, ACK), expected, "{ports:?}");
    }
    // Not TCP.
    assert_eq!(verdict4(&node, PEER[0]), XDP_DROP);
    assert_eq!(verdict6(&node, PEER[1]), XDP_DROP);
}

fn services() {
    let (node, _) = dropping_but(may(&API, &[service(10_250), replying(6443)]));
    for flags in [SYN, ACK, RST, FIN] {
        assert!(passes(&node, PEER, (40_000, 10_250), flags));
        assert!(!passes(&node, PEER, (40_000, 10_255), flags));
        assert!(!passes(&node, OTHER, (40_000, 10_250), flags));
    }
    assert!(passes(&node, PEER, (6443, 40_000), ACK));
    assert_eq!(verdict4(&node, PEER[0]), XDP_DROP);
}

fn fragments() {
    let (node, _) = dropping_but(may(&API, &[service(10_250), replying(6443)]));
    for source in PEER {
        for (offset, expected) in [(0, XDP_PASS), (0x2000, XDP_DROP), (100, XDP_DROP)] {
            let segment = Segment {
                source: source.parse().expect("an address"),
                ports: (6443, 40_000),
                flags: ACK,
                // As the bits of an IPv4 header: more fragments, or later.
                offset,
            };
            if offset == 0x2000 && segment.source.is_ipv6() {
                continue;
            }
            let verdict = node.verdict(port(0), &segment.frame());
            assert_eq!(verdict, expected, "{source}, {offset:#x}");
        }
    }
}

fn nested() {
    let mut peers = may(&["192.0.2.0/24", "2001:db8::/64"], &[Passage::Everything]);
    peers.extend(may(&API, &[service(10_250)]));
    let (mut node, mut state) = dropping_but(peers);
    assert_eq!(verdict4(&node, PEER[0]), XDP_PASS);
    assert_eq!(verdict6(&node, PEER[1]), XDP_PASS);
    assert!(passes(&node, PEER, (1, 22), SYN));

    let mut peers = may(&["0.0.0.0/0", "::/0"], &[service(10_250)]);
    peers.extend(may(&API, &[replying(6443)]));
    state.failsafe = peers;
    node.converge(&state);
    assert!(passes(&node, PEER, (1, 10_250), SYN));
    assert!(passes(&node, OTHER, (1, 10_250), SYN));
    assert!(passes(&node, PEER, (6443, 40_000), ACK));
    assert!(!passes(&node, OTHER, (6443, 40_000), ACK));
    assert!(!passes(&node, PEER, (1, 22), SYN));

    // An IPv6 source in a peer's IPv4-mapped address: the peers of IPv6 around it count.
    state.failsafe = may(&["192.0.2.10/32"], &[Passage::Everything]);
    state.failsafe.extend(may(&["::/0"], &[service(10_250)]));
    node.converge(&state);
    assert_eq!(verdict6(&node, "::ffff:192.0.2.10"), XDP_DROP);
    let mapped = ["192.0.2.10", "::ffff:192.0.2.10"];
    assert!(passes(&node, mapped, (1, 10_250), SYN));
}

fn changing() {
    let ports = |ports: RangeInclusive<u16>| ports.map(service).collect::<Vec<_>>();
    let (mut node, mut state) = dropping_but(may(&API, &ports(1..=4)));
    state.failsafe = may(&API, &ports(5..=8));
    node.converge(&state);
    for port in 1..=8 {
        let passed = passes(&node, PEER, (40_000, port), SYN);
        assert_eq!(passed, port >= 5, "port {port}");
    }
    state.failsafe = may(&API, &ports(8..=8));
    node.converge(&state);
    assert!(passes(&node, PEER, (40_000, 8), SYN));
    assert!(!passes(&node, PEER, (40_000, 7), SYN));
    state.failsafe = may(&API, &ports(1..=5));
    let refused = diff(&node.observe(), &state, object_digest()).expect_err("too many");
    assert!(refused.to_string().contains("have 5 services"), "{refused}");
}

/// While they change, eight prefixes lie around each other.
fn chains() {
    let chain = |lengths: [u8; 4]| -> BTreeSet<FailsafePeer> {
        let texts = lengths.map(|length| {
            let mask = u32::MAX << (32 - u32::from(length));
            format!("{}/{length}", Ipv4Addr::from(0xc000_020a & mask))
        });
        let ports = texts.iter().zip(1..);
        let each = ports.map(|(text, port)| may(&[text], &[service(port)]));
        each.flatten().collect()
    };
    let (mut node, mut state) = dropping_but(chain([8, 16, 24, 32]));
    let old = state.failsafe.clone();
    state.failsafe = chain([7, 15, 23, 31]);
    let passes = |node: &Node, to: u16| {
        let segment = Segment {
            source: "192.0.2.10".parse().expect("an address"),
            ports: (40_000, to),
            flags: SYN,
            offset: 0,
        };
        node.verdict(port(0), &segment.frame()) == XDP_PASS
    };
    for step in node.plan(&state).steps {
        node.kernel.apply(&step, &state.blocks).expect("applied");
        assert!((1..=4).all(|port| passes(&node, port)), "after {step}");
    }
    assert_eq!(node.observe().failsafe, state.failsafe);
    assert!(old.is_disjoint(&state.failsafe));
    assert!(!passes(&node, 5));
}
