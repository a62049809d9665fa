//! What Headgate's own check refuses, given to the API server with no webhook in front of it.

mod rules;
mod schema;

use std::collections::BTreeMap;

use headgate_crds::{Problem, check};
use headgate_e2e_tests::{control_plane::ControlPlane, trials::on_cluster};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{
    objects::{policy, protocol, rule},
    submit::{Named, Outcome, create, named},
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        on_cluster(
            "cel_rules_refuse_in_the_words_of_the_check",
            rules::same_words,
        ),
        on_cluster(
            "cel_rules_refuse_what_the_check_words_better",
            rules::own_words,
        ),
        on_cluster("the_schema_refuses_in_its_own_words", schema::own_words),
        on_cluster("what_only_the_check_refuses_is_stored", check_only),
        on_cluster("a_blank_field_is_absent_to_the_api_server", blank),
    ]
}

/// The only problem of an object.
fn problem(object: &Value) -> Problem {
    let problems = check(object).expect_err(&format!("{object:#}\nwas accepted"));
    let [problem] = problems.as_slice() else {
        panic!("{object:#}\nhas not one problem: {problems:#?}");
    };
    problem.clone()
}

/// What the API server makes of them, which is the same in a dry run; it stores none of them.
fn refusals(objects: &Named<'_>) -> Outcome {
    let control_plane = ControlPlane::shared();
    let outcome = create(control_plane.kubectl(), objects, &[]);
    assert!(outcome.stored.is_empty(), "{:#?}", outcome.stored);
    let dry = create(control_plane.kubectl(), objects, &["--dry-run=server"]);
    assert_eq!(outcome, dry);
    outcome
}

/// An object under a name, the place at which the check refuses it, and words of the API server's
/// refusal.
type Case = (&'static str, Value, &'static str, &'static str);

fn assert_words(cases: &[Case]) {
    let objects = named(
        cases
            .iter()
            .map(|(name, object, ..)| (*name, object.clone())),
    );
    let outcome = refusals(&objects);
    for &(name, _, place, words) in cases {
        assert_eq!(problem(&objects[name]).path, place, "{name}");
        let said = &outcome.refused[name];
        assert!(said.contains(words), "{name}: {words:?} is not in: {said}");
    }
}

/// What the types' own validation says, and the CRDs carry nothing of: which addresses a list
/// leaves, which flags contradict each other, what a label's key may be. Until a webhook asks the
/// check, the API server stores these, and agents refuse them.
fn check_only() {
    let v4 = json!({"cidrs": ["10.0.0.0/8"]});
    let v6 = json!({"cidrs": ["2001:db8::/32"]});
    let all_taken = json!({"cidrs": ["10.1.0.0/16"], "except": ["10.0.0.0/8"]});
    let contradiction = json!({"established": true, "flags": {"unset": ["Ack", "Rst"]}});
    stored_all_the_same(&[
        (
            "two-families",
            rule(json!({"from": v4, "to": v6})),
            "spec.rules[0].to",
        ),
        (
            "icmp-of-the-other-family",
            rule(json!({"from": v4, "protocols": [{"icmpv6": {}}]})),
            "spec.rules[0].protocols[0].icmpv6",
        ),
        (
            "all-taken-away",
            rule(json!({"from": all_taken})),
            "spec.rules[0].from.except",
        ),
        (
            "contradiction",
            protocol(json!({"tcp": contradiction})),
            "spec.rules[0].protocols[0].tcp.established",
        ),
        (
            "no-label-key",
            policy(json!({"nodeSelector": {"matchLabels": {"a role": "edge"}}})),
            "spec.nodeSelector.matchLabels[a role]",
        ),
    ]);
}

/// The API server takes a null for a field left out before anybody sees it, a webhook included. In
/// a file it is a slip, `from:` with nothing behind it: a rule for all where one for some was
/// meant. The check sees the file.
fn blank() {
    let stored = stored_all_the_same(&[
        (
            "blank-from",
            rule(json!({"from": null})),
            "spec.rules[0].from",
        ),
        (
            "blank-mode",
            policy(json!({"attachMode": null})),
            "spec.attachMode",
        ),
    ]);
    let rule = &stored["blank-from"]["spec"]["rules"][0];
    assert_eq!(rule, &json!({"name": "r", "action": "Drop"}));
    assert_eq!(stored["blank-mode"]["spec"]["attachMode"], "Auto");
}

/// Objects that the check refuses at these places, and the API server takes; as it would store
/// them.
fn stored_all_the_same(cases: &[(&str, Value, &str)]) -> BTreeMap<String, Value> {
    let objects = named(
        cases
            .iter()
            .map(|(name, object, _)| (*name, object.clone())),
    );
    for (name, _, place) in cases {
        assert_eq!(problem(&objects[name]).path, *place, "{name}");
    }
    let control_plane = ControlPlane::shared();
    let outcome = create(control_plane.kubectl(), &objects, &["--dry-run=server"]);
    assert!(outcome.refused.is_empty(), "{:#?}", outcome.refused);
    outcome.stored
}
