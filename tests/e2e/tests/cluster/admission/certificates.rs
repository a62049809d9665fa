//! The webhook's certificates: in the Secret, in its configuration, over time.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use headgate_e2e_tests::wait::wait_for;
use headgate_operator::admission::Lifetimes;
use serde_json::Value;

use super::webhook::{Guarded, SOON, guarded};
use crate::objects::{many, policy};
use serde_json::json;

pub(super) fn second_apply() {
    guarded(|guarded| {
        let before = guarded.stored_configuration();
        let bundle = &before["webhooks"][0]["clientConfig"]["caBundle"];
        assert!(bundle.is_string(), "{before:#}");
        assert_owner(&before);

        let manifests = guarded.configuration();
        let kubectl = guarded.kubectl();
        let diff = kubectl.said_of(&["diff", "-f", "-"], &manifests);
        assert_eq!((diff.code, diff.output.as_str()), (0, ""), "{diff:?}");
        let applied = kubectl.apply(&manifests);
        assert!(applied.trim_end().ends_with("unchanged"), "{applied}");
        let server_side = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        let said = kubectl.said_of(&server_side, &manifests);
        assert_eq!(said.code, 0, "{said:?}");
        let diff = kubectl.said_of(
            &["diff", "--server-side", "--force-conflicts", "-f", "-"],
            &manifests,
        );
        assert_eq!((diff.code, diff.output.as_str()), (0, ""), "{diff:?}");

        let after = guarded.stored_configuration();
        assert_eq!(
            after["metadata"]["generation"],
            before["metadata"]["generation"]
        );
        assert_eq!(&after["webhooks"][0]["clientConfig"]["caBundle"], bundle);
        assert_owner(&after);
    });
}

/// The bundle belongs to its own field manager, which owns nothing else.
fn assert_owner(configuration: &Value) {
    let managers = configuration["metadata"]["managedFields"].as_array();
    let managers = managers.expect("they were asked for");
    for manager in managers {
        let owns = manager["fieldsV1"].to_string();
        let is_ours = manager["manager"] == "headgate-webhook-ca";
        assert_eq!(owns.contains("caBundle"), is_ours, "{manager:#}");
        assert!(!is_ours || !owns.contains("failurePolicy"), "{manager:#}");
    }
}

/// So long that several authorities come and go.
const WATCHED: Duration = Duration::from_secs(25);
const LIFETIMES: Lifetimes = Lifetimes {
    authority: Duration::from_secs(15),
    leaf: Duration::from_secs(6),
    settle: Duration::from_secs(1),
};

pub(super) fn rotation() {
    guarded(|guarded| {
        guarded.stop();
        guarded.kubectl().run(&[
            "delete",
            "secret",
            "headgate-webhook",
            "-n",
            "headgate-system",
        ]);
        guarded.start(LIFETIMES);
        wait_for(SOON, "the new webhook is asked", || {
            apply(guarded, 0).is_ok()
        });
        let (mut leaves, mut authorities) = (BTreeSet::new(), BTreeSet::new());
        let (started, mut applied) = (Instant::now(), 0_u16);
        while started.elapsed() < WATCHED {
            applied += 1;
            let outcome = apply(guarded, applied);
            assert_eq!(
                outcome,
                Ok(()),
                "apply {applied}, after {:?}",
                started.elapsed()
            );
            let get = ["get", "secret", "headgate-webhook", "-n", "headgate-system"];
            let data = guarded.kubectl().json(&get)["data"].take();
            leaves.insert(data["tls.crt"].to_string());
            authorities.insert(data["ca.key"].to_string());
        }
        println!(
            "{applied} applies of 20 policies over {} certificates of {} authorities",
            leaves.len(),
            authorities.len()
        );
        assert!(
            leaves.len() >= 4 && authorities.len() >= 2,
            "nothing was rotated"
        );
        guarded.stop();
        guarded.kubectl().run(&[
            "delete",
            "secret",
            "headgate-webhook",
            "-n",
            "headgate-system",
        ]);
    });
}

/// Applies 20 policies with a spec that no earlier number had.
fn apply(guarded: &Guarded, number: u16) -> Result<(), String> {
    let policies = many(20, |index| {
        let mut policy = policy(json!({"priority": number}));
        policy["metadata"]["name"] = format!("p{index}").into();
        policy
    });
    let list = json!({"apiVersion": "v1", "kind": "List", "items": policies});
    let said = guarded
        .kubectl()
        .said_of(&["apply", "-f", "-"], &list.to_string());
    match said.code {
        0 => Ok(()),
        _ => Err(said.errors),
    }
}
