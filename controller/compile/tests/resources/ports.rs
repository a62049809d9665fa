//! Port indices stay with their interface.

use std::collections::BTreeMap;

use headgate_compile::finding::FindingReason;
use headgate_datapath::state::PortIndex;
use serde_json::json;

use crate::scene::{Agent, Enforced, card, node, policy};

fn everywhere() -> serde_json::Value {
    policy("all", json!({"interfaces": ["*"], "defaultAction": "Drop"}))
}

fn ports(enforced: &Enforced) -> BTreeMap<String, u32> {
    let state = enforced.compilation.state.as_ref().unwrap();
    let ports = state.ports.iter();
    ports
        .map(|(port, attachment)| (attachment.interface.clone(), port.number()))
        .collect()
}

#[test]
fn interfaces_come_and_go_and_each_keeps_its_port() {
    let mut agent = Agent::new(node([card("m0", 5)]));
    let first = ports(&agent.apply([&everywhere()]))["m0"];
    agent.node = node([card("a0", 9), card("m0", 7), card("z0", 3)]);
    let with_others = ports(&agent.apply([&everywhere()]));
    assert_eq!(with_others["m0"], first, "by name, not by number");
    assert_eq!(with_others.len(), 3);

    agent.node = node([card("a0", 9)]);
    agent.apply([&everywhere()]);
    agent.node = node([card("a0", 9), card("b0", 10)]);
    let later = ports(&agent.apply([&everywhere()]));
    assert!(
        with_others
            .iter()
            .all(|(name, port)| name == "a0" || *port != later["b0"]),
        "ports with a history are given away last"
    );
    agent.node = node([card("m0", 12), card("a0", 9)]);
    let back = ports(&agent.apply([&everywhere()]));
    assert_eq!((back["m0"], back["a0"]), (first, with_others["a0"]));
}

#[test]
fn a_port_with_a_history_is_given_away_where_no_other_is_left() {
    let mut agent = Agent::new(node([]));
    for (number, port) in PortIndex::all().enumerate() {
        agent.memory.ports.insert(format!("old{number}"), port);
    }
    agent.node = node([card("new", 2), card("old3", 3)]);
    let taken = ports(&agent.apply([&everywhere()]));
    assert_eq!(
        taken,
        [("new".to_owned(), 0), ("old3".to_owned(), 3)].into()
    );
    assert!(!agent.memory.ports.contains_key("old0"), "it is new's now");
    assert_eq!(agent.memory.ports.len(), 256);
}

#[test]
fn interfaces_beyond_the_last_port_are_named() {
    let cards = (0..258).map(|n| card(&format!("e{n:03}"), n + 2));
    let mut agent = Agent::new(node(cards));
    let enforced = agent.apply([&everywhere()]);
    assert_eq!(enforced.interfaces().len(), 256);
    let findings: Vec<_> = enforced.findings(FindingReason::OutOfCapacity).collect();
    assert_eq!(findings.len(), 2);
    assert!(
        findings[0]
            .message
            .contains("interface e256 is beyond the 256")
    );
}
