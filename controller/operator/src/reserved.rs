//! CidrGroups that the operator keeps from the cluster itself: its nodes, its API servers, and the
//! networks of its pods.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    net::IpAddr,
    sync::Arc,
};

use headgate_compile::{addresses::AddressSet, snapshot::Content};
use headgate_crds::{API_VERSION, CidrGroup, IpNet, Kind};
use headgate_source::kubernetes::explain;
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::{sync::watch, time::sleep};

use crate::{
    FIELD_MANAGER,
    fleet::{Fleet, Resource},
    turns::{PAUSE, Turns},
};

/// The label of these groups; its value is the group's name without a number.
pub const LABEL: &str = "headgate.dev/reserved";
/// What one object takes; more are several that share the label.
const MOST: usize = 5_000;
/// A group as it is to be: its label's value and its networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Value of the label.
    pub label: &'static str,
    /// Its networks.
    pub cidrs: Vec<IpNet>,
}

/// The groups that there are to be, by name.
#[must_use]
pub fn wanted(fleet: &Fleet) -> BTreeMap<String, Wanted> {
    let nodes = || fleet.nodes.values();
    let hosts = |addresses: BTreeSet<IpAddr>| addresses.into_iter().map(IpNet::from).collect();
    let addresses = nodes().flat_map(|node| node.addresses.iter().copied());
    let all: [(&'static str, BTreeSet<IpNet>); 3] = [
        ("nodes", hosts(addresses.collect())),
        ("api-servers", hosts(fleet.api_servers.clone())),
        (
            "pod-cidrs",
            nodes()
                .flat_map(|node| node.pod_cidrs.iter().copied())
                .collect(),
        ),
    ];
    let mut groups = BTreeMap::new();
    for (label, cidrs) in all {
        let cidrs: Vec<IpNet> = cidrs.into_iter().collect();
        for (number, part) in cidrs.chunks(MOST).enumerate() {
            let name = match number {
                0 => label.to_owned(),
                number => format!("{label}-{}", number + 1),
            };
            let cidrs = part.to_vec();
            groups.insert(name, Wanted { label, cidrs });
        }
    }
    groups
}

/// What has to be done about a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make it so.
    Apply(Wanted),
    /// Remove it.
    Delete,
    /// Somebody has made a group of a name that is reserved: leave it alone, and say so.
    Refuse,
}

/// The steps from what there is to what there is to be, by name.
#[must_use]
pub fn plan(fleet: &Fleet) -> BTreeMap<String, Step> {
    let mut wanted = wanted(fleet);
    let mut steps = BTreeMap::new();
    let groups = fleet.resources.values();
    for resource in groups.filter(|resource| resource.kind == Kind::CidrGroup) {
        let next = wanted.remove(&resource.name);
        if let Some(step) = step(resource, next) {
            steps.insert(resource.name.clone(), step);
        }
    }
    let new = wanted.into_iter();
    steps.extend(new.map(|(name, wanted)| (name, Step::Apply(wanted))));
    steps
}

fn step(resource: &Resource, wanted: Option<Wanted>) -> Option<Step> {
    let Ok(Content::Group(group)) = &resource.content else {
        return wanted.map(|_| Step::Refuse);
    };
    match (group.labels.contains_key(LABEL), wanted) {
        (true, None) => Some(Step::Delete),
        (false, None) => None,
        (false, Some(_)) => Some(Step::Refuse),
        (true, Some(wanted)) => {
            let addresses = AddressSet::from_networks(wanted.cidrs.iter().copied());
            let label = group.labels.get(LABEL).map(String::as_str);
            let is_so = group.addresses == addresses && label == Some(wanted.label);
            (!is_so).then_some(Step::Apply(wanted))
        }
    }
}

/// Keeps them so while this replica leads.
pub(crate) async fn keep(
    client: Client,
    fleet: watch::Receiver<Arc<Fleet>>,
    is_leader: watch::Receiver<bool>,
) -> Infallible {
    let api: Api<CidrGroup> = Api::all(client);
    let mut turns = Turns::new(fleet, is_leader);
    let mut refused: BTreeSet<String> = BTreeSet::new();
    loop {
        let Some(now) = turns.next().await else {
            continue;
        };
        let steps = plan(&now);
        refused.retain(|name| steps.get(name) == Some(&Step::Refuse));
        for (name, step) in steps {
            match carry_out(&api, &name, &step).await {
                Ok(()) if step == Step::Refuse && refused.insert(name.clone()) => tracing::warn!(
                    "the CidrGroup {name} is not the operator's, and its name is reserved: rename it, and the operator makes its own"
                ),
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!("the CidrGroup {name}: {}", explain(&error));
                    // A webhook or an API that does not answer is not asked at every change.
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

async fn carry_out(api: &Api<CidrGroup>, name: &str, step: &Step) -> Result<(), kube::Error> {
    match step {
        Step::Refuse => {}
        Step::Delete => {
            api.delete(name, &DeleteParams::default()).await?;
        }
        Step::Apply(wanted) => {
            let cidrs: Vec<String> = wanted.cidrs.iter().map(ToString::to_string).collect();
            let object = json!({
                "apiVersion": API_VERSION,
                "kind": "CidrGroup",
                "metadata": {"name": name, "labels": {LABEL: wanted.label}},
                "spec": {"cidrs": cidrs},
            });
            let params = PatchParams::apply(FIELD_MANAGER).force();
            api.patch(name, &params, &Patch::Apply(&object)).await?;
        }
    }
    Ok(())
}
