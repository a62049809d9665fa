//! Policies that do not fit.
//!
//! Groups `bit-00` to `bit-10` cut 2,048 networks into halves, each in another way: policies that
//! name n of them as sources make 2^n classes of sources, as destinations as many again. All
//! sources with all destinations take 8 MiB, which is just what is allowed; one class more, and
//! they do not fit.

use std::sync::LazyLock;

use headgate_compile::{
    finding::{FindingReason, Severity},
    snapshot::{Snapshot, Submitted},
};
use serde_json::{Value, json};

use crate::scene::{Agent, Enforced, drop_from, group, plain_node, policy, snapshot, submitted};

const BITS: usize = 11;

/// Networks whose number has this bit.
fn networks(bit: usize) -> Vec<String> {
    let numbers = (0..1 << BITS).filter(|number| number >> bit & 1 == 1);
    numbers
        .map(|number| format!("40.{}.{}.0/24", number / 256, number % 256))
        .collect()
}

static GROUPS: LazyLock<Vec<Submitted>> = LazyLock::new(|| {
    let groups = (0..BITS).map(|bit| {
        let networks = networks(bit);
        let networks: Vec<&str> = networks.iter().map(String::as_str).collect();
        submitted(
            &group(&format!("bit-{bit:02}"), &networks),
            "groups.yaml",
            1,
        )
    });
    groups.collect()
});

/// A rule on one side of the packet, `from` or `to`, by one group.
fn rule(side: &str, group: &str) -> Value {
    let endpoint = json!({"cidrGroups": {"names": [group]}});
    json!({"name": format!("{side}-{group}"), "action": "Drop", side: endpoint})
}

fn one_rule(name: &str, side: &str, group: &str) -> Value {
    policy(name, json!({"rules": [rule(side, group)]}))
}

fn sources() -> Vec<Value> {
    let bits = 0..BITS;
    bits.map(|bit| {
        one_rule(
            &format!("sources-{bit:02}"),
            "from",
            &format!("bit-{bit:02}"),
        )
    })
    .collect()
}

fn destinations(bits: impl Iterator<Item = usize>) -> Vec<Value> {
    bits.map(|bit| {
        one_rule(
            &format!("destinations-{bit:02}"),
            "to",
            &format!("bit-{bit:02}"),
        )
    })
    .collect()
}

/// A source that none of the groups holds: one class more.
fn web() -> Value {
    drop_from("web", &["10.0.0.0/8"])
}

/// Too large by itself.
pub(crate) fn culprit(name: &str) -> Value {
    let groups = (0..BITS).map(|bit| format!("bit-{bit:02}"));
    let rules = groups.flat_map(|group| [rule("from", &group), rule("to", &group)]);
    let mut rules: Vec<Value> = rules.collect();
    rules.push(json!({"name": "more", "action": "Drop", "from": {"cidrs": ["10.99.0.0/16"]}}));
    policy(name, json!({"rules": rules}))
}

pub(crate) fn with_groups<'a>(objects: impl IntoIterator<Item = &'a Value>) -> Snapshot {
    let mut snapshot = snapshot(objects);
    snapshot.submitted.extend(GROUPS.iter().cloned());
    snapshot
}

fn refused(enforced: &Enforced) -> Vec<String> {
    let findings = enforced.findings(FindingReason::TooLarge);
    findings
        .map(|finding| {
            assert_eq!(finding.severity, Severity::Stalled);
            finding.resource.as_ref().unwrap().name.clone()
        })
        .collect()
}

#[test]
fn just_what_is_allowed_fits() {
    let mut agent = Agent::new(plain_node());
    let all = [sources(), destinations(0..BITS)].concat();
    let enforced = agent.run(&with_groups(&all));
    enforced.assert_no_findings();
    let [tables] = enforced.compilation.tables.as_slice() else {
        panic!("one policy set");
    };
    assert_eq!(tables.classes[..2], [2048, 2048]);
    assert_eq!(tables.crossings, 8 << 20);
}

#[test]
fn what_does_not_fit_is_refused_with_the_numbers_and_all_else_goes_live() {
    let mut agent = Agent::new(plain_node());
    let before = [sources(), vec![web()]].concat();
    agent.run(&with_groups(&before)).assert_no_findings();

    let late = drop_from("zzz", &["11.0.0.0/8"]);
    let all = [destinations(0..BITS), before, vec![late]].concat();
    for _ in 0..2 {
        let enforced = agent.run(&with_groups(&all));
        assert!(enforced.drops("10.0.0.1") && enforced.drops("40.3.3.3"));
        assert!(
            enforced.drops("11.0.0.1"),
            "the last of the changes is live"
        );
        assert_eq!(refused(&enforced), ["destinations-10"]);
        let finding = enforced.finding(FindingReason::TooLarge);
        assert_eq!(
            finding.message,
            "crossing 2050 classes of sources with 2048 of destinations takes 8396800 bytes, 8388608 bytes are allowed for all crossings together; give rules fewer distinct combinations of addresses and ports, or spread them over interfaces; it is left out"
        );
        assert_eq!(enforced.policy("destinations-10").effective, None);
        assert_eq!(enforced.policy("destinations-09").effective, Some(1));
    }
}

#[test]
fn a_policy_that_grew_too_large_stays_as_it_was() {
    let mut agent = Agent::new(plain_node());
    let others = [sources(), destinations(0..BITS - 1)].concat();
    let before = others.iter().chain([&web()]).cloned().collect::<Vec<_>>();
    agent.run(&with_groups(&before)).assert_no_findings();

    let mut grown = web();
    let more = rule("to", "bit-10");
    grown["spec"]["rules"].as_array_mut().unwrap().push(more);
    let small = drop_from("small", &["11.0.0.0/8"]);
    let all: Vec<Value> = others.into_iter().chain([grown, small]).collect();
    let enforced = agent.run(&with_groups(&all));
    assert_eq!(refused(&enforced), ["web"]);
    let finding = enforced.finding(FindingReason::TooLarge);
    assert!(
        finding.message.ends_with("; generation 1 stays in effect"),
        "{finding}"
    );
    assert!(enforced.drops("10.0.0.1") && enforced.drops("11.0.0.1"));
    let summary = enforced.policy("web");
    assert_eq!((summary.generation, summary.effective), (2, Some(1)));
}

#[test]
fn the_culprit_is_found_among_many() {
    let mut agent = Agent::new(plain_node());
    let many = (0..40).map(|n| drop_from(&format!("p-{n:02}"), &[&format!("10.{n}.0.0/16")]));
    let mut objects: Vec<Value> = many.collect();
    objects.push(culprit("p-20-b"));
    for _ in 0..2 {
        let enforced = agent.run(&with_groups(&objects));
        assert_eq!(refused(&enforced), ["p-20-b"]);
        for n in 0..40 {
            assert!(enforced.drops(&format!("10.{n}.0.1")), "p-{n}");
        }
    }
    objects.pop();
    agent.run(&with_groups(&objects)).assert_no_findings();
}

#[test]
fn several_culprits_are_each_named() {
    let mut agent = Agent::new(plain_node());
    let objects = [
        drop_from("a", &["10.0.0.0/8"]),
        culprit("b"),
        drop_from("c", &["11.0.0.0/8"]),
        culprit("d"),
        drop_from("e", &["12.0.0.0/8"]),
    ];
    let enforced = agent.run(&with_groups(&objects));
    assert_eq!(refused(&enforced), ["b", "d"]);
    assert!(
        ["10.0.0.1", "11.0.0.1", "12.0.0.1"]
            .iter()
            .all(|ip| enforced.drops(ip))
    );
}

#[test]
fn a_change_that_makes_room_helps_one_that_is_read_before_it() {
    let mut agent = Agent::new(plain_node());
    let mut objects = [sources(), destinations(0..BITS - 1), vec![web()]].concat();
    agent.run(&with_groups(&objects)).assert_no_findings();
    // One commit gives up one cut, makes another in a policy read before, and brings a culprit.
    let given_up = objects
        .iter_mut()
        .find(|object| object["metadata"]["name"] == "destinations-09")
        .unwrap();
    *given_up = drop_from("destinations-09", &["10.0.0.0/8"]);
    objects.push(one_rule("another", "to", "bit-10"));
    objects.push(culprit("culprit"));
    let enforced = agent.run(&with_groups(&objects));
    assert_eq!(refused(&enforced), ["culprit"]);
    assert_eq!(enforced.policy("another").effective, Some(1));
    assert_eq!(enforced.policy("destinations-09").effective, Some(2));
}

#[test]
fn a_group_that_grew_too_large_keeps_its_addresses() {
    let mut agent = Agent::new(plain_node());
    let policies = [
        sources(),
        destinations(0..BITS - 1),
        vec![web(), one_rule("to-shared", "to", "shared")],
    ]
    .concat();
    let with_shared = |networks: &[&str]| {
        let mut snapshot = with_groups(&policies);
        let shared = submitted(&group("shared", networks), "groups.yaml", 99);
        snapshot.submitted.push(shared);
        snapshot
    };
    agent
        .run(&with_shared(&["60.0.0.0/8"]))
        .assert_no_findings();
    let grown = networks(10);
    let grown: Vec<&str> = grown.iter().map(String::as_str).collect();
    let enforced = agent.run(&with_shared(&grown));
    assert_eq!(refused(&enforced), ["shared"]);
    assert!(enforced.drops("10.0.0.1"));
    assert_eq!(enforced.policy("to-shared").effective, Some(1));
}

#[test]
fn a_lost_group_that_comes_back_too_large_holds_nothing_else_up() {
    let mut agent = Agent::new(plain_node());
    let policies = [
        sources(),
        destinations(0..BITS - 1),
        vec![web(), one_rule("to-shared", "to", "shared")],
    ]
    .concat();
    let with_shared = |networks: &[&str], more: &[Value]| {
        let mut snapshot = with_groups(policies.iter().chain(more));
        let shared = submitted(&group("shared", networks), "groups.yaml", 99);
        snapshot.submitted.push(shared);
        snapshot
    };
    agent.run(&with_shared(&["60.0.0.0/8"], &[]));
    agent.run(&with_groups(&policies));
    let grown = networks(10);
    let grown: Vec<&str> = grown.iter().map(String::as_str).collect();
    let small = drop_from("small", &["11.0.0.0/8"]);
    let enforced = agent.run(&with_shared(&grown, &[small]));
    assert_eq!(refused(&enforced), ["shared"]);
    assert!(enforced.drops("11.0.0.1"));
}

#[test]
fn what_was_in_effect_and_no_longer_fits_together_is_held() {
    // Each policy fits on its interface; then the interface of one gets the other's as well.
    let mut agent = Agent::new(plain_node());
    agent.node.labels.insert("role".into(), "plain".into());
    let mut large = culprit("large");
    large["spec"]["nodeSelector"] = json!({"matchLabels": {"role": "edge"}});
    let objects = [web(), large];
    agent.run(&with_groups(&objects)).assert_no_findings();

    agent.node.labels.insert("role".into(), "edge".into());
    let memory = agent.memory.clone();
    let enforced = agent.run(&with_groups(&objects));
    assert!(enforced.compilation.state.is_none());
    assert_eq!(enforced.compilation.memory, memory);
    let finding = enforced.finding(FindingReason::TooLarge);
    assert_eq!(finding.resource, None);
}
