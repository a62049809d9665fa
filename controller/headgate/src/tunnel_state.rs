//! Whether the tunnel is as its peers say, by what is observed now.

use std::collections::BTreeMap;

use headgate_agent::{
    native,
    report::{PortStatus, Report},
};
use headgate_compile::compilation::PeerSummary;
use headgate_datapath::tunnel::ObservedTunnel;
use headgate_kernel::tunnel::stack_in_use;
use serde::Serialize;

use crate::{enforcement::State, live::Reading};

/// How the tunnel stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct TunnelState {
    pub(crate) state: State,
    /// Why that is not Enforced.
    pub(crate) reason: Option<String>,
    /// Peers that packets do not get to by the tunnel's routes, with the reason.
    pub(crate) diverted: BTreeMap<String, String>,
}

impl TunnelState {
    pub(crate) fn is_whole(&self) -> bool {
        self.state == State::Enforced && self.diverted.is_empty()
    }
}

/// Nothing where no peer needs a tunnel. The agent's reason is told where it still holds.
pub(crate) fn of(report: &Report, reading: &Reading) -> Option<TunnelState> {
    let tunnel = report.tunnel.as_ref()?;
    let reason = match &tunnel.status {
        PortStatus::Enforced => None,
        PortStatus::Outdated(reason) | PortStatus::NotEnforced(reason) => Some(reason.clone()),
    };
    let observed = &reading.observed.tunnel;
    let (state, reason) = match observed.digest() {
        Some(live) if live == tunnel.wanted => match passed_by(observed) {
            None => (State::Enforced, None),
            passed_by => (State::Outdated, passed_by),
        },
        Some(_) => (State::Outdated, reason),
        None => (State::NotEnforced, reason),
    };
    let peers = report.peers.iter();
    let diverted = peers.filter_map(|peer| Some((peer.name.clone(), diversion(peer, observed)?)));
    Some(TunnelState {
        state,
        reason,
        diverted: diverted.collect(),
    })
}

/// What direct delivery passes by although it should not, where no agent runs that would end it.
fn passed_by(tunnel: &ObservedTunnel) -> Option<String> {
    if tunnel.pods.is_empty() {
        return None;
    }
    // What cannot be read is the agent's to tell.
    let user = stack_in_use().ok().flatten()?;
    Some(format!(
        "{user}, and packets to pods are given to them directly, past it; the agent ends that when it runs"
    ))
}

fn diversion(peer: &PeerSummary, tunnel: &ObservedTunnel) -> Option<String> {
    let networks = peer.prefixes().map(|(_, prefix)| prefix);
    tunnel.diversion(networks.filter(|_| peer.is_joined()))
}

/// Native peers that plain routes do not lead to as they should, with the reason.
pub(crate) fn all_unrouted(report: &Report, reading: &Reading) -> BTreeMap<String, String> {
    let peers = report.peers.iter();
    let peers = peers.filter(|peer| report.native.contains_key(&peer.name));
    let unrouted = peers.filter_map(|peer| {
        let reason = unrouted(peer, report, reading)?;
        Some((peer.name.clone(), reason))
    });
    unrouted.collect()
}

/// Why plain routes do not lead to a Native peer. What the agent has tried says more than what is missing.
pub(crate) fn unrouted(peer: &PeerSummary, report: &Report, reading: &Reading) -> Option<String> {
    let missing = native::amiss(peer, &reading.observed.native)?;
    match report.native.get(&peer.name) {
        Some(PortStatus::Outdated(reason) | PortStatus::NotEnforced(reason)) => {
            Some(reason.clone())
        }
        _ => Some(missing),
    }
}
