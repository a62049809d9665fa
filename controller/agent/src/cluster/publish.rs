//! Keeps the NodeDatapath what it should be, with as few writes as there are changes.

use std::time::Duration;

use headgate_crds::{API_VERSION, NodeDatapath, NodeDatapathStatus};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{FIELD_MANAGER, in_time};

/// Pauses between attempts, the last one again and again.
const PAUSES: [u64; 5] = [1, 2, 5, 10, 30];

/// How often to look whether it is still there.
const LOOK: Duration = Duration::from_secs(60);

/// A NodeDatapath that is to be.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) node_uid: String,
    pub(super) status: NodeDatapathStatus,
}

impl Wanted {
    /// The node's name and uid.
    pub(super) fn node(&self) -> (String, String) {
        (self.name.clone(), self.node_uid.clone())
    }
}

/// Writes what `wanted` says, again and again until it is written, and again where somebody deleted
/// it. Ends when nobody wants any more.
pub(super) async fn keep_published(client: Client, mut wanted: watch::Receiver<Option<Wanted>>) {
    let api: Api<NodeDatapath> = Api::all(client);
    let mut written: Option<Wanted> = None;
    let mut failures = 0;
    loop {
        if failures == 0 {
            match timeout(LOOK, wanted.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
                Err(_) => written = still_there(&api, written).await,
            }
        }
        let Some(mut next) = wanted.borrow_and_update().clone() else {
            continue;
        };
        match bring_about(&api, &mut next, written.as_ref()).await {
            Ok(()) => {
                written = Some(next);
                failures = 0;
            }
            Err(reason) => {
                if failures == 0 {
                    tracing::warn!("the NodeDatapath is not written: {reason}");
                }
                // It may be half written.
                written = None;
                sleep(Duration::from_secs(PAUSES[failures.min(PAUSES.len() - 1)])).await;
                failures += 1;
            }
        }
    }
}

/// What was written, unless it is gone.
async fn still_there(api: &Api<NodeDatapath>, written: Option<Wanted>) -> Option<Wanted> {
    let written = written?;
    match in_time(api.get_metadata_opt(&written.name)).await {
        Ok(None) => None,
        // What cannot be read is not taken for gone.
        Ok(Some(_)) | Err(_) => Some(written),
    }
}

async fn bring_about(
    api: &Api<NodeDatapath>,
    next: &mut Wanted,
    written: Option<&Wanted>,
) -> Result<(), String> {
    if let Some(written) = written {
        keep_times(&mut next.status, &written.status);
        if written == next {
            return Ok(());
        }
    } else if let Some(former) = in_time(api.get_opt(&next.name)).await? {
        keep_times(&mut next.status, &former.status.unwrap_or_default());
    }
    write(api, next, written).await
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
) -> Result<(), String> {
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
        in_time(api.patch(&next.name, &params, &Patch::Apply(&object))).await?;
    }
    let status = json!({
        "apiVersion": API_VERSION,
        "kind": "NodeDatapath",
        "status": next.status,
    });
    in_time(api.patch_status(&next.name, &params, &Patch::Apply(&status))).await?;
    Ok(())
}
