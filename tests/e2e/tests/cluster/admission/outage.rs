//! The webhook is gone.

use std::sync::Arc;

use headgate_e2e_tests::{cluster::Cluster, control_plane::ControlPlane, wait::wait_for};
use serde_json::{Value, json};

use super::webhook::{Guarded, SOON, guarded};
use crate::objects::{from, policy};

fn named(mut object: Value, name: &str) -> String {
    object["metadata"]["name"] = name.into();
    object.to_string()
}

pub(super) fn down() {
    guarded(|guarded| {
        guarded.kubectl().apply(&named(policy(json!({})), "kept"));
        guarded
            .kubectl()
            .apply(&named(policy(json!({})), "deleted"));
        guarded.stop();
        fails_closed(guarded);
        goes_on(guarded, &Arc::clone(&guarded.control_plane));
    });
}

fn fails_closed(guarded: &Guarded) {
    let create = ["create", "-f", "-"];
    let words = "failed calling webhook \"policies.headgate.dev\"";
    wait_for(SOON, "policies wait for the webhook", || {
        let said = guarded
            .kubectl()
            .said_of(&create, &named(policy(json!({})), "new"));
        assert_eq!(
            said.code, 1,
            "a policy was stored that nobody checked: {said:?}"
        );
        said.errors.contains(words) && said.errors.contains("connection refused")
    });
    // The API server's own rules speak first.
    let basics = guarded
        .kubectl()
        .said_of(&create, &named(from("10.0.0.0/33"), "new"));
    assert_eq!(basics.code, 1, "{basics:?}");
    assert!(!basics.errors.contains(words), "{basics:?}");
    assert!(
        basics.errors.contains("spec.rules[0].from.cidrs[0]"),
        "{basics:?}"
    );
}

fn goes_on(guarded: &Guarded, control_plane: &Arc<ControlPlane>) {
    let kubectl = guarded.kubectl();
    kubectl.run(&["label", "xdppolicy", "kept", "team=edge"]);
    kubectl.run(&["delete", "xdppolicy", "deleted"]);
    let status = json!({"status": {"observedGeneration": 1}}).to_string();
    kubectl.run(&[
        "patch",
        "xdppolicy",
        "kept",
        "--subresource=status",
        "--type=merge",
        "-p",
        &status,
    ]);

    let cluster = Cluster::on(control_plane, 1);
    let node = &cluster.nodes[0];
    kubectl.run(&["label", "node", &node.name, "role=edge"]);
    let agent = cluster.kubectl_on(node);
    let datapath = json!({
        "apiVersion": "headgate.dev/v1alpha1", "kind": "NodeDatapath",
        "metadata": {"name": node.name},
    });
    let apply = ["apply", "--server-side", "-f", "-"];
    let said = agent.said_of(&apply, &datapath.to_string());
    assert_eq!(said.code, 0, "{said:?}");
}
