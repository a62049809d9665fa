//! Groups that come, change and go while policies refer to them.

use headgate_compile::finding::{FindingReason, Severity};
use serde_json::json;

use crate::scene::{Agent, drop_from, drop_group, group, plain_node, policy};

#[test]
fn a_group_that_is_deleted_while_it_is_named_stays_in_effect() {
    let mut agent = Agent::new(plain_node());
    let web = drop_group("web", "bad-hosts");
    agent
        .apply([&web, &group("bad-hosts", &["10.0.0.0/8"])])
        .assert_no_findings();
    for _ in 0..3 {
        let enforced = agent.apply([&web, &drop_from("other", &["11.0.0.0/8"])]);
        assert!(enforced.drops("10.0.0.1"), "the group's content stays");
        assert!(enforced.drops("11.0.0.1"), "other changes go live");
        let finding = enforced.finding(FindingReason::UnresolvedReferences);
        assert_eq!(
            finding.to_string(),
            "policies.yaml:1: XdpPolicy/web: spec.rules[0].from.cidrGroups.names[0]: there is no CidrGroup \"bad-hosts\"; create it or correct the name; the group's last content stays in effect (Stalled, UnresolvedReferences)"
        );
    }
    let back = agent.apply([&web, &group("bad-hosts", &["12.0.0.0/8"])]);
    back.assert_no_findings();
    assert!(back.drops("12.0.0.1") && !back.drops("10.0.0.1"));
}

#[test]
fn a_policy_that_no_longer_names_the_lost_group_goes_on_without_it() {
    let mut agent = Agent::new(plain_node());
    agent.apply([
        &drop_group("web", "bad-hosts"),
        &group("bad-hosts", &["10.0.0.0/8"]),
    ]);
    agent.apply([&drop_group("web", "bad-hosts")]);
    let edited = agent.apply([&drop_from("web", &["11.0.0.0/8"])]);
    edited.assert_no_findings();
    assert!(edited.drops("11.0.0.1") && !edited.drops("10.0.0.1"));
    assert!(
        agent
            .memory
            .last_good
            .values()
            .all(|good| good.name.name == "web"),
        "the lost group is forgotten"
    );
}

#[test]
fn a_policy_edited_while_its_group_is_lost_keeps_its_last_good_content() {
    let mut agent = Agent::new(plain_node());
    agent.apply([
        &drop_group("web", "bad-hosts"),
        &group("bad-hosts", &["10.0.0.0/8"]),
    ]);
    let edited = policy(
        "web",
        json!({"rules": [{"name": "block", "action": "Drop", "from": {
            "cidrs": ["11.0.0.0/8"], "cidrGroups": {"names": ["bad-hosts"]},
        }}]}),
    );
    for _ in 0..2 {
        let enforced = agent.apply([&edited]);
        assert!(enforced.drops("10.0.0.1") && !enforced.drops("11.0.0.1"));
        let finding = enforced.finding(FindingReason::UnresolvedReferences);
        assert!(
            finding.message.ends_with("generation 1 stays in effect"),
            "{finding}"
        );
        let summary = enforced.policy("web");
        assert_eq!((summary.generation, summary.effective), (2, Some(1)));
    }
    let enforced = agent.apply([&edited, &group("bad-hosts", &["10.0.0.0/8"])]);
    assert!(enforced.drops("10.0.0.1") && enforced.drops("11.0.0.1"));
}

#[test]
fn a_new_policy_that_names_a_missing_group_is_left_out_and_others_live() {
    let mut agent = Agent::new(plain_node());
    for _ in 0..2 {
        let enforced = agent.apply([
            &drop_group("web", "bad-hots"),
            &group("bad-hosts", &["10.0.0.0/8"]),
            &drop_from("other", &["11.0.0.0/8"]),
        ]);
        assert!(enforced.drops("11.0.0.1") && !enforced.drops("10.0.0.1"));
        let finding = enforced.finding(FindingReason::UnresolvedReferences);
        assert_eq!(finding.severity, Severity::Stalled);
        assert!(finding.message.ends_with("it is left out"), "{finding}");
        assert_eq!(enforced.policy("web").effective, None);
    }
}

#[test]
fn a_new_policy_may_not_begin_to_use_a_group_that_is_gone() {
    let mut agent = Agent::new(plain_node());
    let web = drop_group("web", "bad-hosts");
    agent.apply([&web, &group("bad-hosts", &["10.0.0.0/8"])]);
    let enforced = agent.apply([&web, &drop_group("late", "bad-hosts")]);
    assert_eq!(enforced.policy("late").effective, None);
    assert_eq!(enforced.policy("web").effective, Some(1));
    assert!(enforced.drops("10.0.0.1"));
}

#[test]
fn a_selected_group_that_is_deleted_is_gone_at_once() {
    let mut agent = Agent::new(plain_node());
    let selecting = policy(
        "web",
        json!({"rules": [{"name": "block", "action": "Drop", "from": {
            "cidrGroups": {"selector": {"matchLabels": {"feed": "bad"}}},
        }}]}),
    );
    let (one, two) = (group("one", &["10.0.0.0/8"]), group("two", &["11.0.0.0/8"]));
    let both = agent.apply([&selecting, &one, &two]);
    assert!(both.drops("10.0.0.1") && both.drops("11.0.0.1"));

    let rest = agent.apply([&selecting, &two]);
    rest.assert_no_findings();
    assert!(!rest.drops("10.0.0.1") && rest.drops("11.0.0.1"));

    let none = agent.apply([&selecting]);
    assert!(!none.drops("11.0.0.1"));
    let finding = none.finding(FindingReason::UnresolvedReferences);
    assert_eq!(finding.severity, Severity::Warning);
}

#[test]
fn a_lost_group_that_one_policy_names_is_not_selected_by_another() {
    let mut agent = Agent::new(plain_node());
    let naming = policy(
        "naming",
        json!({"rules": [{"name": "block", "action": "Drop",
            "protocols": [{"tcp": {}}], "from": {"cidrGroups": {"names": ["one"]}},
        }]}),
    );
    let selecting = policy(
        "selecting",
        json!({"rules": [{"name": "block", "action": "Drop", "from": {
            "cidrGroups": {"selector": {}},
        }}]}),
    );
    let (one, two) = (group("one", &["10.0.0.0/8"]), group("two", &["11.0.0.0/8"]));
    assert!(
        agent
            .apply([&naming, &selecting, &one, &two])
            .drops("10.0.0.1")
    );
    for _ in 0..2 {
        let enforced = agent.apply([&naming, &selecting, &two]);
        assert!(!enforced.drops("10.0.0.1"), "UDP is the selecting policy's");
        assert!(enforced.drops("11.0.0.1"));
        assert_eq!(enforced.stalled(), ["naming".to_owned()].into());
    }
}

#[test]
fn a_changed_group_changes_every_policy_that_uses_it() {
    let mut agent = Agent::new(plain_node());
    let web = drop_group("web", "bad-hosts");
    let before = agent.apply([&web, &group("bad-hosts", &["10.0.0.0/8", "2001:db8::/32"])]);
    assert!(before.drops("10.0.0.1") && before.drops("2001:db8::1"));
    let after = agent.apply([&web, &group("bad-hosts", &["11.0.0.0/8", "2001:db9::/32"])]);
    assert!(after.drops("11.0.0.1") && after.drops("2001:db9::1"));
    assert!(!after.drops("10.0.0.1") && !after.drops("2001:db8::1"));
    assert_eq!(after.policy("web").generation, 1, "the policy is as it was");
}

#[test]
fn a_rule_that_can_match_nothing_is_warned_about() {
    let mut agent = Agent::new(plain_node());
    let web = policy(
        "web",
        json!({"rules": [{"name": "block", "action": "Drop",
            "from": {"cidrGroups": {"names": ["v4"]}, "except": ["10.0.0.0/7"]},
        }]}),
    );
    let enforced = agent.apply([&web, &group("v4", &["10.0.0.0/8"])]);
    let finding = enforced.finding(FindingReason::MatchesNothing);
    assert_eq!(finding.path, "spec.rules[0]");
    let families = policy(
        "web",
        json!({"rules": [{"name": "block", "action": "Drop",
            "from": {"cidrGroups": {"names": ["v4"]}},
            "to": {"cidrs": ["2001:db8::/32"]},
        }]}),
    );
    let enforced = agent.apply([&families, &group("v4", &["10.0.0.0/8"])]);
    enforced.finding(FindingReason::MatchesNothing);
}
