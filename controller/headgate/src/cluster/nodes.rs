//! What each node says of itself.

use std::collections::BTreeMap;

use headgate_crds::{InterfaceDatapath, NodeDatapath, NodeDatapathStatus, ResourceException};
use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1::Node},
    jiff::{SignedDuration, Timestamp},
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, PartialObjectMeta},
};
use serde::Serialize;

/// One node.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeView {
    pub(crate) name: String,
    #[serde(skip)]
    pub(crate) labels: BTreeMap<String, String>,
    /// Whether its agent has renewed its Lease in time; absent where no agent ever did.
    pub(crate) agent_alive: Option<bool>,
    /// Whether its NodeDatapath is Ready; absent where there is none.
    pub(crate) ready: Option<bool>,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) revision: Option<String>,
    pub(crate) inputs_digest: Option<String>,
    pub(crate) interfaces: Vec<InterfaceDatapath>,
    pub(crate) exceptions: Vec<ResourceException>,
}

impl NodeView {
    fn new(name: String, labels: BTreeMap<String, String>) -> Self {
        Self {
            name,
            labels,
            agent_alive: None,
            ready: None,
            reason: "NoAgent".to_owned(),
            message: "no agent has reported".to_owned(),
            revision: None,
            inputs_digest: None,
            interfaces: Vec::new(),
            exceptions: Vec::new(),
        }
    }

    fn take(&mut self, status: NodeDatapathStatus) {
        let mut conditions = status.conditions.into_iter();
        if let Some(ready) = conditions.find(|condition| condition.type_ == "Ready") {
            self.ready = Some(ready.status == "True");
            self.reason = ready.reason;
            self.message = ready.message;
        }
        self.revision = status.revision;
        self.inputs_digest = status.inputs_digest;
        self.interfaces = status.interfaces;
        self.exceptions = status.exceptions;
    }

    /// Whether nothing is amiss; a node without an agent is not meant to have one, for all we know.
    pub(crate) fn is_fine(&self) -> bool {
        self.ready != Some(false) && self.agent_alive != Some(false)
    }
}

/// All nodes of the cluster, by name.
pub(crate) async fn nodes(client: &Client, namespace: &str) -> Result<Vec<NodeView>, kube::Error> {
    let all = ListParams::default();
    let nodes: Api<PartialObjectMeta<Node>> = Api::all(client.clone());
    let mut views: BTreeMap<String, NodeView> = BTreeMap::new();
    for node in nodes.list(&all).await? {
        let labels = node.metadata.labels.clone().unwrap_or_default();
        views.insert(node.name_any(), NodeView::new(node.name_any(), labels));
    }
    let datapaths: Api<NodeDatapath> = Api::all(client.clone());
    for datapath in datapaths.list(&all).await? {
        let name = datapath.name_any();
        let view = views
            .entry(name.clone())
            .or_insert_with(|| NodeView::new(name, BTreeMap::new()));
        view.take(datapath.status.unwrap_or_default());
    }
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let now = Timestamp::now();
    for lease in leases.list(&all).await? {
        if let Some(view) = views.get_mut(&lease.name_any()) {
            view.agent_alive = is_alive(&lease, now);
        }
    }
    Ok(views.into_values().collect())
}

fn is_alive(lease: &Lease, now: Timestamp) -> Option<bool> {
    let spec = lease.spec.as_ref()?;
    let renewed = spec.renew_time.as_ref()?.0;
    let duration = SignedDuration::from_secs(spec.lease_duration_seconds?.into());
    Some(now.duration_since(renewed) < duration)
}
