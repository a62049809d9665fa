//! The disk's memory is lost, but the kernel holds a revision.

use std::collections::{BTreeMap, BTreeSet};

use headgate_compile::{finding::FindingReason, memory::Memory};
use headgate_datapath::state::PortIndex;

use super::too_large::{culprit, with_groups};
use crate::scene::{
    Agent, Enforced, NOW, drop_from, drop_group, group, plain_node, refused, snapshot, unreadable,
};

fn agent() -> Agent {
    Agent::without_memory(plain_node())
}

/// That nothing changes, and that `culprit` is said to be the reason to these policies.
fn assert_holds(enforced: &Enforced, culprit: &str, blocked: &[&str]) {
    assert!(enforced.compilation.state.is_none(), "the revision stays");
    assert!(enforced.compilation.memory.lost, "and so does the question");
    let found: BTreeSet<&str> = enforced
        .findings(FindingReason::Blocked)
        .map(|finding| {
            assert!(finding.message.contains(culprit), "{finding}");
            finding.resource.as_ref().unwrap().name.as_str()
        })
        .collect();
    assert_eq!(found, blocked.iter().copied().collect());
}

#[test]
fn where_all_is_good_it_is_compiled_anew() {
    let mut agent = agent();
    let enforced = agent.apply([&drop_from("web", &["10.0.0.0/8"])]);
    enforced.assert_no_findings();
    assert!(enforced.drops("10.0.0.1"));
    assert!(!agent.memory.lost);
}

#[test]
fn a_bad_resource_holds_everything_until_it_is_mended() {
    let mut agent = agent();
    let other = drop_from("other", &["11.0.0.0/8"]);
    let mut bad = snapshot([&other]);
    bad.submitted
        .push(refused(&drop_from("web", &["10.0.0.0/8"])));
    for _ in 0..3 {
        let enforced = agent.run(&bad);
        assert_holds(&enforced, "XdpPolicy/web", &["other"]);
        enforced.finding(FindingReason::Invalid);
    }
    let mended = agent.apply([&other, &drop_from("web", &["10.0.0.0/8"])]);
    mended.assert_no_findings();
    assert!(mended.drops("10.0.0.1") && mended.drops("11.0.0.1"));
    assert!(!agent.memory.lost);
    // From here on a bad resource has a last good content again.
    assert!(agent.run(&bad).drops("10.0.0.1"));
}

#[test]
fn a_bad_resource_holds_everything_until_it_is_deleted() {
    let mut agent = agent();
    let other = drop_from("other", &["11.0.0.0/8"]);
    let mut bad = snapshot([&other]);
    bad.submitted.push(refused(&group("bad-hosts", &[])));
    assert_holds(&agent.run(&bad), "CidrGroup/bad-hosts", &["other"]);
    let rest = agent.apply([&other]);
    rest.assert_no_findings();
    assert!(rest.drops("11.0.0.1"));
}

#[test]
fn a_file_that_cannot_be_read_holds_everything() {
    let mut agent = agent();
    let mut files = snapshot([&drop_from("other", &["11.0.0.0/8"])]);
    files.unreadable.push(unreadable("broken.yaml"));
    assert_holds(&agent.run(&files), "broken.yaml:3", &["other"]);
    files.unreadable.clear();
    assert!(agent.run(&files).drops("11.0.0.1"));
}

#[test]
fn a_policy_whose_group_is_missing_holds_everything() {
    let mut agent = agent();
    let web = drop_group("web", "bad-hosts");
    let other = drop_from("other", &["11.0.0.0/8"]);
    let enforced = agent.apply([&web, &other]);
    // What the group held is known to the kernel alone.
    assert_holds(&enforced, "XdpPolicy/web", &["other"]);
    enforced.finding(FindingReason::UnresolvedReferences);
    let mended = agent.apply([&web, &other, &group("bad-hosts", &["10.0.0.0/8"])]);
    mended.assert_no_findings();
    assert!(mended.drops("10.0.0.1") && mended.drops("11.0.0.1"));
}

#[test]
fn a_policy_that_is_too_large_holds_everything() {
    let mut agent = agent();
    let other = drop_from("other", &["11.0.0.0/8"]);
    let enforced = agent.run(&with_groups([&culprit("web"), &other]));
    let groups = (0..11).map(|bit| format!("bit-{bit:02}"));
    let blocked: Vec<String> = groups.chain(["other".to_owned()]).collect();
    let blocked: Vec<&str> = blocked.iter().map(String::as_str).collect();
    assert_holds(&enforced, "XdpPolicy/web", &blocked);
    enforced.finding(FindingReason::TooLarge);
    assert!(agent.apply([&other]).drops("11.0.0.1"));
}

#[test]
fn ports_and_counters_that_are_in_use_are_not_given_away() {
    let port = PortIndex::new(7).unwrap();
    let ports = BTreeMap::from([("eth0".to_owned(), port)]);
    let mut agent = agent();
    agent.memory = Memory::lost(ports, &[0, 2].into(), NOW);
    let enforced = agent.apply([&drop_from("web", &["10.0.0.0/8"])]);
    let state = enforced.compilation.state.as_ref().unwrap();
    assert_eq!(state.ports.keys().collect::<Vec<_>>(), [&port]);
    assert_eq!(enforced.counters("web")["block"], 1);
}
