//! Counter indices belong to (policy, rule name), whatever else changes.

use std::collections::BTreeSet;

use headgate_compile::{
    finding::FindingReason,
    memory::{CounterLease, CounterOwner, Seconds},
};
use headgate_layout::maps::MAX_COUNTERS;
use serde_json::{Value, json};

use crate::scene::{Agent, NOW, plain_node, policy};

const HOUR: u64 = 3600;

/// A policy with rules of these names.
fn with_rules(name: &str, rules: &[&str]) -> Value {
    let rules: Vec<_> = rules
        .iter()
        .map(|rule| json!({"name": rule, "action": "Drop"}))
        .collect();
    policy(name, json!({"rules": rules}))
}

fn agent() -> Agent {
    Agent::new(plain_node())
}

#[test]
fn new_rules_start_from_zero_once() {
    let mut agent = agent();
    let objects = [with_rules("web", &["a", "b"])];
    let first = agent.apply(&objects);
    let counters: BTreeSet<u32> = first.counters("web").into_values().collect();
    assert_eq!(counters.len(), 2);
    assert_eq!(first.fresh(), counters);
    let second = agent.apply(&objects);
    assert_eq!(second.counters("web"), first.counters("web"));
    assert_eq!(second.fresh(), BTreeSet::new());
}

#[test]
fn a_counter_that_was_not_yet_set_to_zero_stays_fresh() {
    let mut agent = agent();
    let objects = [with_rules("web", &["a"])];
    let first = agent.apply(&objects);
    // The agent died before it applied: its memory is from before.
    agent.memory = first.compilation.memory.clone();
    assert_eq!(agent.apply(&objects).fresh(), first.fresh());
}

#[test]
fn other_rules_come_go_and_are_renamed() {
    let mut agent = agent();
    let kept = agent
        .apply([&with_rules("web", &["a", "kept", "b"])])
        .counters("web")["kept"];
    for rules in [
        &["kept"][..],
        &["x", "y", "z", "kept"],
        &["renamed", "kept", "b"],
    ] {
        let enforced = agent.apply([&with_rules("aaa", &["kept"]), &with_rules("web", rules)]);
        assert_eq!(enforced.counters("web")["kept"], kept, "{rules:?}");
        assert_ne!(enforced.counters("aaa")["kept"], kept);
        let all: BTreeSet<u32> = ["aaa", "web"]
            .into_iter()
            .flat_map(|name| enforced.counters(name).into_values())
            .collect();
        assert_eq!(all.len(), rules.len() + 1, "no two rules share a counter");
    }
}

#[test]
fn a_rule_that_is_back_within_the_hour_goes_on_counting() {
    let mut agent = agent();
    let both = with_rules("web", &["a", "b"]);
    let before = agent.apply([&both]).counters("web")["a"];
    agent.apply([&with_rules("web", &["b"])]);
    agent.now = Seconds(NOW.0 + HOUR - 1);
    let other = agent.apply([&with_rules("web", &["b", "c"])]);
    assert_ne!(other.counters("web")["c"], before, "it is not free yet");
    let back = agent.apply([&both]);
    assert_eq!(back.counters("web")["a"], before);
    assert!(!back.fresh().contains(&before));
}

#[test]
fn a_counter_is_free_after_an_hour_and_then_starts_from_zero() {
    let mut agent = agent();
    let before = agent
        .apply([&with_rules("web", &["a", "b"])])
        .counters("web")["a"];
    agent.apply([&with_rules("web", &["b"])]);
    agent.now = Seconds(NOW.0 + HOUR);
    let enforced = agent.apply([&with_rules("web", &["b", "c"])]);
    assert_eq!(enforced.counters("web")["c"], before, "the lowest free one");
    assert_eq!(enforced.fresh(), [before].into());
}

#[test]
fn the_hour_begins_when_the_rule_is_gone_not_when_it_was_made() {
    let mut agent = agent();
    let before = agent.apply([&with_rules("web", &["a"])]).counters("web")["a"];
    agent.now = Seconds(NOW.0 + 10 * HOUR);
    agent.apply([&with_rules("web", &["b"])]);
    agent.now = Seconds(agent.now.0 + HOUR - 1);
    let enforced = agent.apply([&with_rules("web", &["a", "b"])]);
    assert_eq!(enforced.counters("web")["a"], before);
    agent.now = Seconds(agent.now.0 + 10 * HOUR);
    let enforced = agent.apply([&with_rules("web", &["a", "b"])]);
    assert_eq!(
        enforced.counters("web")["a"],
        before,
        "used, so never freed"
    );
}

#[test]
fn counters_of_an_unknown_owner_are_left_alone_for_the_grace_period() {
    let mut agent = agent();
    let unknown = CounterLease {
        owner: None,
        unused_since: Some(NOW),
        fresh: true,
    };
    agent.memory.counters.insert(0, unknown);
    let enforced = agent.apply([&with_rules("web", &["a"])]);
    assert_eq!(enforced.counters("web")["a"], 1);
    assert_eq!(enforced.fresh(), [1].into(), "0 is nobody's to reset");
}

/// An agent of whose counters only the last `free` are free.
fn nearly_full(free: u32) -> Agent {
    let mut agent = agent();
    for index in 0..MAX_COUNTERS - free {
        let owner = CounterOwner {
            policy: "gone".to_owned(),
            rule: index.to_string(),
        };
        let lease = CounterLease {
            owner: Some(owner),
            unused_since: Some(NOW),
            fresh: false,
        };
        agent.memory.counters.insert(index, lease);
    }
    agent
}

#[test]
fn a_policy_without_counters_is_refused_and_its_last_good_content_stays() {
    let mut agent = nearly_full(3);
    let one =
        json!({"rules": [{"name": "a", "action": "Drop", "from": {"cidrs": ["10.0.0.0/8"]}}]});
    agent.apply([&policy("web", one)]).assert_no_findings();
    for _ in 0..2 {
        // Of the three rules one has a counter; two more are free.
        let enforced = agent.apply([
            &with_rules("web", &["b", "c", "d"]),
            &policy(
                "zzz",
                json!({"defaultAction": "Drop", "rules": [{
                    "name": "a", "action": "Allow", "from": {"cidrs": ["11.0.0.0/8"]},
                }]}),
            ),
        ]);
        assert!(enforced.drops("10.0.0.1"), "the last good content");
        assert!(
            !enforced.drops("11.0.0.1"),
            "another policy gets what is left"
        );
        assert!(enforced.drops("12.0.0.1"));
        let finding = enforced.finding(FindingReason::OutOfCapacity);
        assert_eq!(finding.resource.as_ref().unwrap().name, "web");
        assert!(
            finding.message.ends_with("generation 1 stays in effect"),
            "{finding}"
        );
        let summary = enforced.policy("web");
        assert_eq!((summary.generation, summary.effective), (2, Some(1)));
    }
    agent.now = Seconds(NOW.0 + HOUR);
    let enforced = agent.apply([&with_rules("web", &["b", "c", "d"])]);
    enforced.assert_no_findings();
    assert_eq!(enforced.policy("web").effective, Some(2));
}

#[test]
fn a_new_policy_without_counters_is_left_out() {
    let mut agent = nearly_full(1);
    let enforced = agent.apply([&with_rules("web", &["a", "b"])]);
    let finding = enforced.finding(FindingReason::OutOfCapacity);
    assert!(finding.message.contains("65536"), "{finding}");
    assert_eq!(enforced.policy("web").effective, None);
    assert_eq!(enforced.interfaces(), BTreeSet::new());
}
