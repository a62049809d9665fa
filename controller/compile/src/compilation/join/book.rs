//! What peers have of each other, while one after another is judged.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use headgate_crds::{IpNet, TunnelPeerSpec, Vxlan};

use super::super::Compiler;
use crate::{
    adopt::Version,
    snapshot::{Content, Uid},
};

/// What packets to a peer carry and ask for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) vni: u32,
    pub(super) mac: [u8; 6],
}

impl Device {
    /// Nothing, where they carry only themselves.
    pub(super) fn of(spec: &TunnelPeerSpec) -> Option<Self> {
        let Vxlan { vni, mac, .. } = spec.vxlan()?;
        Some(Self { vni, mac })
    }
}

/// Where a network is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Behind {
    /// Behind the node itself.
    Node,
    /// Behind the tunnel.
    Tunnel,
    /// Behind a peer that shares a link with the node.
    Link,
}

/// Who has which network, and what all peers have in common.
#[derive(Default)]
pub(super) struct Book {
    /// Networks in effect and still asked for by their holder, who is not asked to give them up.
    held: BTreeMap<IpNet, (Uid, String)>,
    /// What was given in this attempt, and where it is.
    pub(super) taken: BTreeMap<IpNet, (String, Behind)>,
    endpoints: BTreeMap<IpAddr, String>,
    /// Of peers in effect that still ask for theirs, else of the first that was taken.
    pub(super) port: Option<(u16, String)>,
    /// What the node's own peers say of its device, held as the port is.
    own: Option<(Device, String)>,
    pub(super) mtu: Option<u32>,
}

impl Book {
    pub(super) fn of(compiler: &Compiler<'_>, versions: &BTreeMap<Uid, Version>) -> Self {
        let mut book = Self::default();
        for (uid, version) in versions {
            let (Content::Peer(peer), Some((_, good))) =
                (&version.content, compiler.last_joined(uid))
            else {
                continue;
            };
            let asked: BTreeSet<IpNet> = peer.spec.networks().into_iter().collect();
            let held = good.networks().into_iter().filter(|n| asked.contains(n));
            let holder = (uid.clone(), version.name.name.clone());
            let port = good.vxlan().map(|vxlan| vxlan.port);
            let is_free = |port: &u16| !compiler.node.vxlan_ports.contains_key(port);
            if let Some(port) = port.filter(is_free)
                && peer.spec.vxlan().map(|vxlan| vxlan.port) == Some(port)
            {
                book.port.get_or_insert_with(|| (port, holder.1.clone()));
            }
            if let Some(device) = Device::of(good)
                && compiler.is_own(good)
                && Device::of(&peer.spec) == Some(device)
            {
                book.own.get_or_insert_with(|| (device, holder.1.clone()));
            }
            book.held
                .extend(held.map(|network| (network, holder.clone())));
        }
        book
    }

    /// Why the node cannot be this peer too.
    pub(super) fn other_device(&self, spec: &TunnelPeerSpec) -> Option<String> {
        let (device, other) = self.own.as_ref()?;
        (*device != Device::of(spec)?).then(|| {
            format!(
                "TunnelPeer/{other} is this node as well, and has another vni or mac, where a node has one of each; give them the same, or list all networks in one"
            )
        })
    }

    /// The first network that another has, by its place in the list.
    pub(super) fn holder(&self, uid: &Uid, spec: &TunnelPeerSpec) -> Option<(usize, &str)> {
        let of_other = |network: &IpNet| {
            let held = self.held.get(network).filter(|(holder, _)| holder != uid);
            let taken = self.taken.get(network).map(|(name, _)| name);
            taken.or(held.map(|(_, name)| name))
        };
        let mut networks = networks_by_place(spec);
        networks.find_map(|(index, network)| Some((index, of_other(&network)?.as_str())))
    }

    /// Why packets to an endpoint would go through the tunnel again.
    pub(super) fn loops(&self, spec: &TunnelPeerSpec, is_own: bool) -> Option<String> {
        let endpoint = spec.endpoint_address();
        let around = self
            .taken
            .iter()
            .find(|(network, (_, at))| *at != Behind::Node && network.contains(&endpoint));
        if let Some((network, (name, _))) = around.filter(|_| !is_own) {
            return Some(format!(
                "{endpoint} lies in {network}, which is reached through TunnelPeer/{name}; give an address in the network below"
            ));
        }
        let networks = spec.networks();
        let mut inside = self.endpoints.iter();
        let inside = inside.find_map(|(endpoint, name)| {
            let network = networks.iter().find(|network| network.contains(endpoint))?;
            Some((endpoint, name, network))
        });
        let (endpoint, name, network) = inside.filter(|_| !is_own)?;
        Some(format!(
            "the endpoint {endpoint} of TunnelPeer/{name} lies in {network}, and could not be reached any more; list networks without it"
        ))
    }

    pub(super) fn take(&mut self, compiler: &Compiler<'_>, name: &str, spec: &TunnelPeerSpec) {
        let is_own = compiler.is_own(spec);
        let vxlan = spec.vxlan();
        let behind = match (is_own, vxlan) {
            (true, _) => Behind::Node,
            (false, Some(_)) => Behind::Tunnel,
            (false, None) => Behind::Link,
        };
        let networks = spec.networks().into_iter();
        self.taken
            .extend(networks.map(|network| (network, (name.to_owned(), behind))));
        self.endpoints
            .insert(spec.endpoint_address(), name.to_owned());
        let (Some(vxlan), Some(device)) = (vxlan, Device::of(spec)) else {
            return;
        };
        self.port
            .get_or_insert_with(|| (vxlan.port, name.to_owned()));
        if is_own {
            self.own.get_or_insert_with(|| (device, name.to_owned()));
        } else {
            let mtu = compiler.inner_mtu(spec);
            self.mtu = self.mtu.into_iter().chain(mtu).min();
        }
    }
}

/// The networks of a peer, by their place in its list.
pub(super) fn networks_by_place(spec: &TunnelPeerSpec) -> impl Iterator<Item = (usize, IpNet)> {
    let cidrs = spec.pod_cidrs.iter().enumerate();
    cidrs.filter_map(|(index, text)| Some((index, headgate_crds::parse_cidr(text).ok()?.trunc())))
}
