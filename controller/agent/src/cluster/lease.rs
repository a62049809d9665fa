//! A Lease that says that the agent is alive.

use std::time::Duration;

use headgate_source::kubernetes::explain;
use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

use super::FIELD_MANAGER;

/// Between two renewals: one small write a node.
const RENEWAL: Duration = Duration::from_secs(10);
/// Seconds after which an agent that did not renew is taken for dead.
const DURATION: u32 = 40;

/// Renews the Lease of this node's agent for ever.
pub(super) async fn keep_renewed(client: Client, namespace: String, node: String) {
    let api: Api<Lease> = Api::namespaced(client, &namespace);
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let mut ticks = interval(RENEWAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut has_failed = false;
    loop {
        ticks.tick().await;
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": node},
            "spec": {
                "holderIdentity": node,
                "leaseDurationSeconds": DURATION,
                "renewTime": format!("{:.6}", Timestamp::now()),
            },
        });
        let renewed = api.patch(&node, &params, &Patch::Apply(&lease)).await;
        if let (Err(error), false) = (&renewed, has_failed) {
            tracing::warn!(namespace, "the Lease is not renewed: {}", explain(error));
        }
        has_failed = renewed.is_err();
    }
}
