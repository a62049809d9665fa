//! Peers, joined with what is in force and counted.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use headgate_agent::{
    reachability::{Reach, Reachability},
    report::Report,
};
use headgate_compile::{
    compilation::PeerSummary,
    finding::{Finding, FindingReason},
};
use headgate_crds::{Kind, TunnelMode, parse_cidr};
use headgate_datapath::{failsafe::Prefix, state::Ifindex, tunnel::DEVICE};
use serde::Serialize;

use crate::{
    arguments::InstanceArguments,
    enforcement::State,
    live::{Live, Reading},
    outcome::CliError,
    resource_state::{InterfaceView, ResourceState, findings_of, state},
    tunnel_state::{self, TunnelState},
};

/// The tunnel of a node.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TunnelView {
    /// Absent where no peer needs one.
    pub(super) device: Option<DeviceView>,
    pub(super) peers: Vec<PeerView>,
    /// Pods that packets are given to directly, with the numbers of their interfaces.
    pub(super) pods: BTreeMap<IpAddr, Ifindex>,
    /// What became of packets, as far as there were any.
    pub(super) counters: Vec<CounterView>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceView {
    pub(super) name: String,
    pub(super) port: u16,
    pub(super) mtu: u32,
    pub(super) mac: String,
    pub(super) state: State,
    pub(super) reason: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CounterView {
    pub(super) event: &'static str,
    pub(super) dropped: bool,
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PeerView {
    #[serde(flatten)]
    pub(super) summary: PeerSummary,
    pub(super) state: ResourceState,
    /// Why packets do not get to it as they should, where others' do.
    pub(super) diversion: Option<String>,
    /// Routes to its networks, as they are now.
    pub(super) routes: Vec<RouteView>,
    pub(super) findings: Vec<Finding>,
    /// Whether the peer was heard, as the agent found it last; absent where it does not know yet.
    pub(super) reachability: Option<Reachability>,
    /// Seconds since a packet of the tunnel came from it, now; absent where none ever did.
    pub(super) seen_seconds_ago: Option<u64>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RouteView {
    pub(super) network: String,
    pub(super) gateway: IpAddr,
    /// Name of the interface that it leads to.
    pub(super) device: String,
    /// Link-layer address of the gateway.
    pub(super) mac: Option<String>,
    pub(super) source: Option<IpAddr>,
}

impl TunnelView {
    /// What is amiss with the node's own pods, whose peer is easily overlooked among many.
    pub(super) fn oversized(&self) -> impl Iterator<Item = &Finding> {
        let findings = self.peers.iter().flat_map(|peer| &peer.findings);
        findings.filter(|finding| finding.reason == FindingReason::PodMtuTooLarge)
    }
}

impl RouteView {
    /// As `ip route` and `ip neigh` show it.
    pub(super) fn line(&self) -> String {
        let source = self.source.map(|source| format!(" src {source}"));
        let mac = self.mac.as_ref().map(|mac| format!(", at {mac}"));
        format!(
            "{} via {} dev {}{}{}",
            self.network,
            self.gateway,
            self.device,
            source.unwrap_or_default(),
            mac.unwrap_or_default(),
        )
    }
}

impl PeerView {
    /// Length of the longest of its prefixes around an address.
    pub(super) fn prefix_of(&self, address: IpAddr) -> Option<u8> {
        let networks = self.summary.networks.iter();
        let networks = networks.filter_map(|text| parse_cidr(text).ok());
        let around = networks.filter(|network| network.contains(&address));
        around.map(|network| network.prefix_len()).max()
    }

    /// Whether it was heard, in a word.
    pub(super) fn reachable(&self) -> &'static str {
        match self.reachability.as_ref().map(|found| found.state) {
            Some(Reach::Reachable) => "yes",
            Some(Reach::Unreachable) => "no",
            Some(Reach::Unknown) => "unknown",
            None => "",
        }
    }

    /// When a packet of the tunnel came from it last.
    pub(super) fn seen(&self) -> String {
        match self.seen_seconds_ago {
            Some(seconds) => format!("{seconds} s ago"),
            None => String::new(),
        }
    }

    /// Whether packets go to it.
    pub(super) fn is_joined(&self) -> bool {
        self.summary.is_joined()
    }
}

/// The tunnel as it is now.
pub(super) fn read(place: &InstanceArguments) -> Result<TunnelView, CliError> {
    let live = Live::read(place)?;
    let report = live.reading.report(place)?;
    let standing = tunnel_state::of(report, &live.reading);
    let counters = live.kernel.tunnel_counters()?.into_iter();
    let counters = counters.filter(|(_, count)| count.packets > 0);
    let seen = live.kernel.tunnel_seen()?;
    let peers = report
        .peers
        .iter()
        .map(|peer| (peer, seen.get(&peer.endpoint).map(Duration::as_secs)))
        .map(|(peer, seen)| peer_view(seen, peer, report, &live.reading, standing.as_ref()));
    let peers: Vec<PeerView> = peers.collect();
    let device = peers.iter().find_map(|peer| peer.summary.tunnel.as_ref());
    let pods = live.reading.observed.tunnel.pods.iter();
    let pods = pods.map(|(address, pod)| (*address, pod.ifindex));
    Ok(TunnelView {
        device: device.map(|tunnel| DeviceView {
            name: tunnel.device.clone(),
            port: tunnel.port,
            mtu: tunnel.mtu,
            mac: tunnel.mac.clone(),
            state: state_of(standing.as_ref()),
            reason: standing.and_then(|standing| standing.reason),
        }),
        peers,
        pods: pods.collect(),
        counters: counters
            .map(|(event, count)| CounterView {
                event: event.name(),
                dropped: event.drops(),
                packets: count.packets,
                bytes: count.bytes,
            })
            .collect(),
    })
}

fn state_of(standing: Option<&TunnelState>) -> State {
    standing.map_or(State::NotEnforced, |standing| standing.state)
}

fn peer_view(
    seen_seconds_ago: Option<u64>,
    peer: &PeerSummary,
    report: &Report,
    reading: &Reading,
    standing: Option<&TunnelState>,
) -> PeerView {
    let findings = findings_of(report, Kind::TunnelPeer, &peer.name);
    let joined = peer.is_joined();
    let is_native = peer.mode == TunnelMode::Native;
    let diversion = match is_native {
        true => tunnel_state::unrouted(peer, report, reading),
        false => standing.and_then(|standing| standing.diverted.get(&peer.name).cloned()),
    };
    let interface = InterfaceView {
        interface: DEVICE.to_owned(),
        state: match state_of(standing) {
            _ if is_native && (joined || peer.is_own) => match diversion {
                Some(_) => State::Outdated,
                None => State::Enforced,
            },
            // Where there is no other peer, the node itself needs no tunnel.
            _ if standing.is_none() && peer.is_own => State::Enforced,
            State::Enforced if diversion.is_some() => State::Outdated,
            state => state,
        },
        reason: diversion.clone(),
    };
    let routes = peer
        .prefixes()
        .filter_map(|(text, prefix)| route_view(text, &prefix, is_native, reading));
    PeerView {
        state: state(peer.selected, &[interface], &findings),
        routes: routes.filter(|_| joined).collect(),
        diversion,
        findings,
        reachability: report.reachability.get(&peer.name).cloned(),
        seen_seconds_ago: seen_seconds_ago.filter(|_| joined && !is_native),
        summary: peer.clone(),
    }
}

/// The route to a network of a peer, as it is now.
fn route_view(
    text: &str,
    network: &Prefix,
    is_native: bool,
    reading: &Reading,
) -> Option<RouteView> {
    let network_text = text.to_owned();
    if is_native {
        let route = reading.observed.native.routes.get(network)?;
        let device = reading.interfaces.get(&route.ifindex);
        return Some(RouteView {
            network: network_text,
            gateway: route.gateway,
            device: device.cloned().unwrap_or_default(),
            mac: None,
            source: route.source,
        });
    }
    let tunnel = &reading.observed.tunnel;
    let route = tunnel.routes.get(network)?;
    let mac = tunnel.neighbours.get(&route.gateway);
    Some(RouteView {
        network: network_text,
        gateway: route.gateway,
        device: DEVICE.to_owned(),
        mac: mac.map(ToString::to_string),
        source: route.source,
    })
}

/// The one called `name`.
pub(super) fn named(view: TunnelView, name: &str) -> Result<PeerView, CliError> {
    let names: Vec<_> = view.peers.iter().map(|p| p.summary.name.clone()).collect();
    let found = view.peers.into_iter().find(|p| p.summary.name == name);
    found.ok_or_else(|| CliError::no_peer(name, &names))
}
