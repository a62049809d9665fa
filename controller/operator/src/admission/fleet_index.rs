//! What warnings know of the cluster, made ready when it changes and not when a review waits.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    net::IpAddr,
    sync::Arc,
};

use headgate_compile::{
    inputs::Labels,
    services::{self, Claim},
    snapshot::Content,
};
use headgate_crds::{AddressPoolSpec, Kind, LabelSelector, PolicyRule, XdpPolicySpec};
use tokio::sync::watch;

use crate::fleet::Fleet;

/// Nodes and resources, for look-ups.
#[derive(Debug, Default)]
pub struct FleetIndex {
    nodes: usize,
    /// Labels of nodes, those of several nodes once.
    node_labels: BTreeSet<Labels>,
    /// Labels of the groups by their names; of those that are refused, none.
    groups: BTreeMap<String, Labels>,
    pools: Vec<Arc<AddressPoolSpec>>,
    /// What services want, and which.
    served: BTreeMap<Claim, BTreeSet<String>>,
    /// Networks of peers of the tunnel, and which peers want them.
    networks: BTreeMap<String, BTreeSet<String>>,
    /// Policies that leave nothing to those after them, in the order in which they are read.
    decisive: Vec<Decisive>,
}

/// A policy with a rule that every packet matches.
#[derive(Debug)]
pub(super) struct Decisive {
    /// Its place among the policies.
    pub(super) place: (u16, String),
    /// That rule.
    pub(super) rule: String,
    spec: Arc<XdpPolicySpec>,
}

impl FleetIndex {
    /// Of this fleet.
    #[must_use]
    pub fn of(fleet: &Fleet) -> Self {
        let mut index = Self {
            nodes: fleet.nodes.len(),
            node_labels: fleet.nodes.values().map(|n| n.labels.clone()).collect(),
            ..Self::default()
        };
        for resource in fleet.resources.values() {
            match &resource.content {
                Ok(Content::Group(group)) => {
                    let labels = group.labels.clone();
                    index.groups.insert(resource.name.clone(), labels);
                }
                Ok(Content::Policy(spec)) => index.add_policy(&resource.name, spec),
                Err(_) if resource.kind == Kind::CidrGroup => {
                    index.groups.insert(resource.name.clone(), Labels::new());
                }
                Ok(Content::Pool(pool)) => {
                    index.pools.push(Arc::clone(pool));
                }
                Ok(Content::Service(service)) => {
                    for claim in services::claims(&service.spec) {
                        let names = index.served.entry(claim).or_default();
                        names.insert(resource.name.clone());
                    }
                }
                Ok(Content::Peer(peer)) => {
                    for network in peer.spec.networks() {
                        let names = index.networks.entry(network.to_string()).or_default();
                        names.insert(resource.name.clone());
                    }
                }
                Err(_) => {}
            }
        }
        index.decisive.sort_by(|a, b| a.place.cmp(&b.place));
        index
    }

    fn add_policy(&mut self, name: &str, spec: &Arc<XdpPolicySpec>) {
        if let Some(rule) = spec.rules.iter().find(|rule| matches_all(rule)) {
            self.decisive.push(Decisive {
                place: (spec.priority, name.to_owned()),
                rule: rule.name.clone(),
                spec: Arc::clone(spec),
            });
        }
    }

    /// Whether anything is known: a cluster has nodes.
    pub(super) fn is_known(&self) -> bool {
        self.nodes > 0
    }

    /// How many nodes there are.
    pub(super) fn nodes(&self) -> usize {
        self.nodes
    }

    /// Whether there is a group of this name.
    pub(super) fn has_group(&self, name: &str) -> bool {
        self.groups.contains_key(name)
    }

    /// Whether a group is selected.
    pub(super) fn selects_a_group(&self, selector: &LabelSelector) -> bool {
        self.groups.values().any(|labels| selector.matches(labels))
    }

    /// Whether a pool admits the service `name`, given as `NAMESPACE/NAME`, to `address`.
    pub(super) fn admits(&self, name: &str, address: IpAddr) -> bool {
        let mut pools = self.pools.iter();
        pools.any(|pool| services::admits(pool, name, address))
    }

    /// A service other than `name` that wants this as well.
    pub(super) fn rival(&self, claim: &Claim, name: &str) -> Option<&String> {
        let mut names = self.served.get(claim)?.iter();
        names.find(|other| *other != name)
    }

    /// A peer other than `name` that wants this network as well.
    pub(super) fn rival_for(&self, network: &str, name: &str) -> Option<&String> {
        let mut names = self.networks.get(network)?.iter();
        names.find(|other| *other != name)
    }

    /// Whether a node is selected.
    pub(super) fn selects_a_node(&self, selector: &LabelSelector) -> bool {
        let mut labels = self.node_labels.iter();
        labels.any(|labels| selector.matches(labels))
    }

    /// A policy before the one of this name that decides all that it would see, wherever it is in
    /// effect: on the same interfaces, and on every node or by the same selector.
    pub(super) fn decided_before(&self, name: &str, spec: &XdpPolicySpec) -> Option<&Decisive> {
        let place = (spec.priority, name);
        let mut before = self
            .decisive
            .iter()
            .take_while(|other| (other.place.0, other.place.1.as_str()) < place);
        before.find(|other| {
            let selector = &other.spec.node_selector;
            let covers = |interface| other.spec.interfaces.contains(interface);
            (selector.is_none() || *selector == spec.node_selector)
                && spec.interfaces.iter().all(covers)
        })
    }
}

/// Whether every packet that a policy sees matches the rule.
pub(super) fn matches_all(rule: &PolicyRule) -> bool {
    let PolicyRule {
        name: _,
        action: _,
        from: None,
        to: None,
        protocols: None,
        fragments: None,
    } = rule
    else {
        return false;
    };
    true
}

/// Keeps the index up with the fleet, for ever.
pub(super) async fn follow(
    mut fleet: watch::Receiver<Arc<Fleet>>,
    index: &watch::Sender<Arc<FleetIndex>>,
) -> Infallible {
    loop {
        let now = Arc::clone(&fleet.borrow_and_update());
        index.send_replace(Arc::new(FleetIndex::of(&now)));
        if fleet.changed().await.is_err() {
            // Nobody keeps the fleet any more: what was last known holds.
            std::future::pending::<()>().await;
        }
    }
}
