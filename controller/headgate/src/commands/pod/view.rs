//! Addresses of pods with whose they are, joined with the programs on their interfaces.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use headgate_datapath::{
    pods::{Place, Way},
    state::Ifindex,
};
use headgate_kernel::pods::{AttachedProgram, programs};
use headgate_source::kubernetes::LocalPod;
use serde::Serialize;

use super::names::{Owner, Row};
use crate::outcome::CliError;

/// An address of a pod.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodView {
    /// The Pod of the API.
    pub(super) pod: Option<NameView>,
    /// Whether names are known and this is no Pod's.
    pub(super) is_not_in_api: bool,
    /// Absent where the Pod has none yet.
    pub(super) address: Option<IpAddr>,
    /// Absent where it is not known.
    pub(super) place: Option<PlaceView>,
    /// Why it is not known.
    pub(super) reason: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NameView {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PlaceView {
    /// The node's end of the pod's veth pair.
    pub(super) interface: String,
    pub(super) ifindex: u32,
    /// The pod's end, by its number in the pod's network namespace.
    pub(super) peer_ifindex: Option<u32>,
    /// Of the node's end.
    pub(super) mtu: u32,
    /// `PointToPoint` or `Bridge`.
    pub(super) way: &'static str,
    /// The bridge.
    pub(super) bridge: Option<String>,
    /// The pod's link-layer address, where the node knows it.
    pub(super) mac: Option<String>,
    pub(super) programs: Vec<ProgramView>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProgramView {
    pub(super) hook: &'static str,
    pub(super) name: String,
    pub(super) id: u32,
}

impl PodView {
    /// Whose it is, in a word.
    pub(super) fn owner(&self) -> String {
        match &self.pod {
            Some(pod) => format!("{}/{}", pod.namespace, pod.name),
            None if self.is_not_in_api => "not in the API".to_owned(),
            None => String::new(),
        }
    }

    pub(super) fn address(&self) -> String {
        self.address.map(|a| a.to_string()).unwrap_or_default()
    }
}

impl From<LocalPod> for NameView {
    fn from(pod: LocalPod) -> Self {
        Self {
            namespace: pod.namespace,
            name: pod.name,
            uid: pod.uid,
        }
    }
}

impl PlaceView {
    pub(super) fn way(&self) -> String {
        match &self.bridge {
            Some(bridge) => format!("bridge {bridge}"),
            None => "point to point".to_owned(),
        }
    }
}

impl ProgramView {
    pub(super) fn line(&self) -> String {
        format!("{}: {} (id {})", self.hook, self.name, self.id)
    }
}

/// These, with the programs at their interfaces.
pub(super) fn views(rows: Vec<Row>) -> Result<Vec<PodView>, CliError> {
    let places = rows
        .iter()
        .filter_map(|row| row.mapped.as_ref()?.as_ref().ok());
    let interfaces = places.map(|place| (place.ifindex, place.interface.clone()));
    let programs = programs(&interfaces.collect())?;
    Ok(rows.into_iter().map(|row| view(row, &programs)).collect())
}

fn view(row: Row, programs: &BTreeMap<Ifindex, BTreeSet<AttachedProgram>>) -> PodView {
    let is_not_in_api = row.owner == Owner::NotInApi;
    let (place, reason) = match row.mapped {
        Some(Ok(place)) => (Some(place), None),
        Some(Err(reason)) => (None, Some(reason.to_string())),
        None => (None, Some("the Pod has no address yet".to_owned())),
    };
    PodView {
        pod: match row.owner {
            Owner::Pod(pod) => Some(pod.into()),
            Owner::NotInApi | Owner::Unknown => None,
        },
        is_not_in_api,
        address: row.address,
        place: place.map(|place| place_view(place, programs)),
        reason,
    }
}

fn place_view(place: Place, programs: &BTreeMap<Ifindex, BTreeSet<AttachedProgram>>) -> PlaceView {
    let there = programs.get(&place.ifindex).into_iter().flatten();
    let (way, bridge) = match place.way {
        Way::PointToPoint => ("PointToPoint", None),
        Way::Bridge(bridge) => ("Bridge", Some(bridge)),
    };
    PlaceView {
        interface: place.interface,
        ifindex: place.ifindex.0,
        peer_ifindex: place.peer.map(|peer| peer.0),
        mtu: place.mtu,
        way,
        bridge,
        mac: place.mac.map(|mac| mac.to_string()),
        programs: there
            .map(|program| ProgramView {
                hook: program.hook,
                name: program.name.clone(),
                id: program.id,
            })
            .collect(),
    }
}
