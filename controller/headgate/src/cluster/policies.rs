//! Where each policy of the cluster is in force.

use std::collections::BTreeMap;

use headgate_agent::resources::Resources;
use headgate_compile::{
    inputs::inputs_digest,
    memory::Memory,
    snapshot::{Content, Snapshot, Submitted},
};
use headgate_crds::{Kind, ResourceException, SourceRevision};
use headgate_source::{
    Reading,
    kubernetes::{api_of, list_once},
};
use kube::{
    Client, ResourceExt as _,
    api::{DynamicObject, ListParams},
};
use serde::Serialize;

use super::nodes::{NodeView, nodes};

/// How a policy stands on a node that it selects, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) enum Standing {
    /// The node's agent has read this very generation back from the kernel.
    Enforced,
    /// The node has not shown it yet.
    Pending,
    /// The agent lists an exception for it.
    Excepted,
    /// No agent of the node is alive to say.
    Unknown,
}

/// A policy on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct OnNode {
    pub(crate) node: String,
    pub(crate) standing: Standing,
    pub(crate) message: String,
}

/// A policy on the nodes that it selects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PolicyOnNodes {
    pub(crate) name: String,
    pub(crate) generation: u64,
    /// Absent where the object is refused by what it says.
    pub(crate) priority: Option<u16>,
    pub(crate) default_action: Option<String>,
    pub(crate) rules: Vec<String>,
    /// The commit that this generation came from, where the operator tells it.
    pub(crate) commit: Option<String>,
    pub(crate) nodes: Vec<OnNode>,
}

impl PolicyOnNodes {
    /// The worst of all nodes.
    pub(crate) fn standing(&self) -> Option<Standing> {
        self.nodes.iter().map(|node| node.standing).max()
    }

    /// Nodes on which it is enforced.
    pub(crate) fn enforced(&self) -> usize {
        let enforced = |node: &&OnNode| node.standing == Standing::Enforced;
        self.nodes.iter().filter(enforced).count()
    }
}

/// All policies, by name.
pub(crate) async fn policies(
    client: Client,
    namespace: &str,
) -> Result<Vec<PolicyOnNodes>, kube::Error> {
    // Nodes first: what they show can only be older than the resources that it is compared with.
    let nodes = nodes(&client, namespace).await?;
    let listing = list_once(&client, Content::from).await?;
    let resources = Resources::new(&Reading::Complete(listing), &Memory::default());
    let mut policies = of(&resources.snapshot, &nodes);
    let sources = sources(&client).await?;
    for policy in &mut policies {
        let generation = i64::try_from(policy.generation).ok();
        let source = sources.get(&policy.name);
        let source = source.filter(|source| Some(source.generation) == generation);
        policy.commit = source.map(|source| source.revision.clone());
    }
    Ok(policies)
}

/// Where in Git the policies came from, by name.
async fn sources(client: &Client) -> Result<BTreeMap<String, SourceRevision>, kube::Error> {
    let api = api_of(client, Kind::XdpPolicy);
    let policies = api.list(&ListParams::default()).await?;
    let source = |policy: DynamicObject| {
        let source = policy.data["status"]["source"].clone();
        Some((policy.name_any(), serde_json::from_value(source).ok()?))
    };
    Ok(policies.into_iter().filter_map(source).collect())
}

fn of(snapshot: &Snapshot, nodes: &[NodeView]) -> Vec<PolicyOnNodes> {
    let shows_all: Vec<bool> = nodes
        .iter()
        .map(|node| {
            let digest = inputs_digest(snapshot, &node.labels).map(|digest| digest.to_string());
            digest.is_some() && digest == node.inputs_digest
        })
        .collect();
    let is_policy = |submitted: &&Submitted| submitted.name.kind == Kind::XdpPolicy.as_str();
    let mut policies: Vec<PolicyOnNodes> = snapshot
        .submitted
        .iter()
        .filter(is_policy)
        .map(|policy| {
            let selected = nodes.iter().zip(&shows_all);
            let selected = selected.filter(|(node, _)| selects(policy, node));
            view(
                policy,
                selected
                    .map(|(node, all)| on_node(policy, node, *all))
                    .collect(),
            )
        })
        .collect();
    policies.sort_by(|a, b| (a.priority, &a.name).cmp(&(b.priority, &b.name)));
    policies
}

fn selects(policy: &Submitted, node: &NodeView) -> bool {
    match &policy.content {
        Ok(Content::Policy(spec)) => {
            let selector = spec.node_selector.as_ref();
            selector.is_none_or(|selector| selector.matches(&node.labels))
        }
        Ok(_) => false,
        Err(_) => {
            let of_policy =
                |e: &ResourceException| e.kind == policy.name.kind && e.name == policy.name.name;
            node.exceptions.iter().any(of_policy)
        }
    }
}

fn on_node(policy: &Submitted, node: &NodeView, shows_all: bool) -> OnNode {
    let mut exceptions = node.exceptions.iter();
    let exception = exceptions.find(|e| e.kind == policy.name.kind && e.name == policy.name.name);
    let (standing, message) = if node.ready.is_none() || node.agent_alive != Some(true) {
        (Standing::Unknown, "no agent is alive there".to_owned())
    } else if let Some(exception) = exception {
        (Standing::Excepted, exception.message.clone())
    } else if let Some(interface) = node.interfaces.iter().find(|i| !i.enforced) {
        let reason = interface.reason.clone().unwrap_or_default();
        (Standing::Pending, format!("{}: {reason}", interface.name))
    } else if shows_all {
        (Standing::Enforced, String::new())
    } else {
        (
            Standing::Pending,
            "the node has not shown the present resources yet".to_owned(),
        )
    };
    OnNode {
        node: node.name.clone(),
        standing,
        message,
    }
}

fn view(policy: &Submitted, nodes: Vec<OnNode>) -> PolicyOnNodes {
    let spec = match &policy.content {
        Ok(Content::Policy(spec)) => Some(spec),
        _ => None,
    };
    let rules = spec.iter().flat_map(|spec| &spec.rules);
    PolicyOnNodes {
        name: policy.name.name.clone(),
        generation: policy.generation.unwrap_or_default(),
        priority: spec.map(|spec| spec.priority),
        default_action: spec.map(|spec| format!("{:?}", spec.default_action)),
        rules: rules.map(|rule| rule.name.clone()).collect(),
        commit: None,
        nodes,
    }
}
