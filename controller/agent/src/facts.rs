//! What compile needs to know of this node.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
};

use headgate_compile::{
    memory::Memory,
    node::{Access, Interface, InterfaceKind, NodeFacts, Underlay},
    snapshot::Snapshot,
    tunnel::wants_direct,
};
use headgate_datapath::{
    failsafe::{FailsafePeer, Passage, PortRange, Prefix},
    kernel::KernelError,
    tunnel::Pods,
};
use headgate_kernel::{
    interfaces::{self, InterfaceFacts},
    local_ports,
    tunnel::{self, vxlan_ports},
    why_no_balancer,
};

/// Where kubelet listens.
const KUBELET: NonZeroU16 = NonZeroU16::new(10250).expect("not 0");
/// The ports that Linux masquerades connections with, whatever ports they are from: kube-proxy lets
/// it do so to the node's own ones to a Service, and so to the API.
const MASQUERADED: PortRange = PortRange {
    first: NonZeroU16::new(1024).expect("not 0"),
    last: NonZeroU16::MAX,
};

/// Reads the facts of the running node, whose name, labels and failsafe peers are known otherwise; for
/// next hops see [`crate::ways`].
///
/// # Errors
/// The interfaces cannot be read.
pub fn read(
    name: &str,
    labels: &BTreeMap<String, String>,
    failsafe: &BTreeSet<FailsafePeer>,
) -> Result<NodeFacts, KernelError> {
    let interfaces = interfaces::interfaces()?;
    let addresses = interfaces.iter().flat_map(|interface| &interface.addresses);
    let addresses = addresses.map(|address| address.address).collect();
    Ok(NodeFacts {
        name: name.to_owned(),
        labels: labels.clone(),
        interfaces: interfaces.into_iter().map(interface).collect(),
        failsafe: failsafe.clone(),
        addresses,
        no_balancer: why_no_balancer(),
        next_hops: BTreeMap::new(),
        here: BTreeSet::new(),
        underlays: BTreeMap::new(),
        stack_in_use: None,
        pods_mtu: None,
        vxlan_ports: vxlan_ports()?,
    })
}

/// Ways to endpoints of peers.
///
/// # Errors
/// The interfaces cannot be read.
pub fn underlays(endpoints: &BTreeSet<IpAddr>) -> Result<BTreeMap<IpAddr, Underlay>, KernelError> {
    let ways = tunnel::underlays(endpoints)?.into_iter();
    let access = |way: &tunnel::Underlay| match way.gateway {
        _ if !way.has_link_layer => Access::WithoutLink,
        Some(gateway) => Access::ByGateway(gateway),
        None => Access::OnLink,
    };
    let underlay = |way: tunnel::Underlay| Underlay {
        ifindex: way.ifindex,
        access: access(&way),
        local: way.local,
        mtu: way.mtu,
    };
    Ok(ways
        .map(|(endpoint, way)| (endpoint, underlay(way)))
        .collect())
}

/// The node's pods, and what its stack does with packets for them; nothing where no peer asks for direct delivery.
/// Where that cannot be read the stack does its work.
#[must_use]
pub fn direct_delivery(
    labels: &BTreeMap<String, String>,
    snapshot: &Snapshot,
    memory: &Memory,
) -> (Option<String>, Pods) {
    if !wants_direct(snapshot, memory, labels) {
        return (None, Pods::new());
    }
    let unread = |error: KernelError| {
        let words = format!("what this node's stack does cannot be read ({error})");
        (Some(words), Pods::new())
    };
    match tunnel::stack_in_use() {
        Ok(Some(user)) => (Some(user), Pods::new()),
        Ok(None) => match tunnel::reachable_directly() {
            Ok(pods) => (None, pods),
            Err(error) => unread(error),
        },
        Err(error) => unread(error),
    }
}

/// What API servers must be able to send to a node: replies to it, and requests to its kubelet.
///
/// # Errors
/// The ports of this node's own connections cannot be read.
pub fn api_servers_as_peers(
    servers: &BTreeSet<SocketAddr>,
) -> Result<BTreeSet<FailsafePeer>, KernelError> {
    if servers.is_empty() {
        return Ok(BTreeSet::new());
    }
    let own = local_ports()?;
    let local_ports = PortRange {
        first: own.first.min(MASQUERADED.first),
        last: own.last.max(MASQUERADED.last),
    };
    let peers = servers
        .iter()
        .flat_map(|server| of_server(*server, local_ports));
    Ok(peers.collect())
}

fn of_server(server: SocketAddr, local_ports: PortRange) -> Vec<FailsafePeer> {
    let prefix = Prefix {
        address: server.ip(),
        length: if server.is_ipv4() { 32 } else { 128 },
    };
    let replies = NonZeroU16::new(server.port()).map(|port| Passage::Replies { port, local_ports });
    let requests = Some(Passage::Service { port: KUBELET });
    let passages = [replies, requests].into_iter().flatten();
    passages
        .map(|passage| FailsafePeer { prefix, passage })
        .collect()
}

fn interface(facts: InterfaceFacts) -> Interface {
    Interface {
        name: facts.name,
        ifindex: facts.ifindex,
        kind: match facts.kind {
            interfaces::InterfaceKind::Loopback => InterfaceKind::Loopback,
            interfaces::InterfaceKind::Bond => InterfaceKind::Bond,
            interfaces::InterfaceKind::Bridge => InterfaceKind::Bridge,
            interfaces::InterfaceKind::Vlan => InterfaceKind::Vlan,
            interfaces::InterfaceKind::Veth => InterfaceKind::Veth,
            _ => InterfaceKind::Other,
        },
        mtu: facts.mtu,
        master: facts.master,
        lower: facts.lower,
        has_default_route: facts.has_default_route,
    }
}
