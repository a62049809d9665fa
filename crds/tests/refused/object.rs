//! What every object has, and how problems are told.

use headgate_crds::Problem;
use serde_json::json;

use crate::{
    assert_each,
    common::{bad, group, policy},
    numbered, with,
};

#[test]
fn identity() {
    let ok = || group(json!({"cidrs": ["10.0.0.0/8"]}));
    assert_each(vec![
        (json!([]), "", "no object", "apiVersion"),
        (json!({}), "apiVersion", "required", "headgate.dev/v1alpha1"),
        (
            with(ok(), "/apiVersion", json!("headgate.dev/v1")),
            "apiVersion",
            "\"headgate.dev/v1\" is not served",
            "headgate.dev/v1alpha1",
        ),
        (
            json!({"apiVersion": "headgate.dev/v1alpha1"}),
            "kind",
            "required",
            "XdpPolicy",
        ),
        (
            with(ok(), "/kind", json!("CIDRGroup ")),
            "kind",
            "LoadBalancerService, TunnelPeer or XdpPolicy",
            "mean CidrGroup?",
        ),
        (
            with(ok(), "/metadata", json!({})),
            "metadata.name",
            "required",
            "add",
        ),
        (
            with(ok(), "/metadata", json!({"name": 7})),
            "metadata.name",
            "a number",
            "\"7\"",
        ),
        (
            with(ok(), "/metadata", json!({"name": "Web_1"})),
            "metadata.name",
            "\"Web_1\"",
            "lower-case",
        ),
        (
            with(ok(), "/metadata", json!({"name": "a".repeat(254)})),
            "metadata.name",
            "254",
            "shorten",
        ),
        (
            with(ok(), "/metadata", json!("web")),
            "metadata",
            "a string",
            "KEY: VALUE",
        ),
        (
            with(ok(), "/metadata", json!({"name": "a", "label": {}})),
            "metadata.label",
            "no known field",
            "labels?",
        ),
        (
            with(ok(), "/metadata/labels", json!({"feed": 1})),
            "metadata.labels[feed]",
            "a number",
            "quotes",
        ),
        (
            with(ok(), "/metadata/labels", json!({"feed": "a b"})),
            "metadata.labels[feed]",
            "\"a b\"",
            "letters",
        ),
        (
            with(ok(), "/metadata/labels", json!({"my feed": "a"})),
            "metadata.labels[my feed]",
            "label key",
            "PREFIX/NAME",
        ),
        (
            with(ok(), "/metadata", json!({"name": "a", "generation": "x"})),
            "metadata",
            "expected i64",
            "fields of Kubernetes",
        ),
    ]);
    let mut unknown = ok();
    unknown["status"] = json!({});
    let mut no_spec = ok();
    no_spec.as_object_mut().expect("an object").remove("spec");
    assert_each(vec![
        (unknown, "status", "no known field", "remove it"),
        (no_spec, "spec", "required", "add spec"),
    ]);
}

#[test]
fn several_problems_are_told_at_once() {
    let object = policy(json!({
        "priority": 2000,
        "rules": [{"name": "a", "action": "drop"}, {"name": "b", "action": "Drop", "from": {"cidr": []}}],
    }));
    let paths: Vec<String> = bad(&object).into_iter().map(|p| p.path).collect();
    assert_eq!(
        paths,
        [
            "spec.priority",
            "spec.rules[0].action",
            "spec.rules[1].from.cidr"
        ]
    );
}

#[test]
fn a_long_list_of_problems_is_cut() {
    let object = group(json!({"cidrs": numbered(5000, |_| json!("10.0.0.1"))}));
    let problems = bad(&object);
    assert_eq!(problems.len(), 51);
    assert_eq!(
        problems.last().map(Problem::to_string).as_deref(),
        Some("4950 more problems are not listed; mend these first")
    );
}
