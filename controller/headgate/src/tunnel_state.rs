//! Whether the tunnel is as its peers say, by what is observed now.

use std::collections::BTreeMap;

use headgate_agent::report::{PortStatus, Report};
use headgate_compile::compilation::PeerSummary;
use headgate_datapath::tunnel::ObservedTunnel;
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
        Some(live) if live == tunnel.wanted => (State::Enforced, None),
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

fn diversion(peer: &PeerSummary, tunnel: &ObservedTunnel) -> Option<String> {
    let is_joined = peer.effective.is_some() && !peer.is_own;
    let networks = peer.prefixes().map(|(_, prefix)| prefix);
    tunnel.diversion(networks.filter(|_| is_joined))
}
