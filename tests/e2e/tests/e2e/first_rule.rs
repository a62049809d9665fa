//! From a file to a dropped packet and back.

use headgate_e2e_tests::{
    flow::Receiver, lab::Lab, paths::example, policies::drop_udp, trials::on_node,
};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![on_node(
        "a_rule_begins_changes_and_ends_with_its_file",
        first_rule,
    )]
}

/// Datagrams in each measurement.
const SENT: u64 = 200;

/// What arrives of a flow to this port.
fn arriving(lab: &Lab, receiver: &Receiver, port: u16) -> u64 {
    let source = lab.client.cable.client.v4.into();
    lab.client.send(SENT, &[source], port, receiver)
}

#[track_caller]
fn all_arrive(lab: &Lab, receiver: &Receiver, port: u16) {
    assert_eq!(arriving(lab, receiver, port), SENT, "to port {port}");
}

#[track_caller]
fn none_arrives(lab: &Lab, receiver: &Receiver, port: u16, rule: &str) {
    let before = lab.node.counters()[rule];
    assert_eq!(arriving(lab, receiver, port), 0, "to port {port}");
    assert_eq!(
        lab.node.counters()[rule] - before,
        SENT,
        "counted by {rule}"
    );
}

fn first_rule() {
    let mut lab = Lab::new();
    let receiver = Receiver::open(&lab.node.namespace, &[12345, 12346]);
    lab.node.start();
    all_arrive(&lab, &receiver, 12345);
    assert!(!lab.node.namespace.ip("link show eth0").contains("xdp"));

    lab.node
        .apply("policy.yaml", &example("policies/drop-udp-12345.yaml"));
    none_arrives(&lab, &receiver, 12345, "drop-udp-12345/udp-12345");
    all_arrive(&lab, &receiver, 12346);
    assert!(lab.node.namespace.ip("link show eth0").contains("xdp"));
    assert_eq!(lab.node.interface("eth0")["state"], "Enforced");

    lab.node
        .apply("policy.yaml", &drop_udp("drop-udp-12345", 12346));
    all_arrive(&lab, &receiver, 12345);
    none_arrives(&lab, &receiver, 12346, "drop-udp-12345/udp");

    lab.node.live_after(|node| node.remove("policy.yaml"));
    all_arrive(&lab, &receiver, 12345);
    all_arrive(&lab, &receiver, 12346);
    assert!(!lab.node.namespace.ip("link show eth0").contains("xdp"));
    assert!(
        lab.node.status()["interfaces"]
            .as_array()
            .is_some_and(Vec::is_empty)
    );
}
