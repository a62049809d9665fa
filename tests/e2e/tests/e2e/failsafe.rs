//! What a node needs to live gets through a policy that denies all.

use headgate_e2e_tests::{
    frames::{Frame, icmp, tcp, udp},
    lab::Lab,
    policies::policy,
    trials::on_node,
};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![on_node(
        "the_failsafe_stands_above_a_drop_of_everything",
        failsafe,
    )]
}

fn neighbour_solicitation(from: &str) -> Frame {
    icmp(135, from, "fd00::1")
}

fn failsafe() {
    let mut lab = Lab::new();
    // A rule without protocols, which other tools have let past their failsafe.
    lab.node.write(
        "deny.yaml",
        &policy(
            "deny",
            "{defaultAction: Drop, rules: [{name: all, action: Drop}]}",
        ),
    );
    for cidr in ["10.9.0.0/24", "2001:db8:9::/64"] {
        lab.node
            .arguments
            .extend(["--failsafe-cidr".to_owned(), cidr.to_owned()]);
    }
    lab.node.start();
    let (passed, rule) = ("Failsafe", "deny/all");
    lab.check([
        tcp("10.9.0.5:5", "192.168.0.1:22", "S").passed_by(passed),
        icmp(8, "10.9.0.255", "192.168.0.1").passed_by(passed),
        tcp("[2001:db8:9::5]:5", "[fd00::1]:22", "S").passed_by(passed),
        tcp("10.9.1.5:5", "192.168.0.1:22", "S").dropped_by(rule),
        tcp("10.8.255.255:5", "192.168.0.1:22", "S").dropped_by(rule),
        tcp("[2001:db8:9:1::5]:5", "[fd00::1]:22", "S").dropped_by(rule),
        // DHCP: from servers to clients.
        udp("192.168.0.2:67", "255.255.255.255:68").passed_by(passed),
        udp("192.168.0.2:68", "192.168.0.1:67").dropped_by(rule),
        udp("192.168.0.2:67", "192.168.0.1:69").dropped_by(rule),
        udp("[fe80::2]:547", "[fd00::1]:546").passed_by(passed),
        udp("[2001:db8::2]:547", "[fd00::1]:546").dropped_by(rule),
        // Neighbour discovery, which no router passes on.
        neighbour_solicitation("fd00::2")
            .with_hop_limit(255)
            .passed_by(passed),
        neighbour_solicitation("fd00::2").dropped_by(rule),
        icmp(128, "fd00::2", "fd00::1")
            .with_hop_limit(255)
            .dropped_by(rule),
        icmp(138, "fd00::2", "fd00::1")
            .with_hop_limit(255)
            .dropped_by(rule),
        neighbour_solicitation("fd00::2")
            .with_hop_limit(255)
            .first_fragment()
            .dropped_by(rule),
    ]);
    let peers = lab.node.status()["failsafePeers"].clone();
    assert_eq!(peers, serde_json::json!(["10.9.0.0/24", "2001:db8:9::/64"]));

    // Without the flags, the peers are gone too.
    lab.node.terminate();
    lab.node.arguments.clear();
    lab.node.start();
    lab.check([tcp("10.9.0.5:5", "192.168.0.1:22", "S").dropped_by(rule)]);
}
