//! Which peers of the tunnel stand, and what they come to.

mod book;
mod native;
mod pods;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use headgate_crds::{IpNet, LocalDelivery, TunnelPeerSpec, Vxlan, device_address};
use headgate_datapath::{
    failsafe::Prefix,
    native::NativeRoutes,
    state::{Block, DatapathState},
    tunnel::{DEVICE, MacAddress, Neighbours, Pods, Routes, Tunnel, TunnelDevice, TunnelRoute},
};

use self::{
    book::{Behind, Book, Device, networks_by_place},
    native::{is_native, prefix},
};
use super::{
    Compiler,
    fallback::Draft,
    finding,
    summary::{PeerSummary, TunnelSummary},
};
use crate::{
    adopt::{self, Version},
    classifier::TooLarge,
    finding::{Finding, FindingReason, Severity},
    select::{self, Remark},
    snapshot::{Content, JoinedPeer, Uid},
    tunnel::{RemotePeer, gateway, overhead, tables},
};

/// The least that IPv6 asks of a link.
const LEAST_OF_IPV6: u32 = 1_280;

/// The device's MTU where no way to a peer is known.
const USUAL_MTU: u32 = 1_450;

/// What peers come to.
#[derive(Default)]
pub(super) struct Joined {
    pub tunnel: Option<(Tunnel, Block)>,
    pub native: NativeRoutes,
    pub peers: Vec<PeerSummary>,
}

impl Joined {
    pub(super) fn put_into(self, state: &mut DatapathState) -> Vec<PeerSummary> {
        if let Some((tunnel, block)) = self.tunnel {
            state.tunnel = Some(tunnel);
            state.blocks.insert(block.digest(), block);
        }
        state.native_routes = self.native;
        self.peers
    }
}

impl Compiler<'_> {
    /// A peer that contradicts another, or this node, falls back to its last good content. Of two that
    /// contradict each other the node's own stands, else the one in effect, else the older, else the first
    /// by name.
    pub(super) fn fall_back_where_not_joined(&self, draft: &mut Draft) {
        // What nobody has judged for this node must not pass for what was good here.
        draft.versions.retain(|_, version| match &version.content {
            Content::Peer(peer) => select::concerns(peer.spec.node_selector.as_ref(), self.node),
            _ => true,
        });
        let mut book = Book::of(self, &draft.versions);
        for uid in self.peers_by_age(&draft.versions) {
            let Some((version, peer)) = peer_in(&draft.versions, &uid) else {
                continue;
            };
            let Some(remark) = self.objection(&uid, &peer.spec, &book) else {
                book.take(self, &version.name.name, &peer.spec);
                continue;
            };
            let good = self.last_joined(&uid);
            let good = good.filter(|(_, spec)| self.objection(&uid, spec, &book).is_none());
            if let Some((good, spec)) = good {
                book.take(self, &good.name.name, spec);
            }
            let good = good.map(|(good, _)| good);
            let outcome = adopt::outcome(good, self.memory);
            let message = format!("{}; {outcome}", remark.message);
            let remark = Remark { message, ..remark };
            draft.findings.push(finding(&version, remark));
            draft.fall_back(&uid, good);
        }
    }

    fn last_joined(&self, uid: &Uid) -> Option<(&Version, &TunnelPeerSpec)> {
        let good = self.candidates.get(uid)?.last_good.as_ref()?;
        let Content::Peer(peer) = &good.content else {
            return None;
        };
        let concerns = select::concerns(peer.spec.node_selector.as_ref(), self.node);
        concerns.then_some((good, &peer.spec))
    }

    fn peers_by_age(&self, versions: &BTreeMap<Uid, Version>) -> Vec<Uid> {
        let peers = versions.iter().filter_map(|(uid, version)| {
            let Content::Peer(peer) = &version.content else {
                return None;
            };
            let is_other = !self.is_own(&peer.spec);
            let is_new = !self.memory.last_good.contains_key(uid);
            let created = peer.created.unwrap_or(i64::MAX);
            let name = version.name.name.clone();
            Some((is_other, is_new, created, name, uid.clone()))
        });
        let mut peers: Vec<_> = peers.collect();
        peers.sort();
        peers.into_iter().map(|(.., uid)| uid).collect()
    }

    /// Whether the peer is this node.
    fn is_own(&self, spec: &TunnelPeerSpec) -> bool {
        self.node.addresses.contains(&spec.endpoint_address())
    }

    /// Bytes of an inner packet on the way to the peer, where it is by Vxlan and that is known.
    fn inner_mtu(&self, spec: &TunnelPeerSpec) -> Option<u32> {
        spec.vxlan()?;
        let endpoint = spec.endpoint_address();
        let underlay = self.node.underlays.get(&endpoint)?;
        Some(underlay.mtu.saturating_sub(overhead(endpoint)))
    }

    /// Why this content of a peer cannot be in effect here.
    fn objection(&self, uid: &Uid, spec: &TunnelPeerSpec, book: &Book) -> Option<Remark> {
        if let Some(remark) = self.not_on_link(spec) {
            return Some(remark);
        }
        if let Some(message) = self.taken_port(spec, book) {
            return Some(stalled(FindingReason::PortTaken, "spec.port", message));
        }
        if let Some(message) = self.is_own(spec).then(|| book.other_device(spec)).flatten() {
            return Some(stalled(
                FindingReason::AddressTaken,
                "spec.endpoint",
                message,
            ));
        }
        if let Some((index, other)) = book.holder(uid, spec) {
            let message = format!(
                "{} is a network of TunnelPeer/{other}; list it once, or split it: the longer prefix wins",
                spec.pod_cidrs[index]
            );
            let path = format!("spec.podCIDRs[{index}]");
            return Some(stalled(FindingReason::AddressTaken, &path, message));
        }
        if let Some(message) = book.loops(spec, self.is_own(spec)) {
            let reason = FindingReason::EndpointInTunnel;
            return Some(stalled(reason, "spec.endpoint", message));
        }
        if let Some((index, message)) = self.captures(spec) {
            let reason = FindingReason::EndpointInTunnel;
            let path = format!("spec.podCIDRs[{index}]");
            return Some(stalled(reason, &path, message));
        }
        self.too_narrow(spec, book)
    }

    /// Which network would take packets to a peer that must always be reached, an API server say, into the
    /// tunnel. One that has only a part of such a peer's addresses is taken for meant.
    fn captures(&self, spec: &TunnelPeerSpec) -> Option<(usize, String)> {
        if self.is_own(spec) {
            return None;
        }
        let is_other = |prefix: &Prefix| !self.node.addresses.contains(&prefix.address);
        let failsafe = self.node.failsafe.iter().map(|peer| peer.prefix);
        let failsafe: BTreeSet<Prefix> = failsafe.filter(is_other).collect();
        let networks = networks_by_place(spec);
        let mut captured = networks.filter_map(|(index, network)| {
            let around = prefix(network);
            let prefix = failsafe.iter().find(|prefix| around.covers(prefix))?;
            let wrongly = match is_native(spec) {
                true => "to the peer",
                false => "through the tunnel",
            };
            let message = format!(
                "{prefix} is a failsafe peer of this node (--failsafe-cidr, or an API server) and lies in {network}: packets to it would go {wrongly}; list networks without it"
            );
            Some((index, message))
        });
        captured.next()
    }

    fn taken_port(&self, spec: &TunnelPeerSpec, book: &Book) -> Option<String> {
        let port = spec.vxlan()?.port;
        if let Some(device) = self.node.vxlan_ports.get(&port) {
            return Some(format!(
                "UDP port {port} is taken on this node by the device {device}; remove that, or give all peers another port"
            ));
        }
        let (taken, other) = book.port.as_ref().filter(|(taken, _)| *taken != port)?;
        Some(format!(
            "TunnelPeer/{other} listens at {taken}, and all peers of a node must listen at one port; give them the same"
        ))
    }

    /// The device has one MTU: the peer must suit those that stand, and they must suit it.
    fn too_narrow(&self, spec: &TunnelPeerSpec, book: &Book) -> Option<Remark> {
        if is_native(spec) {
            return None;
        }
        let mtu = self.inner_mtu(spec).filter(|_| !self.is_own(spec));
        let mtu = mtu.into_iter().chain(book.mtu).min()?;
        let is_v6 = |network: &IpNet| matches!(network, IpNet::V6(_));
        let taken = book.taken.iter();
        let mut taken = taken.filter(|(_, (_, behind))| *behind == Behind::Tunnel);
        let uses_v6 = spec.networks().iter().any(is_v6) || taken.any(|(network, _)| is_v6(network));
        (uses_v6 && mtu < LEAST_OF_IPV6).then(|| {
            let message = format!(
                "the way to the peers takes inner packets of {mtu} bytes, and IPv6 networks need {LEAST_OF_IPV6}; raise the MTU of the network below, or list no IPv6 networks"
            );
            stalled(FindingReason::MtuTooSmall, "spec.podCIDRs", message)
        })
    }

    /// The tunnel to the peers that stand.
    pub(super) fn join(
        &self,
        versions: &BTreeMap<Uid, Version>,
        findings: &mut Vec<Finding>,
    ) -> Result<Joined, TooLarge> {
        let standing: Vec<Standing<'_>> = versions
            .iter()
            .filter_map(|(uid, version)| match &version.content {
                Content::Peer(peer) => Some(Standing {
                    uid,
                    version,
                    spec: &peer.spec,
                    networks: peer.spec.networks(),
                    is_own: self.is_own(&peer.spec),
                }),
                _ => None,
            })
            .collect();
        let own = Own::of(&standing);
        let native = self.native_routes(&own, &standing);
        let others = standing.iter().filter(|peer| !peer.is_own);
        for peer in others.clone() {
            findings.extend(self.unreachable(peer));
            findings.extend(self.by_the_stack(peer));
            findings.extend(own.loses_to(peer));
        }
        findings.extend(self.oversized_pods(&standing));
        let (plain, others): (Vec<_>, Vec<_>) = others.partition(|peer| is_native(peer.spec));
        let plain = plain.iter().flat_map(|peer| peer.networks.iter().copied());
        let tunnel = self.tunnel(&own, &others, plain)?;
        let device = tunnel.as_ref().map(|(tunnel, _)| tunnel.device);
        let peers = standing.iter();
        let peers = peers.map(|peer| self.peer_summary(peer, device, &native));
        Ok(Joined {
            peers: peers.collect(),
            tunnel,
            native,
        })
    }

    fn unreachable(&self, peer: &Standing<'_>) -> Option<Finding> {
        let endpoint = peer.spec.endpoint_address();
        let is_known = self.node.underlays.contains_key(&endpoint);
        (!is_known).then(|| {
            finding(
                peer.version,
                Remark {
                    severity: Severity::Pending,
                    reason: FindingReason::NextHopUnknown,
                    path: "spec.endpoint".to_owned(),
                    message: format!(
                        "this node has no route to {endpoint}; add one, or correct the endpoint"
                    ),
                },
            )
        })
    }

    /// Packets that something in the stack wants to see go there, whatever the peer says.
    fn by_the_stack(&self, peer: &Standing<'_>) -> Option<Finding> {
        let user = self.node.stack_in_use.as_ref();
        let user = user.filter(|_| peer.spec.is_direct())?;
        let message = format!(
            "{user}, which direct delivery would pass by: packets to pods of this node go by the stack; remove that, or say localDelivery: Stack"
        );
        let path = "spec.localDelivery";
        let remark = stalled(FindingReason::StackInUse, path, message);
        Some(finding(peer.version, remark))
    }

    fn tunnel(
        &self,
        own: &Own,
        others: &[&Standing<'_>],
        plain: impl Iterator<Item = IpNet>,
    ) -> Result<Option<(Tunnel, Block)>, TooLarge> {
        let underlay = |peer: &Standing<'_>| self.node.underlays.get(&peer.spec.endpoint_address());
        let Some(first) = others.first() else {
            return Ok(None);
        };
        let local = others.iter().find_map(|peer| underlay(peer)?.local);
        let local = local.or_else(|| self.likely_local(first.spec.endpoint_address()));
        let mac = own.device.map(|device| device.mac);
        let Some(mac) = mac.or(local.map(device_address)) else {
            return Ok(None);
        };
        let joined = |peer: &Standing<'_>| {
            let vxlan = peer.spec.vxlan();
            vxlan.expect("the others are those by Vxlan")
        };
        let port = joined(first).port;
        let mtu = others.iter().filter_map(|peer| self.inner_mtu(peer.spec));
        let device = TunnelDevice {
            port,
            mtu: mtu.min().unwrap_or(USUAL_MTU),
            mac: MacAddress(mac),
        };
        let remotes: Vec<RemotePeer> = others
            .iter()
            .map(|peer| {
                let vni = joined(peer).vni;
                RemotePeer {
                    networks: peer.networks.clone(),
                    endpoint: peer.spec.endpoint_address(),
                    local: underlay(peer).and_then(|underlay| underlay.local),
                    vni,
                    accepted_vni: own.device.map_or(vni, |device| device.vni),
                    is_direct: peer.spec.is_direct() && self.node.stack_in_use.is_none(),
                }
            })
            .collect();
        // Nobody sends from these through the tunnel either.
        let elsewhere: Vec<IpNet> = own.networks.iter().copied().chain(plain).collect();
        let block = tables(&remotes, &elsewhere, port)?;
        let vxlans: Vec<Vxlan> = others.iter().map(|peer| joined(peer)).collect();
        let (neighbours, routes) = self.ways(own, &vxlans, &remotes);
        let tunnel = Tunnel {
            device,
            tables: block.digest(),
            neighbours,
            routes,
            pods: Pods::new(),
        };
        Ok(Some((tunnel, block)))
    }

    /// The node's address that it would have on the way to an endpoint, had it one: the one that is most like
    /// it. While the network below is away, the device has what it had, or all that its peers set would go.
    fn likely_local(&self, endpoint: IpAddr) -> Option<IpAddr> {
        let is_lasting = |address: &&IpAddr| match address {
            IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
            IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
        };
        let addresses = self.node.addresses.iter().filter(is_lasting);
        let likeness = |address: &&IpAddr| match (address, endpoint) {
            (IpAddr::V4(a), IpAddr::V4(b)) => 1 + (a.to_bits() ^ b.to_bits()).leading_zeros(),
            (IpAddr::V6(a), IpAddr::V6(b)) => 1 + (a.to_bits() ^ b.to_bits()).leading_zeros(),
            _ => 0,
        };
        addresses.max_by_key(likeness).copied()
    }

    /// What sends packets to the device.
    fn ways(&self, own: &Own, vxlans: &[Vxlan], remotes: &[RemotePeer]) -> (Neighbours, Routes) {
        let (mut neighbours, mut routes) = (Neighbours::new(), Routes::new());
        for (vxlan, remote) in vxlans.iter().zip(remotes) {
            let mac = MacAddress(vxlan.mac);
            for network in &remote.networks {
                let gateway = gateway(*network, remote.endpoint, mac, &neighbours);
                neighbours.insert(gateway, mac);
                let source = self.source(own, *network, remote.local);
                routes.insert(prefix(*network), TunnelRoute { gateway, source });
            }
        }
        (neighbours, routes)
    }

    /// What the node's own packets to `network` come from, so that answers come back: an address of its own
    /// in its own networks, which come back through the tunnel, else the one that the peer knows it by.
    fn source(&self, own: &Own, network: IpNet, local: Option<IpAddr>) -> Option<IpAddr> {
        let is_v4 = matches!(network, IpNet::V4(_));
        let is_of_family = |address: &IpAddr| address.is_ipv4() == is_v4;
        let addresses = self.node.addresses.iter().filter(|a| is_of_family(a));
        let mut inside =
            addresses.filter(|a| own.networks.iter().any(|network| network.contains(*a)));
        inside.next().copied().or(local.filter(is_of_family))
    }

    fn peer_summary(
        &self,
        peer: &Standing<'_>,
        device: Option<TunnelDevice>,
        native: &NativeRoutes,
    ) -> PeerSummary {
        let vxlan = peer.spec.vxlan();
        let is_joined = !peer.is_own && vxlan.is_some();
        let is_plain = !peer.is_own && vxlan.is_none();
        let native = is_plain.then(|| self.native_summary(&peer.networks, native));
        let candidate = &self.candidates[peer.uid];
        let read = candidate.present.as_ref().unwrap_or(peer.version);
        let endpoint = peer.spec.endpoint_address();
        let underlay = self.node.underlays.get(&endpoint);
        PeerSummary {
            name: peer.version.name.name.clone(),
            place: read.place.clone(),
            generation: candidate.generation,
            effective: Some(peer.version.generation),
            selected: true,
            is_own: peer.is_own,
            endpoint,
            networks: texts(&peer.networks),
            mode: peer.spec.mode,
            vni: vxlan.map(|vxlan| vxlan.vni),
            mac: vxlan.map(|vxlan| MacAddress(vxlan.mac).to_string()),
            local: underlay.and_then(|underlay| underlay.local),
            local_delivery: match self.node.stack_in_use {
                Some(_) => LocalDelivery::Stack,
                None => peer.spec.local_delivery.unwrap_or_default(),
            },
            native: native.unwrap_or_default(),
            tunnel: device.filter(|_| is_joined).map(|device| TunnelSummary {
                device: DEVICE.to_owned(),
                port: device.port,
                mtu: device.mtu,
                mac: device.mac.to_string(),
            }),
        }
    }

    /// Peers that exist and have nothing in effect here.
    pub(super) fn peers_not_in_effect(&self, listed: &[PeerSummary]) -> Vec<PeerSummary> {
        let listed: BTreeSet<&str> = listed.iter().map(|peer| peer.name.as_str()).collect();
        let candidates = self.candidates.values().filter_map(|candidate| {
            let version = candidate
                .present
                .as_ref()
                .or(candidate.last_good.as_ref())?;
            let Content::Peer(peer) = &version.content else {
                return None;
            };
            let vxlan = peer.spec.vxlan();
            let unlisted = !listed.contains(version.name.name.as_str());
            unlisted.then(|| PeerSummary {
                name: version.name.name.clone(),
                place: version.place.clone(),
                generation: candidate.generation,
                effective: None,
                selected: select::concerns(peer.spec.node_selector.as_ref(), self.node),
                is_own: self.is_own(&peer.spec),
                endpoint: peer.spec.endpoint_address(),
                networks: texts(&peer.spec.networks()),
                mode: peer.spec.mode,
                vni: vxlan.map(|vxlan| vxlan.vni),
                mac: vxlan.map(|vxlan| MacAddress(vxlan.mac).to_string()),
                local: None,
                local_delivery: peer.spec.local_delivery.unwrap_or_default(),
                tunnel: None,
                native: Vec::new(),
            })
        });
        candidates.collect()
    }
}

/// A peer that stands.
struct Standing<'a> {
    uid: &'a Uid,
    version: &'a Version,
    spec: &'a TunnelPeerSpec,
    networks: Vec<IpNet>,
    is_own: bool,
}

/// The node itself, as its own peers have it: one device, and the networks of them all.
struct Own {
    device: Option<Device>,
    networks: Vec<IpNet>,
}

impl Own {
    fn of(standing: &[Standing<'_>]) -> Self {
        let own = || standing.iter().filter(|peer| peer.is_own);
        let networks = own().flat_map(|peer| peer.networks.iter().copied());
        Self {
            device: own().find_map(|peer| Device::of(peer.spec)),
            networks: networks.collect(),
        }
    }

    /// The longest prefix wins, over the node's own pods too: that is hardly meant.
    fn loses_to(&self, peer: &Standing<'_>) -> Option<Finding> {
        let mut lost = networks_by_place(peer.spec).filter_map(|(index, network)| {
            let mut around = self.networks.iter();
            let around = around.find(|own| **own != network && own.contains(&network))?;
            Some((index, network, around))
        });
        let (index, network, around) = lost.next()?;
        let message = format!(
            "{network} lies in {around}, which is this node's own: packets to pods of this node in it leave for this peer; list networks without it, unless its pods have moved there"
        );
        let remark = Remark {
            severity: Severity::Warning,
            reason: FindingReason::Suspicious,
            path: format!("spec.podCIDRs[{index}]"),
            message,
        };
        Some(finding(peer.version, remark))
    }
}

fn stalled(reason: FindingReason, path: &str, message: String) -> Remark {
    Remark {
        severity: Severity::Stalled,
        reason,
        path: path.to_owned(),
        message,
    }
}

fn texts(networks: &[IpNet]) -> Vec<String> {
    networks.iter().map(IpNet::to_string).collect()
}

fn peer_in(versions: &BTreeMap<Uid, Version>, uid: &Uid) -> Option<(Version, Arc<JoinedPeer>)> {
    let version = versions.get(uid)?;
    match &version.content {
        Content::Peer(peer) => Some((version.clone(), Arc::clone(peer))),
        _ => None,
    }
}
