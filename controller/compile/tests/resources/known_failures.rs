//! Failures that tools of this field are known for, as far as they show in pure code.

use headgate_crds::Action;
use headgate_layout::verdict::Reason;
use headgate_packet::failsafe::needed_to_live;
use serde_json::json;

use crate::{
    model::{Fields, Outcome, Piece},
    scene::{
        Agent, drop_from, drop_group, group, other_from, packet_of, plain_node, policy, tcp_to,
        udp_from,
    },
};

fn agent() -> Agent {
    Agent::new(plain_node())
}

#[test]
fn all_of_ipv4_and_all_of_ipv6_stand_side_by_side_in_one_rule() {
    let enforced = agent().apply([&drop_from("all", &["0.0.0.0/0", "::/0"])]);
    for source in [
        "0.0.0.0",
        "127.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "ffff::ffff",
    ] {
        assert!(enforced.drops(source), "{source}");
    }
    let only_v4 = agent().apply([&drop_from("v4", &["0.0.0.0/0"])]);
    assert!(only_v4.drops("10.0.0.1") && !only_v4.drops("::"));
    let only_v6 = agent().apply([&drop_from("v6", &["::/0"])]);
    assert!(!only_v6.drops("10.0.0.1") && only_v6.drops("::"));
}

#[test]
fn both_ends_of_a_port_range_belong_to_it_wherever_it_is_written() {
    for side in ["ports", "sourcePorts"] {
        for protocol in ["tcp", "udp", "sctp"] {
            let range = json!([{"port": 1000, "endPort": 2000}]);
            let protocols = json!([{protocol: {side: range}}]);
            let rule = json!({"name": "range", "action": "Drop", "protocols": protocols});
            let enforced = agent().apply([&policy("web", json!({"rules": [rule]}))]);
            for (port, drops) in [(999, false), (1000, true), (2000, true), (2001, false)] {
                let number = match protocol {
                    "tcp" => 6,
                    "udp" => 17,
                    _ => 132,
                };
                let ports = if side == "ports" {
                    (5, port)
                } else {
                    (port, 5)
                };
                let packet = Fields {
                    protocol: number,
                    ports: Some(ports),
                    flags: (number == 6).then_some(2),
                    ..udp_from("10.0.0.1")
                };
                let judged = enforced.judge("eth0", &packet);
                assert_eq!(judged.drops(), drops, "{protocol} {side} {port}");
            }
        }
    }
}

#[test]
fn match_expressions_do_not_select_every_node() {
    let mut web = drop_from("web", &["10.0.0.0/8"]);
    web["spec"]["nodeSelector"] =
        json!({"matchExpressions": [{"key": "role", "operator": "In", "values": ["edge"]}]});
    let mut agent = agent();
    assert!(agent.apply([&web]).interfaces().is_empty());
}

#[test]
fn a_change_of_the_nodes_labels_is_noticed() {
    let mut web = drop_from("web", &["10.0.0.0/8"]);
    web["spec"]["nodeSelector"] = json!({"matchLabels": {"role": "edge"}});
    let mut agent = agent();
    assert!(!agent.apply([&web]).drops("10.0.0.1"));
    agent.node.labels.insert("role".into(), "edge".into());
    let enforced = agent.apply([&web]);
    assert!(enforced.drops("10.0.0.1"));
    assert_eq!(
        enforced.policy("web").generation,
        1,
        "the policy is as it was"
    );
    agent.node.labels.clear();
    assert!(agent.apply([&web]).interfaces().is_empty());
}

#[test]
fn a_drop_of_everything_does_not_pass_the_failsafe_by() {
    // The program asks the failsafe wherever a verdict would drop; see the verdicts' own tests.
    let enforced = agent().apply([&policy(
        "all",
        json!({"rules": [{"name": "everything", "action": "Drop"}]}),
    )]);
    let answer = Fields {
        ports: Some((67, 68)),
        ..udp_from("10.0.0.1")
    };
    assert!(enforced.judge("eth0", &answer).drops());
    assert!(needed_to_live(&packet_of(&answer)));
    assert_eq!(Reason::Failsafe.action() as u32, 0);
}

#[test]
fn a_rule_on_protocols_reaches_fragments() {
    let enforced = agent().apply([&policy(
        "web",
        json!({"rules": [
            {"name": "web", "action": "Drop", "protocols": [{"tcp": {"ports": [{"port": 80}]}}]},
            {"name": "udp", "action": "Drop", "protocols": [{"udp": {}}]},
        ]}),
    )]);
    let later = |protocol| Fields {
        piece: Piece::Later,
        ..other_from("10.0.0.1", protocol)
    };
    assert!(enforced.judge("eth0", &later(17)).drops());
    assert!(!enforced.judge("eth0", &later(6)).drops(), "it has no port");
    let first = Fields {
        piece: Piece::First,
        ..tcp_to("10.0.0.1", 80, 2)
    };
    assert!(enforced.judge("eth0", &first).drops());
}

#[test]
fn a_deny_all_denies_every_protocol() {
    let by_default = policy("all", json!({"defaultAction": "Drop"}));
    let by_rule = policy(
        "all",
        json!({"rules": [{"name": "everything", "action": "Drop"}]}),
    );
    for deny in [by_default, by_rule] {
        let enforced = agent().apply([&deny]);
        for source in ["10.0.0.1", "2001:db8::1"] {
            for protocol in 0..=255 {
                for piece in [Piece::Whole, Piece::First, Piece::Later] {
                    let packet = Fields {
                        piece,
                        ..other_from(source, protocol)
                    };
                    let judged = enforced.judge("eth0", &packet);
                    assert!(judged.drops(), "{source} {protocol} {piece:?}");
                }
            }
        }
    }
}

#[test]
fn more_than_a_thousand_networks_are_no_limit() {
    let cidrs: Vec<String> = (0..5000)
        .map(|n| match n % 2 {
            0 => format!("10.{}.{}.{}/32", n / 250, n % 250, n % 7),
            _ => format!("2001:db8:{n:x}::/64"),
        })
        .collect();
    let cidrs: Vec<&str> = cidrs.iter().map(String::as_str).collect();
    let enforced = agent().apply([&drop_group("web", "many"), &group("many", &cidrs)]);
    enforced.assert_no_findings();
    for cidr in &cidrs {
        let (address, _) = cidr.split_once('/').unwrap();
        assert!(enforced.drops(address), "{cidr}");
    }
    assert!(!enforced.drops("10.0.1.1") && !enforced.drops("2001:db8:0:1::"));
}

#[test]
fn policies_of_other_interfaces_do_not_leak() {
    let mut node = plain_node();
    node.interfaces.push(crate::scene::card("eth1", 3));
    let mut agent = Agent::new(node);
    let mut elsewhere = drop_from("elsewhere", &["0.0.0.0/0", "::/0"]);
    elsewhere["spec"]["interfaces"] = json!(["eth1"]);
    elsewhere["spec"]["defaultAction"] = json!("Drop");
    let enforced = agent.apply([&drop_from("here", &["10.0.0.0/8"]), &elsewhere]);
    let packet = udp_from("192.0.2.1");
    assert_eq!(
        enforced.judge("eth0", &packet),
        Outcome::Default(Action::Allow)
    );
    assert!(enforced.judge("eth1", &packet).drops());
}
