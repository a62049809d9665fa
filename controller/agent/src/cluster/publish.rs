//! Keeps the NodeDatapath what it should be, with as few writes as there are changes.

use std::time::Duration;

use headgate_crds::{API_VERSION, NodeDatapath, NodeDatapathStatus};
use headgate_source::kubernetes::explain;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::{sync::watch, time::sleep};

use super::FIELD_MANAGER;

/// Pauses between attempts, the last one again and again.
const PAUSES: [u64; 5] = [1, 2, 5, 10, 30];

/// A NodeDatapath that is to be.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) node_uid: String,
    pub(super) status: NodeDatapathStatus,
}

/// Writes what `wanted` says, again and again until it is written. Ends when nobody wants any more.
pub(super) async fn keep_published(client: Client, mut wanted: watch::Receiver<Option<Wanted>>) {
    let api: Api<NodeDatapath> = Api::all(client);
    let mut written: Option<Wanted> = None;
    let mut failures = 0;
    while failures > 0 || wanted.changed().await.is_ok() {
        let Some(mut next) = wanted.borrow_and_update().clone() else {
            continue;
        };
        if let Some(written) = &written {
            keep_times(&mut next.status, &written.status);
        }
        if written.as_ref() == Some(&next) {
            failures = 0;
            continue;
        }
        match write(&api, &next, written.as_ref()).await {
            Ok(()) => {
                written = Some(next);
                failures = 0;
            }
            Err(error) => {
                let reason = explain(&error);
                if failures == 0 {
                    tracing::warn!("the NodeDatapath is not written: {reason}");
                }
                // Somebody may have deleted it.
                written = None;
                sleep(Duration::from_secs(PAUSES[failures.min(PAUSES.len() - 1)])).await;
                failures += 1;
            }
        }
    }
}

/// A condition keeps its time while it says the same.
fn keep_times(next: &mut NodeDatapathStatus, written: &NodeDatapathStatus) {
    for condition in &mut next.conditions {
        let former = written
            .conditions
            .iter()
            .find(|former| former.type_ == condition.type_);
        if let Some(former) = former.filter(|former| former.status == condition.status) {
            condition.last_transition_time = former.last_transition_time.clone();
        }
    }
}

async fn write(
    api: &Api<NodeDatapath>,
    next: &Wanted,
    written: Option<&Wanted>,
) -> Result<(), kube::Error> {
    let params = PatchParams::apply(FIELD_MANAGER).force();
    if written.is_none_or(|written| written.node_uid != next.node_uid) {
        let object = json!({
            "apiVersion": API_VERSION,
            "kind": "NodeDatapath",
            "metadata": {
                "name": next.name,
                // It goes with its node.
                "ownerReferences": [{
                    "apiVersion": "v1", "kind": "Node", "name": next.name, "uid": next.node_uid,
                }],
            },
        });
        api.patch(&next.name, &params, &Patch::Apply(&object))
            .await?;
    }
    let status = json!({
        "apiVersion": API_VERSION,
        "kind": "NodeDatapath",
        "status": next.status,
    });
    api.patch_status(&next.name, &params, &Patch::Apply(&status))
        .await?;
    Ok(())
}
