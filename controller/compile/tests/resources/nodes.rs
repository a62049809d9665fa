//! Which policies concern a node.

use headgate_compile::node::NodeFacts;
use serde_json::{Value, json};

use crate::scene::{Agent, drop_from, plain_node};

fn labelled(labels: &[(&str, &str)]) -> NodeFacts {
    let mut node = plain_node();
    let owned = labels
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    node.labels = owned.collect();
    node
}

fn with_selector(selector: Value) -> Value {
    let mut policy = drop_from("web", &["10.0.0.0/8"]);
    policy["spec"]["nodeSelector"] = selector;
    policy
}

#[test]
fn selectors_select_by_all_that_they_say() {
    let requirement = |key: &str, operator: &str, values: &[&str]| {
        let mut requirement = json!({"key": key, "operator": operator});
        if !values.is_empty() {
            requirement["values"] = json!(values);
        }
        json!({"matchExpressions": [requirement]})
    };
    let edge = [("role", "edge"), ("zone", "a")];
    for (selector, labels, selected) in [
        (json!({}), &[][..], true),
        (json!({"matchLabels": {"role": "edge"}}), &edge, true),
        (json!({"matchLabels": {"role": "core"}}), &edge, false),
        (
            json!({"matchLabels": {"role": "edge", "zone": "b"}}),
            &edge,
            false,
        ),
        (requirement("role", "In", &["core", "edge"]), &edge, true),
        (requirement("role", "In", &["core"]), &edge, false),
        (requirement("role", "In", &["edge"]), &[], false),
        (requirement("role", "NotIn", &["core"]), &edge, true),
        (requirement("role", "NotIn", &["edge"]), &edge, false),
        (requirement("role", "NotIn", &["edge"]), &[], true),
        (requirement("role", "Exists", &[]), &edge, true),
        (requirement("role", "Exists", &[]), &[], false),
        (requirement("role", "DoesNotExist", &[]), &edge, false),
        (requirement("role", "DoesNotExist", &[]), &[], true),
    ] {
        let mut agent = Agent::new(labelled(labels));
        let enforced = agent.apply([&with_selector(selector.clone())]);
        enforced.assert_no_findings();
        assert_eq!(
            enforced.drops("10.0.0.1"),
            selected,
            "{selector} {labels:?}"
        );
        assert_eq!(enforced.policy("web").selected, selected);
        assert_eq!(enforced.interfaces().is_empty(), !selected);
    }
}

#[test]
fn a_policy_that_selects_other_nodes_is_listed_and_takes_no_counter() {
    let mut agent = Agent::new(plain_node());
    let elsewhere = with_selector(json!({"matchLabels": {"role": "edge"}}));
    let enforced = agent.apply([&elsewhere]);
    assert_eq!(enforced.policy("web").rules[0].counter, None);
    assert!(agent.memory.counters.is_empty());
}
