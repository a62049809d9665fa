//! A Lease that says that the agent is alive.

use std::time::Duration;

use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use super::{FIELD_MANAGER, in_time, publish::Wanted};

/// Between two renewals: one small write a node.
const RENEWAL: Duration = Duration::from_secs(10);
/// Seconds after which an agent that did not renew is taken for dead.
const DURATION: u32 = 40;

/// Renews the Lease of this node's agent for ever, once the node is known.
pub(super) async fn keep_renewed(
    client: Client,
    namespace: String,
    mut node: watch::Receiver<Option<Wanted>>,
) {
    if node.wait_for(Option::is_some).await.is_err() {
        return;
    }
    let api: Api<Lease> = Api::namespaced(client, &namespace);
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let mut ticks = interval(RENEWAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut has_failed = false;
    loop {
        ticks.tick().await;
        let Some((name, uid)) = node.borrow().as_ref().map(Wanted::node) else {
            continue;
        };
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": name,
                // It goes with its node.
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid},
                ],
            },
            "spec": {
                "holderIdentity": name,
                "leaseDurationSeconds": DURATION,
                "renewTime": format!("{:.6}", Timestamp::now()),
            },
        });
        let renewed = in_time(api.patch(&name, &params, &Patch::Apply(&lease))).await;
        if let (Err(reason), false) = (&renewed, has_failed) {
            tracing::warn!(namespace, "the Lease is not renewed: {reason}");
        }
        has_failed = renewed.is_err();
    }
}
