//! TunnelPeers that the operator keeps for Nodes, where it is told to: of their podCIDRs and InternalIPs.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::Arc,
};

use headgate_compile::snapshot::Content;
use headgate_crds::{API_VERSION, Kind, TunnelPeer, TunnelPeerSpec};
use headgate_source::kubernetes::explain;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::{sync::watch, time::sleep};

use crate::{
    FIELD_MANAGER,
    fleet::{Fleet, Node, Resource},
    services::MANAGED_BY,
    turns::{PAUSE, Turns, delete_this},
};

/// The network that Nodes are to be joined by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// As in [`TunnelPeerSpec::vni`].
    pub vni: u32,
    /// As in [`TunnelPeerSpec::port`].
    pub port: u16,
}

/// What has to be done about a peer, of the same name as its Node.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Make it so.
    Apply(Box<TunnelPeerSpec>),
    /// Remove it, if it is still the one of this uid.
    Delete(String),
    /// Somebody else has made a peer of the Node's name: leave it alone, and say so.
    Refuse,
}

/// What the peer of `node` says; `None` where it has no pods' networks or no InternalIP.
fn wanted(node: &Node, network: Network) -> Option<TunnelPeerSpec> {
    let endpoint = node.internal_ip.filter(|_| !node.pod_cidrs.is_empty())?;
    Some(TunnelPeerSpec {
        node_selector: None,
        pod_cidrs: node.pod_cidrs.iter().map(ToString::to_string).collect(),
        endpoint: endpoint.to_string(),
        vni: network.vni,
        port: network.port,
        mac: None,
        local_delivery: None,
    })
}

/// The steps from what there is to what there is to be, by name; without a network there is to be nothing.
#[must_use]
pub fn plan(fleet: &Fleet, network: Option<Network>) -> BTreeMap<String, Step> {
    let nodes = fleet.nodes.iter();
    let wanted = nodes.filter_map(|(name, node)| Some((name, wanted(node, network?)?)));
    let mut wanted: BTreeMap<&String, TunnelPeerSpec> = wanted.collect();
    let mut steps = BTreeMap::new();
    let resources = fleet.resources.values();
    for resource in resources.filter(|resource| resource.kind == Kind::TunnelPeer) {
        let next = wanted.remove(&resource.name);
        let step = step(fleet, resource, next);
        steps.extend(step.map(|step| (resource.name.clone(), step)));
    }
    let new = wanted.into_iter();
    steps.extend(new.map(|(name, spec)| (name.clone(), Step::Apply(Box::new(spec)))));
    steps
}

fn step(fleet: &Fleet, resource: &Resource, wanted: Option<TunnelPeerSpec>) -> Option<Step> {
    let told = fleet.told.get(&resource.uid);
    let owner = told.and_then(|told| told.owner.as_ref());
    match (owner, wanted) {
        (None, None) => None,
        (None, Some(_)) => Some(Step::Refuse),
        (Some(_), None) => Some(Step::Delete(resource.uid.clone())),
        (Some(owner), Some(wanted)) => {
            let node = fleet.nodes.get(&resource.name);
            let is_of_node = node.is_some_and(|node| node.uid == *owner);
            let is_so = is_of_node && says(resource, &wanted);
            (!is_so).then(|| Step::Apply(Box::new(wanted)))
        }
    }
}

/// Whether a peer says what is wanted; what others add to it is theirs.
fn says(resource: &Resource, wanted: &TunnelPeerSpec) -> bool {
    let Ok(Content::Peer(peer)) = &resource.content else {
        return false;
    };
    let of = |spec: &TunnelPeerSpec| {
        let cidrs = spec.pod_cidrs.clone();
        (cidrs, spec.endpoint.clone(), spec.vni, spec.port)
    };
    of(&peer.spec) == of(wanted)
}

/// Keeps them so while this replica leads.
pub(crate) async fn keep(
    client: Client,
    network: Option<Network>,
    fleet: watch::Receiver<Arc<Fleet>>,
    is_leader: watch::Receiver<bool>,
) -> Infallible {
    let api: Api<TunnelPeer> = Api::all(client);
    let mut turns = Turns::new(fleet, is_leader);
    let mut refused: BTreeSet<String> = BTreeSet::new();
    loop {
        let Some(now) = turns.next().await else {
            continue;
        };
        let steps = plan(&now, network);
        refused.retain(|name| steps.get(name) == Some(&Step::Refuse));
        for (name, step) in steps {
            if step == Step::Refuse {
                if refused.insert(name.clone()) {
                    tracing::warn!(
                        "the TunnelPeer {name} has the name of a Node and is not the operator's: the Node gets no other; rename it, or let it say what is behind the Node"
                    );
                }
                continue;
            }
            if let Err(error) = carry_out(&api, &now, &name, step).await {
                tracing::warn!("the TunnelPeer {name}: {}", explain(&error));
                // What is left is planned anew, from what there is by then, and perhaps by another leader.
                sleep(PAUSE).await;
                break;
            }
        }
    }
}

async fn carry_out(
    api: &Api<TunnelPeer>,
    fleet: &Fleet,
    name: &str,
    step: Step,
) -> Result<(), kube::Error> {
    match step {
        Step::Refuse => {}
        Step::Delete(uid) => delete_this(api, name, uid).await?,
        Step::Apply(spec) => {
            let Some(node) = fleet.nodes.get(name) else {
                return Ok(());
            };
            let object = json!({
                "apiVersion": API_VERSION,
                "kind": Kind::TunnelPeer.as_str(),
                "metadata": {
                    "name": name,
                    "labels": {MANAGED_BY: FIELD_MANAGER},
                    "ownerReferences": [{
                        "apiVersion": "v1",
                        "kind": "Node",
                        "name": name,
                        "uid": node.uid,
                        "controller": true,
                    }],
                },
                "spec": spec,
            });
            let params = PatchParams::apply(FIELD_MANAGER).force();
            api.patch(name, &params, &Patch::Apply(&object)).await?;
            tracing::info!(
                node = name,
                endpoint = spec.endpoint,
                "a peer of the tunnel"
            );
        }
    }
    Ok(())
}
