//! Bad resources and files that do not parse.

use headgate_compile::finding::{FindingReason, Severity};
use headgate_datapath::state::DatapathState;

use crate::scene::{
    Agent, drop_from, drop_group, group, plain_node, refused, snapshot, submitted, unreadable,
};

#[test]
fn the_last_good_content_stays() {
    let mut agent = Agent::new(plain_node());
    agent
        .apply([&drop_from("web", &["10.0.0.0/8"])])
        .assert_no_findings();

    let mut bad = snapshot([&drop_from("other", &["172.16.0.0/12"])]);
    bad.submitted
        .push(refused(&drop_from("web", &["192.0.2.0/24"])));
    let enforced = agent.run(&bad);

    assert!(enforced.drops("10.0.0.1"), "what was good stays");
    assert!(!enforced.drops("192.0.2.1"), "what is bad does not begin");
    assert!(enforced.drops("172.16.0.1"), "other changes go live");
    let finding = enforced.finding(FindingReason::Invalid);
    assert_eq!(finding.severity, Severity::Stalled);
    let text = finding.to_string();
    assert!(
        text.starts_with("policies.yaml:1: XdpPolicy/web: spec.colour: "),
        "{text}"
    );
    assert!(
        text.ends_with("; generation 1 stays in effect (Stalled, Invalid)"),
        "{text}"
    );
    let policy = enforced.policy("web");
    assert_eq!((policy.generation, policy.effective), (2, Some(1)));

    let mended = agent.apply([&drop_from("web", &["192.0.2.0/24"])]);
    mended.assert_no_findings();
    assert!(mended.drops("192.0.2.1") && !mended.drops("10.0.0.1"));
    assert_eq!(mended.policy("web").generation, 3, "the bad one was 2");
    assert_eq!(mended.policy("web").effective, Some(3));
}

#[test]
fn it_stays_through_any_number_of_runs() {
    let mut agent = Agent::new(plain_node());
    agent.apply([&drop_from("web", &["10.0.0.0/8"])]);
    let mut bad = snapshot([]);
    bad.submitted.push(refused(&drop_from("web", &[])));
    for _ in 0..5 {
        assert!(agent.run(&bad).drops("10.0.0.1"));
    }
    assert!(!agent.apply([]).interfaces().contains("eth0"), "deleted");
}

#[test]
fn what_was_never_good_is_left_out() {
    let mut agent = Agent::new(plain_node());
    let mut bad = snapshot([&drop_from("other", &["172.16.0.0/12"])]);
    bad.submitted
        .push(refused(&drop_from("web", &["10.0.0.0/8"])));
    for _ in 0..2 {
        let enforced = agent.run(&bad);
        assert!(enforced.drops("172.16.0.1"));
        assert!(!enforced.drops("10.0.0.1"));
        let finding = enforced.finding(FindingReason::Invalid);
        assert!(finding.message.ends_with("it is left out"), "{finding}");
    }
}

#[test]
fn a_bad_group_keeps_its_addresses() {
    let mut agent = Agent::new(plain_node());
    let policy = drop_group("web", "bad-hosts");
    agent.apply([&policy, &group("bad-hosts", &["10.0.0.0/8"])]);
    let mut bad = snapshot([&policy]);
    bad.submitted
        .push(refused(&group("bad-hosts", &["11.0.0.0/8"])));
    let enforced = agent.run(&bad);
    assert!(enforced.drops("10.0.0.1") && !enforced.drops("11.0.0.1"));
    assert_eq!(enforced.stalled(), ["bad-hosts".to_owned()].into());
}

#[test]
fn a_file_that_cannot_be_read_keeps_all_that_was_read_from_it() {
    let mut agent = Agent::new(plain_node());
    let mut files = snapshot([]);
    files.submitted = vec![
        submitted(&drop_from("a", &["10.0.0.0/8"]), "first.yaml", 1),
        submitted(&drop_group("b", "bad-hosts"), "first.yaml", 9),
        submitted(&group("bad-hosts", &["11.0.0.0/8"]), "first.yaml", 20),
        submitted(&drop_from("c", &["12.0.0.0/8"]), "second.yaml", 1),
    ];
    agent.run(&files).assert_no_findings();

    let mut broken = snapshot([]);
    broken.unreadable.push(unreadable("first.yaml"));
    for _ in 0..2 {
        let enforced = agent.run(&broken);
        assert!(enforced.drops("10.0.0.1") && enforced.drops("11.0.0.1"));
        assert!(!enforced.drops("12.0.0.1"), "the second file is gone");
        let finding = enforced.finding(FindingReason::Unreadable);
        assert_eq!(
            finding.to_string(),
            "first.yaml:3: a tab where none may be; what was last read from it stays in effect: CidrGroup/bad-hosts, XdpPolicy/a, XdpPolicy/b (Stalled, Unreadable)"
        );
        assert_eq!(enforced.policy("a").generation, 1);
    }

    files.submitted.remove(0);
    let mended = agent.run(&files);
    mended.assert_no_findings();
    assert!(!mended.drops("10.0.0.1") && mended.drops("11.0.0.1"));
}

#[test]
fn a_resource_that_moved_to_a_readable_file_is_read_there() {
    let mut agent = Agent::new(plain_node());
    let mut files = snapshot([]);
    files.submitted = vec![submitted(&drop_from("a", &["10.0.0.0/8"]), "first.yaml", 1)];
    agent.run(&files);
    files.submitted = vec![submitted(
        &drop_from("a", &["11.0.0.0/8"]),
        "second.yaml",
        1,
    )];
    files.unreadable.push(unreadable("first.yaml"));
    let enforced = agent.run(&files);
    assert!(enforced.drops("11.0.0.1") && !enforced.drops("10.0.0.1"));
}

#[test]
fn a_bad_resource_stays_when_the_file_it_moved_to_cannot_be_read() {
    let mut agent = Agent::new(plain_node());
    agent.apply([&drop_from("web", &["10.0.0.0/8"])]);
    let mut moved = snapshot([]);
    let mut bad = refused(&drop_from("web", &[]));
    bad.list = "moved.yaml".to_owned();
    moved.submitted.push(bad);
    assert!(agent.run(&moved).drops("10.0.0.1"));

    let mut broken = snapshot([]);
    broken.unreadable.push(unreadable("moved.yaml"));
    let enforced = agent.run(&broken);
    assert!(
        enforced.drops("10.0.0.1"),
        "moved.yaml is where it was last read"
    );
}

#[test]
fn an_unreadable_file_of_which_nothing_is_known_changes_nothing() {
    let mut agent = Agent::new(plain_node());
    let mut files = snapshot([&drop_from("web", &["10.0.0.0/8"])]);
    files.unreadable.push(unreadable("new.yaml"));
    let enforced = agent.run(&files);
    assert!(enforced.drops("10.0.0.1"));
    let finding = enforced.finding(FindingReason::Unreadable);
    assert_eq!(
        finding.message,
        "a tab where none may be; nothing was read from it before"
    );
}

#[test]
fn an_empty_source_means_no_resources() {
    let mut agent = Agent::new(plain_node());
    agent.apply([&drop_from("web", &["10.0.0.0/8"])]);
    let enforced = agent.apply([]);
    enforced.assert_no_findings();
    assert_eq!(
        enforced.compilation.state,
        Some(DatapathState::default()),
        "nothing is left"
    );
    assert!(agent.memory.last_good.is_empty());
}

#[test]
fn warnings_do_not_keep_a_resource_back() {
    let mut agent = Agent::new(plain_node());
    let enforced = agent.apply([&drop_from("web", &["10.0.0.1/8"])]);
    let finding = enforced.finding(FindingReason::Suspicious);
    assert_eq!(finding.severity, Severity::Warning);
    assert_eq!(finding.path, "spec.rules[0].from.cidrs[0]");
    assert!(enforced.drops("10.255.255.255"));
}
