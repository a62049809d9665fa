//! Addresses of pods, joined with the programs on their interfaces.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use headgate_datapath::{
    pods::{self, Mapped, Way},
    state::Ifindex,
};
use headgate_kernel::pods::{AttachedProgram, neighbourhood, programs};
use serde::Serialize;

use crate::outcome::CliError;

/// An address of a pod.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodView {
    pub(super) address: IpAddr,
    /// Absent where it is not known.
    pub(super) place: Option<PlaceView>,
    /// Why it is not known.
    pub(super) reason: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PlaceView {
    /// The node's end of the pod's veth pair.
    pub(super) interface: String,
    pub(super) ifindex: u32,
    /// The pod's end, by its number in the pod's network namespace.
    pub(super) peer_ifindex: Option<u32>,
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

/// All that the kernel shows.
pub(super) fn all() -> Result<Vec<PodView>, CliError> {
    let facts = neighbourhood()?;
    joined(pods::pods(&facts))
}

/// One address, whosever it is.
pub(super) fn one(address: IpAddr) -> Result<PodView, CliError> {
    let facts = neighbourhood()?;
    let known = [(address, pods::place(&facts, address))];
    let mut views = joined(known.into())?;
    Ok(views.remove(0))
}

fn joined(known: BTreeMap<IpAddr, Mapped>) -> Result<Vec<PodView>, CliError> {
    let places = known.values().filter_map(|mapped| mapped.as_ref().ok());
    let interfaces = places.map(|place| (place.ifindex, place.interface.clone()));
    let programs = programs(&interfaces.collect())?;
    let views = known
        .into_iter()
        .map(|(address, mapped)| view(address, mapped, &programs));
    Ok(views.collect())
}

fn view(
    address: IpAddr,
    mapped: Mapped,
    programs: &BTreeMap<Ifindex, BTreeSet<AttachedProgram>>,
) -> PodView {
    let place = match mapped {
        Ok(place) => place,
        Err(reason) => {
            return PodView {
                address,
                place: None,
                reason: Some(reason.to_string()),
            };
        }
    };
    let there = programs.get(&place.ifindex).into_iter().flatten();
    let (way, bridge) = match place.way {
        Way::PointToPoint => ("PointToPoint", None),
        Way::Bridge(bridge) => ("Bridge", Some(bridge)),
    };
    PodView {
        address,
        place: Some(PlaceView {
            interface: place.interface,
            ifindex: place.ifindex.0,
            peer_ifindex: place.peer.map(|peer| peer.0),
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
        }),
        reason: None,
    }
}
