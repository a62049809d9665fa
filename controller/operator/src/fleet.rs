//! The cluster as the operator knows it: nodes, what their agents show, and the resources. Plain
//! data; whoever reads it holds one moment of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use headgate_compile::{
    inputs::{Catalog, Entry, Labels, labels_digest},
    snapshot::Content,
};
use headgate_crds::{IpNet, ResourceException, ResourceStatus};
use headgate_datapath::state::Digest;
use headgate_source::Document;
use k8s_openapi::{api::core::v1::Taint, jiff::Timestamp};

use crate::{provenance::Tracker, services::Asked};

/// A resource as it is kept: groups in packed form.
pub type Resource = Document<Content>;

/// All that is known of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    /// Whether all of it was heard once; nothing is known before.
    pub is_known: bool,
    /// Resources of every kind, by uid.
    pub resources: BTreeMap<String, Arc<Resource>>,
    /// What the API holds beside what their authors wrote, by uid.
    pub told: BTreeMap<String, Arc<Told>>,
    /// Nodes, by name.
    pub nodes: BTreeMap<String, Arc<Node>>,
    /// What agents show of their nodes, by name.
    pub datapaths: BTreeMap<String, Arc<Shown>>,
    /// When the agents of nodes were last heard of.
    pub heartbeats: BTreeMap<String, Heartbeat>,
    /// Services that ask to be balanced, by `NAMESPACE/NAME`.
    pub services: BTreeMap<String, Arc<Asked>>,
    /// Where the API servers listen.
    pub api_servers: BTreeSet<IpAddr>,
}

/// What the API holds of a resource beside what its author wrote.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    /// Its status.
    pub status: ResourceStatus,
    /// Whether somebody asked for its deletion.
    pub is_deleting: bool,
    /// The uid of what the operator has made it for: a Service, or a Node.
    pub owner: Option<String>,
    /// What synced it from Git.
    pub tracker: Option<Tracker>,
    /// When something else of it than its status was last written.
    pub written_at: Option<Timestamp>,
}

/// A node.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its uid.
    pub uid: String,
    /// Its labels.
    pub labels: Labels,
    /// Their digest.
    pub labels_digest: Digest,
    /// Whether the cluster holds it for dead: its condition Ready is False or Unknown. A node that
    /// never had the condition has no kubelet, and is not held for dead.
    pub is_down: bool,
    /// Whether the agents' DaemonSet covers it; `None` where there is no DaemonSet to ask: then a
    /// node that has shown something is meant to run an agent.
    pub is_covered: Option<bool>,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// Addresses of the node.
    pub addresses: Vec<IpAddr>,
    /// Its pods' networks.
    pub pod_cidrs: Vec<IpNet>,
    /// The first of its addresses that it calls InternalIP.
    pub internal_ip: Option<IpAddr>,
}

/// What an agent shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// The uid of the object.
    pub uid: String,
    /// The uid of the node that owns the object.
    pub owner: String,
    /// Digest of what the node's revision was compiled from.
    pub inputs: Option<Digest>,
    /// Why the node as a whole is not Ready, where it is not: reason and message.
    pub not_ready: Option<(String, String)>,
    /// Whether a step of the node's failed: then its digest vouches for nothing.
    pub has_failed: bool,
    /// Resources that are not in effect as written.
    pub exceptions: Vec<Exception>,
}

/// [`ResourceException`], comparable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exception {
    /// The kind of resource.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Whether the present generation is not in effect at all.
    pub is_stalled: bool,
    /// Whether it is about an interface that does not enforce what it should: that is so now,
    /// whatever the generation.
    pub is_of_interface: bool,
    /// Why, in one word.
    pub reason: String,
    /// Why, in a sentence.
    pub message: String,
}

impl From<ResourceException> for Exception {
    fn from(exception: ResourceException) -> Self {
        Self {
            is_stalled: exception.severity == "Stalled",
            is_of_interface: false,
            kind: exception.kind,
            name: exception.name,
            reason: exception.reason,
            message: exception.message,
        }
    }
}

/// An agent's Lease. Whether it is still renewed is judged by this machine's clock alone: those of
/// the nodes may differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// What the Lease says; any change of it is a sign of life.
    pub renewed: String,
    /// When that change was seen.
    pub seen: Instant,
    /// How long it is good for.
    pub lasts: Duration,
}

impl Heartbeat {
    /// Whether the agent was alive then.
    #[must_use]
    pub fn is_alive(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.seen) < self.lasts
    }
}

impl Node {
    /// A node with these labels, up and without networks.
    #[must_use]
    pub fn with_labels(uid: impl Into<String>, labels: Labels) -> Self {
        Self {
            uid: uid.into(),
            labels_digest: labels_digest(&labels),
            labels,
            is_down: false,
            is_covered: None,
            taints: Vec::new(),
            addresses: Vec::new(),
            pod_cidrs: Vec::new(),
            internal_ip: None,
        }
    }
}

impl Fleet {
    /// The resources, made ready to be asked what concerns a node.
    #[must_use]
    pub fn catalog(&self) -> Catalog {
        Catalog::of(self.resources.values().map(|resource| Entry {
            kind: resource.kind,
            name: &resource.name,
            uid: &resource.uid,
            generation: resource.generation,
            written: Digest::from_bytes(resource.written),
            content: resource.content.as_ref().ok(),
        }))
    }

    /// Whether an agent is alive on the node.
    #[must_use]
    pub fn has_agent(&self, node: &str, now: Instant) -> bool {
        let heartbeat = self.heartbeats.get(node);
        heartbeat.is_some_and(|heartbeat| heartbeat.is_alive(now))
    }
}
