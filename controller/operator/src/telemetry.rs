//! What the operator tells Prometheus and kubelet.

use std::{collections::BTreeMap, fmt, sync::Arc};

use headgate_telemetry::{Collector, DescriptorEncoder, Probes, gauges};
use tokio::sync::watch;

use crate::fleet::{Fleet, Resource, Told};

/// The metrics of a replica: every replica tells the same of the resources.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) fleet: watch::Receiver<Arc<Fleet>>,
    pub(crate) is_leader: watch::Receiver<bool>,
}

impl Collector for Metrics {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let fleet = Arc::clone(&self.fleet.borrow());
        let help = "Nodes that the resource selects, by how it stands on them.";
        let nodes = told(&fleet).flat_map(|(resource, told)| {
            let counts = told.status.nodes.unwrap_or_default();
            let states = [
                ("live", counts.live),
                ("pending", counts.pending),
                ("failing", counts.failing),
                ("unreachable", counts.unreachable),
            ];
            states.map(|(state, number)| {
                let mut labels = labels(resource);
                labels.push(("state", state));
                (labels, u64::from(number))
            })
        });
        gauges(&mut to, "resource_nodes", help, nodes)?;
        let help = "Whether the resource's condition is True.";
        let conditions = told(&fleet).flat_map(|(resource, told)| {
            told.status.conditions.iter().map(|condition| {
                let mut labels = labels(resource);
                labels.push(("condition", condition.type_.as_str()));
                (labels, u64::from(condition.status == "True"))
            })
        });
        gauges(&mut to, "resource_condition", help, conditions)?;
        let mut states: BTreeMap<&str, u64> = [("up", 0), ("down", 0)].into();
        for node in fleet.nodes.values() {
            *states
                .entry(if node.is_down { "down" } else { "up" })
                .or_default() += 1;
        }
        let nodes = states
            .into_iter()
            .map(|(state, number)| (vec![("state", state)], number));
        gauges(&mut to, "nodes", "Nodes of the cluster.", nodes)?;
        let leads = u64::from(*self.is_leader.borrow());
        let help = "Whether this replica leads.";
        gauges(&mut to, "operator_leader", help, [(vec![], leads)])
    }
}

fn told(fleet: &Fleet) -> impl Iterator<Item = (&Resource, &Told)> {
    let resources = fleet.resources.iter();
    resources.filter_map(|(uid, resource)| Some((&**resource, &**fleet.told.get(uid)?)))
}

fn labels(resource: &Resource) -> headgate_telemetry::Labels<'_> {
    vec![("kind", resource.kind.as_str()), ("name", &resource.name)]
}

/// A replica is ready once it knows the cluster: the warnings of admission depend on it.
pub(crate) struct Health {
    pub(crate) fleet: watch::Receiver<Arc<Fleet>>,
}

impl Probes for Health {
    /// It ends by itself where it cannot go on.
    fn stuck(&self) -> Option<String> {
        None
    }

    fn unready(&self) -> Option<String> {
        let is_known = self.fleet.borrow().is_known;
        (!is_known).then(|| "the cluster's resources have not been heard of yet".to_owned())
    }
}
