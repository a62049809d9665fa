//! The same input gives the same output, in whatever order it is read.

use std::collections::BTreeSet;

use serde_json::json;

use crate::scene::{Agent, card, drop_from, drop_group, group, node, policy, refused, snapshot};

#[test]
fn the_order_of_reading_is_of_no_consequence() {
    let objects = [
        drop_from("web", &["10.0.0.0/8", "2001:db8::/32"]),
        drop_from("other", &["11.0.0.0/8"]),
        drop_group("grouped", "bad-hosts"),
        drop_group("unresolved", "nowhere"),
        group("bad-hosts", &["12.0.0.0/8", "2001:db9::/32"]),
        group("more", &["13.0.0.0/8"]),
        policy(
            "late",
            json!({"interfaces": ["eth1"], "priority": 900, "defaultAction": "Drop",
            "rules": [{"name": "allow", "action": "Allow", "from": {
                "cidrGroups": {"selector": {"matchLabels": {"feed": "bad"}}},
            }}]}),
        ),
    ];
    let mut one = snapshot(&objects);
    one.submitted
        .push(refused(&drop_from("bad", &["14.0.0.0/8"])));
    let compiled = |rotation: usize, reversed: bool| {
        let mut other = one.clone();
        other.submitted.rotate_left(rotation);
        if reversed {
            other.submitted.reverse();
        }
        let mut agent = Agent::new(node([card("eth0", 2), card("eth1", 3)]));
        let enforced = agent.run(&other);
        let findings = enforced.compilation.findings.iter();
        let findings: BTreeSet<String> = findings.map(ToString::to_string).collect();
        let compilation = enforced.compilation;
        let (state, memory) = (compilation.state.unwrap(), compilation.memory);
        (
            state,
            memory,
            compilation.policies,
            compilation.tables,
            findings,
        )
    };
    let expected = compiled(0, false);
    assert_eq!(expected.0.ports.len(), 2);
    for rotation in 0..one.submitted.len() {
        for reversed in [false, true] {
            assert_eq!(compiled(rotation, reversed), expected);
        }
    }
}

#[test]
fn a_second_run_changes_nothing() {
    let mut agent = Agent::new(node([card("eth0", 2)]));
    let objects = [
        drop_group("grouped", "bad-hosts"),
        group("bad-hosts", &["12.0.0.0/8"]),
        drop_group("unresolved", "nowhere"),
    ];
    agent.apply(&objects);
    let second = agent.apply(&objects);
    let memory = agent.memory.clone();
    let third = agent.apply(&objects);
    assert_eq!(third.compilation.state, second.compilation.state);
    assert_eq!(third.compilation.findings, second.compilation.findings);
    assert_eq!(agent.memory, memory);
}

#[test]
fn policies_that_say_the_same_share_their_tables() {
    let mut agent = Agent::new(node([card("eth0", 2), card("eth1", 3), card("eth2", 4)]));
    let on = |interfaces: &[&str], name: &str| {
        policy(
            name,
            json!({"interfaces": interfaces, "defaultAction": "Drop"}),
        )
    };
    let enforced = agent.apply([&on(&["eth0", "eth1"], "a"), &on(&["eth2"], "b")]);
    let state = enforced.compilation.state.unwrap();
    assert_eq!(state.ports.len(), 3);
    assert_eq!(
        state.blocks.len(),
        1,
        "no rule, so no counter tells them apart"
    );
}
