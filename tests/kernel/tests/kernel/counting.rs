//! Counters are read, summed and reset.

use std::collections::BTreeSet;

use headgate_datapath::kernel::KernelError;
use headgate_kernel_tests::{
    blocks::{default_of, rule_of},
    frames::{arp, udp4, udp6},
    network::{ifindex, quiet, veth},
    node::{Node, port, wanted},
    trials::in_kernel,
};
use headgate_layout::{
    maps::MAX_COUNTERS,
    verdict::{Action, Count, Reason},
};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        in_kernel("rules_and_reasons_count_packets_and_bytes", counts),
        in_kernel("a_new_owner_starts_from_zero", reset),
        in_kernel("without_maps_there_is_nothing_to_read", nothing),
    ]
}

fn count(packets: u64, bytes: u64) -> Count {
    Count { packets, bytes }
}

fn counts() {
    let mut node = Node::new();
    quiet();
    let interface = veth("v0", "v1");
    let (rule, default) = (rule_of(Action::Drop, 65_535), default_of(Action::Allow));
    let ports = [
        (port(0), interface, &rule),
        (port(255), ifindex("v1"), &default),
    ];
    node.converge(&wanted(&ports));
    let frame = udp4([198, 51, 100, 7].into());
    for (port, frame, repeat) in [
        (port(0), frame.clone(), 10),
        (port(0), arp(), 3),
        (port(255), frame, 4),
        (port(255), udp6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 7].into()), 1),
    ] {
        node.kernel.run_program(port, &frame, repeat).expect("run");
    }
    let all: BTreeSet<u32> = (0..MAX_COUNTERS).collect();
    let rules = node.kernel.rule_counters(&all).expect("read");
    assert_eq!(rules.len(), all.len());
    assert_eq!(rules[&65_535], count(10, 500));
    assert!(
        rules
            .iter()
            .all(|(index, c)| *index == 65_535 || c.packets == 0)
    );
    let ports = BTreeSet::from([port(0), port(255)]);
    let reasons = node.kernel.reason_counters(&ports).expect("read");
    assert_eq!(reasons[&(port(0), Reason::NotIp)], count(3, 3 * 42));
    assert_eq!(
        reasons[&(port(255), Reason::DefaultAllow)],
        count(5, 4 * 50 + 70)
    );
    assert_eq!(reasons[&(port(0), Reason::NoTables)], count(0, 0));
}

fn reset() {
    let mut node = Node::new();
    quiet();
    let interface = veth("v0", "v1");
    let mut state = wanted(&[(port(0), interface, &rule_of(Action::Drop, 7))]);
    node.converge(&state);
    let frame = udp4([198, 51, 100, 7].into());
    node.kernel.run_program(port(0), &frame, 5).expect("run");
    let read = |node: &Node| node.kernel.rule_counters(&[7].into()).expect("read")[&7];
    assert_eq!(read(&node).packets, 5);
    state.fresh_counters = (0..3000).collect();
    node.run(&state);
    assert_eq!(read(&node), count(0, 0));
}

fn nothing() {
    let node = Node::new();
    let refused = node.kernel.rule_counters(&[7].into());
    assert!(
        matches!(refused, Err(KernelError::Unusable { .. })),
        "{refused:?}"
    );
}
