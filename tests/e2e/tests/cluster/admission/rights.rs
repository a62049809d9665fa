//! What the API server itself holds agents and users to.

use std::sync::Arc;

use headgate_e2e_tests::{cluster::Cluster, kubectl::Kubectl, wait::wait_for};
use serde_json::{Value, json};

use super::webhook::{SOON, guarded};
use crate::objects::{group, policy};

const APPLY: [&str; 4] = ["apply", "--server-side", "-f", "-"];

/// A NodeDatapath, a Lease and an Event of a node.
fn of_node(node: &str) -> [Value; 3] {
    let metadata = json!({"name": node});
    let here = json!({"name": node, "namespace": "headgate-system"});
    let event = json!({"name": format!("{node}.e"), "namespace": "default"});
    [
        json!({"apiVersion": "headgate.dev/v1alpha1", "kind": "NodeDatapath", "metadata": metadata}),
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": here, "spec": {"holderIdentity": node}}),
        json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": event,
            "reportingController": "headgate-agent", "reportingInstance": node,
            "action": "Enforce", "reason": "Enforced", "type": "Normal",
            "eventTime": "2026-01-01T00:00:00.000000Z",
            "regarding": {"apiVersion": "v1", "kind": "Node", "name": node},
        }),
    ]
}

pub(super) fn agents() {
    guarded(|guarded| {
        let cluster = Cluster::on(&Arc::clone(&guarded.control_plane), 2);
        let [one, other] = [&cluster.nodes[0], &cluster.nodes[1]];
        let kubectl = cluster.kubectl_on(one);
        for foreign in of_node(&other.name) {
            wait_for(SOON, "the other node's are refused", || {
                let said = kubectl.said_of(&APPLY, &foreign.to_string());
                said.code != 0 && said.errors.contains(&format!("bound to node {}", one.name))
            });
        }
        for own in of_node(&one.name) {
            let said = kubectl.said_of(&APPLY, &own.to_string());
            assert_eq!(said.code, 0, "{own:#}: {said:?}");
        }
        // One that is there already, and its status, are no other matter.
        let datapath = of_node(&other.name)[0].to_string();
        let own = cluster.kubectl_on(other).said_of(&APPLY, &datapath);
        assert_eq!(own.code, 0, "{own:?}");
        let status = json!({
            "apiVersion": "headgate.dev/v1alpha1", "kind": "NodeDatapath",
            "metadata": {"name": other.name}, "status": {"revision": "forged"},
        });
        let to_status = [&APPLY[..], &["--subresource=status", "--force-conflicts"]].concat();
        let said = kubectl.said_of(&to_status, &status.to_string());
        assert!(
            said.errors.contains(&format!("bound to node {}", one.name)),
            "{said:?}"
        );
        cannot_write_policies(&kubectl);
        unbound(guarded.control_plane.kubectl(), &one.name);
    });
}

fn cannot_write_policies(agent: &Kubectl) {
    let mut object = policy(json!({}));
    object["metadata"]["name"] = "mine".into();
    let said = agent.said_of(&APPLY, &object.to_string());
    assert!(said.errors.contains("Forbidden"), "{said:?}");
}

/// The agents' account by a token of nobody's node.
fn unbound(kubectl: &Kubectl, node: &str) {
    let impersonate = "--as=system:serviceaccount:headgate-system:headgate-agent";
    let apply = [&APPLY[..], &[impersonate]].concat();
    let said = kubectl.said_of(&apply, &of_node(node)[0].to_string());
    assert!(said.errors.contains("bound to no node"), "{said:?}");
}

pub(super) fn reserved_groups() {
    guarded(|guarded| {
        let kubectl = guarded.kubectl();
        let named = |name: &str| {
            let mut object = group(json!({"cidrs": ["10.0.0.0/8"]}));
            object["metadata"]["name"] = name.into();
            object
        };
        let mut labelled = named("mine");
        labelled["metadata"]["labels"] = json!({"headgate.dev/reserved": "true"});
        let reserved = ["nodes", "api-servers", "pod-cidrs"].map(named);
        for object in reserved.iter().chain([&labelled]) {
            wait_for(SOON, "it is refused", || {
                let said = kubectl.said_of(&["apply", "-f", "-"], &object.to_string());
                said.code != 0 && said.errors.contains("Headgate's operator")
            });
        }
        let operator = "--as=system:serviceaccount:headgate-system:headgate-operator";
        let groups = "--as-group=system:masters";
        for object in &reserved {
            let said =
                kubectl.said_of(&["apply", operator, groups, "-f", "-"], &object.to_string());
            assert_eq!(said.code, 0, "{said:?}");
        }
        kubectl.apply(&named("mine").to_string());
        kubectl.run(&["delete", "cidrgroups", "--all"]);
    });
}
