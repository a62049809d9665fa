//! Which interfaces a policy selects, where its program goes, and how it is attached.

use std::collections::{BTreeMap, BTreeSet};

use headgate_compile::{
    finding::{FindingReason, Severity},
    node::{Interface, InterfaceKind},
};
use headgate_datapath::state::{Ifindex, WantedMode};
use serde_json::{Value, json};

use crate::scene::{Agent, Enforced, card, node, policy, udp_from};

fn of_kind(kind: InterfaceKind, name: &str, ifindex: u32) -> Interface {
    Interface {
        kind,
        ..card(name, ifindex)
    }
}

fn port_of(master: u32, interface: Interface) -> Interface {
    Interface {
        mtu: 1_500,
        master: Some(Ifindex(master)),
        ..interface
    }
}

fn default_route(interface: Interface) -> Interface {
    Interface {
        has_default_route: true,
        ..interface
    }
}

fn on(interfaces: &[&str]) -> Value {
    policy(
        "web",
        json!({"interfaces": interfaces, "defaultAction": "Drop"}),
    )
}

/// Interfaces that a policy is compiled for.
fn selected(interfaces: Vec<Interface>, patterns: &[&str]) -> BTreeSet<String> {
    let enforced = Agent::new(node(interfaces)).apply([&on(patterns)]);
    enforced.assert_no_findings();
    enforced.interfaces()
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

fn modes(enforced: &Enforced) -> BTreeMap<String, WantedMode> {
    let state = enforced.compilation.state.as_ref().unwrap();
    let attachments = state.ports.values();
    attachments.map(|a| (a.interface.clone(), a.mode)).collect()
}

#[test]
fn names_and_globs() {
    let all = || {
        vec![
            of_kind(InterfaceKind::Loopback, "lo", 1),
            card("eth0", 2),
            card("eth1", 3),
            card("eth10", 4),
            card("enp3s0", 5),
        ]
    };
    for (patterns, expected) in [
        (&["eth0"][..], names(["eth0"])),
        (&["eth0", "enp3s0"], names(["eth0", "enp3s0"])),
        (&["eth*"], names(["eth0", "eth1", "eth10"])),
        (&["eth?"], names(["eth0", "eth1"])),
        (&["e*0"], names(["eth0", "eth10", "enp3s0"])),
        (&["*"], names(["eth0", "eth1", "eth10", "enp3s0"])),
        (&["eth*", "eth0"], names(["eth0", "eth1", "eth10"])),
        (&["lo"], names(["lo"])),
    ] {
        assert_eq!(selected(all(), patterns), expected, "{patterns:?}");
    }
}

#[test]
fn the_default_route_is_the_default() {
    let interfaces = vec![
        default_route(card("wan0", 2)),
        default_route(card("wan1", 3)),
        card("lan0", 4),
    ];
    assert_eq!(
        selected(interfaces.clone(), &["defaultRoute"]),
        names(["wan0", "wan1"])
    );
    let mut unsaid = on(&[]);
    unsaid["spec"].as_object_mut().unwrap().remove("interfaces");
    let enforced = Agent::new(node(interfaces)).apply([&unsaid]);
    assert_eq!(enforced.interfaces(), names(["wan0", "wan1"]));
}

#[test]
fn a_bond_is_itself_and_so_are_its_ports() {
    let interfaces = || {
        vec![
            of_kind(InterfaceKind::Bond, "bond0", 5),
            port_of(5, card("eth0", 2)),
            port_of(5, card("eth1", 3)),
        ]
    };
    for patterns in [&["bond0"][..], &["eth0"], &["eth*"], &["*"]] {
        assert_eq!(selected(interfaces(), patterns), names(["bond0"]));
    }
}

#[test]
fn a_bridge_is_its_ports_that_are_no_veth() {
    let interfaces = || {
        vec![
            default_route(of_kind(InterfaceKind::Bridge, "br0", 9)),
            port_of(9, card("eth0", 2)),
            port_of(9, of_kind(InterfaceKind::Bond, "bond0", 3)),
            port_of(3, card("eth1", 4)),
            port_of(9, of_kind(InterfaceKind::Veth, "veth7", 7)),
            of_kind(InterfaceKind::Veth, "veth8", 8),
        ]
    };
    assert_eq!(selected(interfaces(), &["br0"]), names(["eth0", "bond0"]));
    assert_eq!(
        selected(interfaces(), &["defaultRoute"]),
        names(["eth0", "bond0"])
    );
    assert_eq!(
        selected(interfaces(), &["veth7", "veth8"]),
        names(["veth7", "veth8"]),
        "a veth is meant by its name"
    );
    assert_eq!(selected(interfaces(), &["eth1"]), names(["bond0"]));
}

#[test]
fn a_bridge_without_such_a_port_waits_for_one() {
    let mut agent = Agent::new(node([
        of_kind(InterfaceKind::Bridge, "br0", 9),
        port_of(9, of_kind(InterfaceKind::Veth, "veth7", 7)),
    ]));
    let enforced = agent.apply([&on(&["br0"])]);
    assert!(enforced.interfaces().is_empty());
    let finding = enforced.finding(FindingReason::InterfaceNotFound);
    assert_eq!(finding.severity, Severity::Pending);
    assert!(finding.message.contains("bridge br0"), "{finding}");
    agent.node.interfaces.push(port_of(9, card("eth0", 2)));
    let enforced = agent.apply([&on(&["br0"])]);
    enforced.assert_no_findings();
    assert_eq!(enforced.interfaces(), names(["eth0"]));
}

#[test]
fn an_interface_that_does_not_exist_is_waited_for() {
    let mut agent = Agent::new(node([card("eth0", 2)]));
    let both = on(&["eth0", "eth9"]);
    let enforced = agent.apply([&both]);
    assert_eq!(enforced.interfaces(), names(["eth0"]));
    let finding = enforced.finding(FindingReason::InterfaceNotFound);
    assert_eq!(
        finding.to_string(),
        "policies.yaml:1: XdpPolicy/web: spec.interfaces[1]: no interface \"eth9\" on this node; it is attached as soon as there is one, or correct the name (Pending, InterfaceNotFound)"
    );
    agent.node.interfaces.push(card("eth9", 9));
    let enforced = agent.apply([&both]);
    enforced.assert_no_findings();
    assert_eq!(enforced.interfaces(), names(["eth0", "eth9"]));
    agent.node.interfaces.remove(0);
    assert_eq!(agent.apply([&both]).interfaces(), names(["eth9"]));
}

#[test]
fn a_slip_in_a_name_is_told_with_the_name_that_is_near() {
    let mut agent = Agent::new(node([card("eth0", 2), card("wlan0", 3)]));
    let enforced = agent.apply([&on(&["eht0"])]);
    assert!(enforced.interfaces().is_empty());
    assert_eq!(
        enforced.finding(FindingReason::InterfaceNotFound).message,
        "no interface \"eht0\" on this node (did you mean \"eth0\"?); it is attached as soon as there is one, or correct the name; none of its interfaces is here, so it is enforced nowhere on this node"
    );
    // What the policy has already is not meant a second time, and a glob means no name.
    let message = |agent: &mut Agent, patterns: &[&str]| {
        let enforced = agent.apply([&on(patterns)]);
        let finding = enforced.finding(FindingReason::InterfaceNotFound);
        finding.message.clone()
    };
    let waits = "it is attached as soon as there is one, or correct the name";
    assert_eq!(
        message(&mut agent, &["eth0", "eth1"]),
        format!("no interface \"eth1\" on this node; {waits}")
    );
    assert_eq!(
        message(&mut agent, &["eht*", "wlan0"]),
        format!("no interface on this node is called like \"eht*\"; {waits}")
    );
}

#[test]
fn without_a_default_route_it_is_waited_for() {
    let enforced = Agent::new(node([card("eth0", 2)])).apply([&on(&["defaultRoute"])]);
    let finding = enforced.finding(FindingReason::InterfaceNotFound);
    assert_eq!(finding.severity, Severity::Pending);
    assert!(
        finding
            .message
            .starts_with("no interface has a default route"),
        "{finding}"
    );
}

#[test]
fn a_policy_for_an_absent_interface_leaves_others_alone() {
    let mut agent = Agent::new(node([card("eth0", 2)]));
    let enforced = agent.apply([
        &policy("here", json!({"defaultAction": "Allow"})),
        &policy(
            "there",
            json!({"interfaces": ["eth1"], "defaultAction": "Drop"}),
        ),
    ]);
    assert!(!enforced.judge("eth0", &udp_from("10.0.0.1")).drops());
}

fn vlan() -> Vec<Interface> {
    let vlan = Interface {
        lower: Some(Ifindex(2)),
        ..of_kind(InterfaceKind::Vlan, "eth0.100", 5)
    };
    vec![card("eth0", 2), vlan]
}

#[test]
fn a_vlan_device_is_generic_where_the_mode_is_left_to_us() {
    let mut agent = Agent::new(node(vlan()));
    let enforced = agent.apply([&on(&["eth0", "eth0.100"])]);
    enforced.assert_no_findings();
    let expected = [
        ("eth0".to_owned(), WantedMode::Auto),
        ("eth0.100".to_owned(), WantedMode::Generic),
    ];
    assert_eq!(modes(&enforced), expected.into());
}

#[test]
fn native_on_a_vlan_device_is_refused_with_the_name_of_the_one_below() {
    let mut agent = Agent::new(node(vlan()));
    let mut native = on(&["eth0.100", "eth0"]);
    native["spec"]["attachMode"] = json!("Native");
    let enforced = agent.apply([&native]);
    assert_eq!(enforced.interfaces(), names(["eth0"]));
    let finding = enforced.finding(FindingReason::AttachModeRefused);
    assert_eq!(finding.severity, Severity::Stalled);
    assert_eq!(
        finding.message,
        "eth0.100 is a VLAN device and has no native mode; name eth0 instead, or use attachMode: Auto"
    );
}

#[test]
fn one_interface_has_one_mode() {
    let mut agent = Agent::new(node([card("eth0", 2), card("eth1", 3)]));
    let asking = |name: &str, priority: u16, mode: &str, interfaces: &[&str]| {
        policy(
            name,
            json!({"priority": priority, "attachMode": mode, "interfaces": interfaces}),
        )
    };
    let enforced = agent.apply([
        &asking("auto", 1, "Auto", &["eth0", "eth1"]),
        &asking("generic", 2, "Generic", &["eth0"]),
        &asking("native", 3, "Native", &["eth0", "eth1"]),
    ]);
    let expected = [
        ("eth0".to_owned(), WantedMode::Generic),
        ("eth1".to_owned(), WantedMode::Native),
    ];
    assert_eq!(modes(&enforced), expected.into());
    let finding = enforced.finding(FindingReason::AttachModeConflict);
    assert_eq!(finding.severity, Severity::Warning);
    assert_eq!(finding.resource.as_ref().unwrap().name, "native");
}

#[test]
fn the_failsafe_peers_of_the_node_are_in_the_state() {
    let mut node = node([card("eth0", 2)]);
    let peer = headgate_datapath::state::FailsafePeer::trusted("192.0.2.0".parse().unwrap(), 24);
    node.failsafe.insert(peer);
    let enforced = Agent::new(node).apply([&on(&["eth0"])]);
    let state = enforced.compilation.state.unwrap();
    assert_eq!(state.failsafe, [peer].into());
}
