//! Removes what agents said of nodes that are no more.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use headgate_crds::NodeDatapath;
use headgate_source::kubernetes::explain;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Preconditions},
};
use tokio::{sync::watch, time::interval};

use crate::fleet::Fleet;

/// What is watched of nodes may be a little behind what is watched of NodeDatapaths.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often to look.
const LOOK: Duration = Duration::from_secs(5);

/// Removes them while this replica leads. The garbage collector does the same where it runs.
pub(crate) async fn remove(
    client: Client,
    fleet: watch::Receiver<Arc<Fleet>>,
    is_leader: watch::Receiver<bool>,
) -> Infallible {
    let nodes: Api<Node> = Api::all(client.clone());
    let api: Api<NodeDatapath> = Api::all(client);
    let mut look = interval(LOOK);
    let mut seen: BTreeMap<String, Instant> = BTreeMap::new();
    loop {
        look.tick().await;
        let now = fleet.borrow().clone();
        if !*is_leader.borrow() {
            continue;
        }
        let gone: BTreeMap<&str, (&str, &str)> = of_gone_nodes(&now).collect();
        seen.retain(|uid, _| gone.contains_key(uid.as_str()));
        for (uid, (name, owner)) in gone {
            let since = seen.entry(uid.to_owned()).or_insert_with(Instant::now);
            if since.elapsed() < PATIENCE {
                continue;
            }
            // The watch of nodes may have died without a word: the API is asked before anything goes.
            let node = nodes.get_metadata_opt(name).await;
            if !matches!(&node, Ok(node) if node.as_ref().and_then(ResourceExt::uid).as_deref() != Some(owner))
            {
                continue;
            }
            let this_one = DeleteParams::default().preconditions(Preconditions {
                uid: Some(uid.to_owned()),
                resource_version: None,
            });
            match api.delete(name, &this_one).await {
                Ok(_) => {
                    tracing::info!(node = name, "its node is gone: the NodeDatapath is removed");
                }
                Err(error) => tracing::debug!("the NodeDatapath {name}: {}", explain(&error)),
            }
        }
    }
}

/// Uid of each NodeDatapath, its name and its node's uid, whose node is not there, or is another of the same name.
fn of_gone_nodes(fleet: &Fleet) -> impl Iterator<Item = (&str, (&str, &str))> {
    let gone = |(name, shown): &(&String, &Arc<crate::fleet::Shown>)| {
        let node = fleet.nodes.get(*name);
        node.is_none_or(|node| !shown.owner.is_empty() && node.uid != shown.owner)
    };
    let datapaths = fleet.datapaths.iter().filter(gone);
    datapaths.map(|(name, shown)| (shown.uid.as_str(), (name.as_str(), shown.owner.as_str())))
}
