//! What the agent reads of its node.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use headgate_datapath::state::{FailsafePeer, Ifindex};

/// What sort of interface, as far as attaching depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InterfaceKind {
    /// The loopback interface.
    Loopback,
    /// Several interfaces as one: a program goes on the bond itself.
    Bond,
    /// A switch in software: a program goes on its ports.
    Bridge,
    /// A VLAN on another interface.
    Vlan,
    /// One end of a virtual cable.
    Veth,
    /// A network card, or anything else.
    Other,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its number.
    pub ifindex: Ifindex,
    /// What sort.
    pub kind: InterfaceKind,
    /// Bytes of an IP packet that it takes.
    pub mtu: u32,
    /// The bridge or bond that it is a port of.
    pub master: Option<Ifindex>,
    /// The interface below a VLAN.
    pub lower: Option<Ifindex>,
    /// Whether a default route of either family leaves through it.
    pub has_default_route: bool,
}

/// The way from this node to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The interface that it leaves by.
    pub ifindex: Ifindex,
    /// Bytes of an IP packet that this interface takes.
    pub mtu: u32,
    /// Whether `XDP_TX` on that interface reaches its far end: not in a veth pair.
    pub reflects: bool,
    /// MAC address of the address itself, or of the gateway to it.
    pub destination: [u8; 6],
    /// MAC address of the interface.
    pub source: [u8; 6],
    /// The node's own address on this way.
    pub local: Option<IpAddr>,
    /// Whether the interface is the device of an overlay, which takes no frames from XDP and finds next hops
    /// itself.
    pub overlay: bool,
}

/// Who packets to an endpoint are given to first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The endpoint itself, on a link of the node.
    OnLink,
    /// This gateway.
    ByGateway(IpAddr),
    /// Whoever is at the other end of a device that has no link-layer addresses, such as a tunnel's.
    WithoutLink,
}

/// The way to an endpoint of the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Underlay {
    /// The interface that it leaves by.
    pub ifindex: Ifindex,
    /// Its first hop.
    pub access: Access,
    /// The node's own address on this way.
    pub local: Option<IpAddr>,
    /// Bytes of an IP packet that the way takes.
    pub mtu: u32,
}

/// What the agent reads of its node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Name of the node.
    pub name: String,
    /// Labels of the node.
    pub labels: BTreeMap<String, String>,
    /// Its interfaces.
    pub interfaces: Vec<Interface>,
    /// Peers that are never dropped.
    pub failsafe: BTreeSet<FailsafePeer>,
    /// Addresses of its interfaces.
    pub addresses: BTreeSet<IpAddr>,
    /// Why its programs have no load balancer; `None` where they have one.
    pub no_balancer: Option<String>,
    /// Ways to backends, as far as they are known.
    pub next_hops: BTreeMap<IpAddr, NextHop>,
    /// Backends on the node itself, to which its stack knows the way: its containers and virtual machines.
    pub here: BTreeSet<IpAddr>,
    /// Ways to endpoints of peers.
    pub underlays: BTreeMap<IpAddr, Underlay>,
    /// What the stack does with packets for pods that would be passed by without it; `None` where that is nothing, or
    /// no peer asks for it.
    pub stack_in_use: Option<String>,
    /// The largest MTU of the node's own pods, where there is a tunnel and it is known.
    pub pods_mtu: Option<u32>,
    /// UDP ports of VXLAN devices that are not the tunnel's, with their names.
    pub vxlan_ports: BTreeMap<u16, String>,
}
