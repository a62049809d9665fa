//! Failsafe peers pass whatever policies say.

use std::net::{Ipv4Addr, Ipv6Addr};

use headgate_datapath::state::DatapathState;
use headgate_kernel_tests::{
    blocks::default_of,
    frames::{XDP_DROP, XDP_PASS, udp4, udp6},
    network::veth,
    node::{Node, peers, port, wanted},
    trials::in_kernel,
};
use headgate_layout::verdict::Action;
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        in_kernel("peers_pass_and_others_do_not", peers_pass),
        in_kernel("the_whole_of_one_family_is_not_the_other", whole_families),
        in_kernel("peers_that_share_a_bit_are_removed_apart", shared_bits),
        in_kernel("all_sizes_of_prefixes_are_read_back", sizes),
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
    let (mut node, state) = dropping(&texts);
    assert_eq!(node.observe().failsafe, state.failsafe);
}
