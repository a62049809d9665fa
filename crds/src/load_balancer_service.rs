//! Services that the nodes' XDP programs balance.

use std::net::IpAddr;

use garde::Validate;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    DEFAULT_ROUTE, address,
    backends::{are_different, are_usable},
    cidr,
    schema::crd_object,
    selector::LabelSelector,
    status::ResourceStatus,
};

/// Backends of one service at most.
pub const MAX_BACKENDS: usize = 512;

/// Ranges in one service's sourceRanges at most.
pub const MAX_SOURCE_RANGES: usize = 1024;

/// What a LoadBalancerService says.
#[derive(CustomResource, KubeSchema, Validate, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "headgate.dev",
    version = "v1alpha1",
    kind = "LoadBalancerService",
    plural = "loadbalancerservices",
    namespaced,
    doc = "Addresses and ports whose packets the nodes' XDP programs send on to backends, each flow to \
           the same one by consistent hashing (Maglev). The addresses must lie in an AddressPool that \
           admits this namespace. Policies of the interface judge a packet first.",
    derive = "PartialEq",
    status = "ResourceStatus",
    shortname = "lbs",
    category = "headgate",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "Addresses", type_ = "string", json_path = ".spec.addresses"),
    printcolumn(name = "Live", type_ = "integer", json_path = ".status.nodes.live"),
    printcolumn(
        name = "Nodes",
        type_ = "integer",
        json_path = ".status.nodes.selected"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crd_object)]
#[x_kube(validation = Rule::new(
    "self.forwarding != 'DirectReturn' \
     || self.ports.all(p, !has(p.targetPort) || p.targetPort == p.port)"
).message("DirectReturn cannot change a port; remove targetPort, or set forwarding to Nat"))]
#[x_kube(validation = Rule::new(
    "!has(self.backends.serviceRef) || self.forwarding == 'Nat'"
).message("endpoints of a Service do not have the service's address; set forwarding to Nat, or list static backends"))]
#[x_kube(validation = Rule::new(
    "!has(self.backends.serviceRef) || self.ports.all(p, !has(p.targetPort))"
).message("endpoints of a Service say themselves which port they listen on; remove targetPort"))]
#[x_kube(validation = Rule::new(
    "has(self.backends.serviceRef) || self.externalTrafficPolicy == 'Cluster'"
).message("where static backends run is not known; remove externalTrafficPolicy, or give serviceRef"))]
pub struct LoadBalancerServiceSpec {
    /// Nodes that serve, by their labels. Absent or empty means every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(dive)]
    pub node_selector: Option<LabelSelector>,

    /// Interfaces at which packets for the addresses arrive, as in an XdpPolicy: names, patterns
    /// with * and ?, or the word defaultRoute.
    #[serde(default = "default_interfaces")]
    #[schemars(
        length(min = 1, max = 64),
        inner(length(min = 1, max = 15), regex(pattern = crate::structural::INTERFACE))
    )]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[x_kube(validation = Rule::new(crate::rules::UNIQUE_ITEMS).message(
        "an interface is listed twice; remove one of the two"
    ))]
    #[garde(skip)]
    pub interfaces: Vec<String>,

    /// The addresses that clients send to, IPv4 and IPv6. An address is served by the backends of its
    /// family.
    #[schemars(length(min = 1, max = 16), extend("items" = address::schema()))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[x_kube(validation = Rule::new(crate::rules::UNIQUE_ITEMS).message(
        "an address is listed twice; remove one of the two"
    ))]
    #[garde(custom(are_different))]
    pub addresses: Vec<String>,

    /// The ports that are served at each address.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[x_kube(validation = Rule::new(crate::rules::UNIQUE_NAMES).message(
        "two ports have one name; give every port a name of its own"
    ))]
    #[x_kube(validation = Rule::new(
        "self.all(a, self.exists_one(b, a.protocol == b.protocol && a.port == b.port))"
    ).message("a port is listed twice for one protocol; remove one of the two"))]
    #[garde(skip)]
    pub ports: Vec<ServicePort>,

    /// Where packets go.
    #[garde(custom(are_usable(&self.addresses)))]
    pub backends: Backends,

    /// Clients that may use the service, in CIDR form, IPv4 and IPv6 mixed as you like, at most 1,024.
    /// What comes from elsewhere is dropped and counted, whatever policies say. Absent means any; once
    /// there is one, clients of a family without a range are all outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), extend("items" = cidr::schema()))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[garde(skip)]
    pub source_ranges: Option<Vec<String>>,

    /// How packets get there. Nat puts the backend's address and port in the place of the service's,
    /// and an address and port of the node in the place of the client's: backends need nothing but to
    /// listen, and do not see the client's address unless they are endpoints on this very node.
    /// DirectReturn leaves the packet as it is but for
    /// the link layer's addresses: every backend has the service's addresses itself, on an interface
    /// that does not answer ARP and neighbour discovery, and answers clients directly.
    #[serde(default)]
    #[garde(skip)]
    pub forwarding: Forwarding,

    /// Which endpoints of the Service that serviceRef names a node uses: Cluster means all of them,
    /// Local only those that run on it.
    #[serde(default)]
    #[garde(skip)]
    pub external_traffic_policy: TrafficPolicy,

    /// Entries of the table that flows are spread over: 4093, 16381 or 65537. More entries spread
    /// more evenly, and fewer flows of other backends move when one backend goes.
    #[serde(default = "default_ring_size")]
    #[schemars(range(min = 4093, max = 65537))]
    #[x_kube(validation = Rule::new("self in [4093, 16381, 65537]").message(
        "is no size of a ring; write 4093, 16381 or 65537"
    ))]
    #[garde(skip)]
    pub ring_size: u32,
}

/// A port of a service.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crd_object)]
pub struct ServicePort {
    /// The port's name, unique in the service: lower-case letters, digits and '-'. Its counters
    /// belong to this name.
    #[schemars(length(min = 1, max = 63), regex(pattern = crate::structural::RULE_NAME))]
    pub name: String,

    /// The transport protocol.
    #[serde(default)]
    pub protocol: ServiceProtocol,

    /// The port that clients send to.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,

    /// The port that backends listen on. Absent means the same port; DirectReturn cannot change it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub target_port: Option<u16>,
}

/// Transport protocols that have ports to be served.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub enum ServiceProtocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl ServiceProtocol {
    /// As manifests spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

/// The backends of a service: one of the two.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crd_object)]
#[x_kube(validation = Rule::new("has(self.static) != has(self.serviceRef)").message(
    "backends come from one place; give either static or serviceRef"
))]
pub struct Backends {
    /// Backends by address, at most 512.
    #[serde(rename = "static", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub fixed: Vec<StaticBackend>,

    /// The endpoints of a Service, as its EndpointSlices list them: those that are ready, or, where
    /// none is, those that end but still serve. Each port goes to the endpoints' port of the same
    /// name and protocol, or to their only one where it has no name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_ref: Option<ServiceReference>,
}

/// A Service in the same namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crd_object)]
pub struct ServiceReference {
    /// Its name.
    #[schemars(length(min = 1, max = 63), regex(pattern = crate::structural::RULE_NAME))]
    pub name: String,
}

/// Which endpoints of a Service a node uses.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrafficPolicy {
    /// All of them, wherever they run.
    #[default]
    Cluster,
    /// Those that run on the node itself, which see the client's address; a node without any drops.
    Local,
}

/// A backend by address.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crd_object)]
pub struct StaticBackend {
    /// An address of the backend on the way to it: the next hop is looked up by it.
    #[schemars(extend("maxLength" = 45, "x-kubernetes-validations" = address::rules()))]
    pub address: String,

    /// Its share of the flows, beside the other backends' weights. 0 gives it no new
    /// ones; its TCP connections stay, by DirectReturn for an hour.
    #[serde(default = "default_weight")]
    #[schemars(range(min = 0, max = 256))]
    pub weight: u16,
}

/// How packets get to a backend.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Forwarding {
    /// By the node's own address; the backend answers the node, which answers the client.
    #[default]
    Nat,
    /// By the link layer's addresses alone; the backend answers the client directly.
    DirectReturn,
}

impl LoadBalancerServiceSpec {
    /// The addresses, parsed; the check that let the resource in has seen that they are.
    pub fn parsed_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().filter_map(|text| text.parse().ok())
    }

    /// The backends that get packets, parsed, with their weights.
    pub fn weighted_backends(&self) -> impl Iterator<Item = (IpAddr, u16)> {
        self.living_backends().filter(|(_, weight)| *weight > 0)
    }

    /// The backends, parsed, with their weights: those of weight 0 keep what they have.
    pub fn living_backends(&self) -> impl Iterator<Item = (IpAddr, u16)> {
        let backends = self.backends.fixed.iter();
        backends.filter_map(|backend| Some((backend.address.parse().ok()?, backend.weight)))
    }
}

fn default_interfaces() -> Vec<String> {
    vec![DEFAULT_ROUTE.into()]
}

fn default_ring_size() -> u32 {
    16_381
}

fn default_weight() -> u16 {
    1
}
