//! The resource types of Headgate: schema, defaults, validation.
//!
//! The types are what users write; nothing here is compiled or resolved.
//! [`check`] is the one validation for a file, an admission webhook and an
//! agent: it runs the CRD's own schema, defaults and CEL rules without an API
//! server, then, with garde, what CEL cannot say. [`files`] renders the CRDs themselves.

mod address;
mod backends;
mod check;
mod cidr;
mod crd;
mod families;
mod host_bits;
mod metadata;
mod path;
mod peers;
mod reference;
mod remedy;
mod rules;
mod schema;
mod source_ranges;
mod structural;
mod validation;

// KubeSchema copies each public struct into a function, where nothing reaches it.
// Two print columns of one type are no duplicates.
#[allow(unreachable_pub, clippy::duplicated_attributes)]
mod address_pool;
#[allow(unreachable_pub, clippy::duplicated_attributes)]
mod cidr_group;
#[allow(unreachable_pub)]
mod endpoint;
#[allow(unreachable_pub, clippy::duplicated_attributes)]
mod load_balancer_service;
mod node_datapath;
#[allow(unreachable_pub)]
mod protocol;
#[allow(unreachable_pub)]
mod selector;
mod status;
#[allow(unreachable_pub, clippy::duplicated_attributes)]
mod tunnel_peer;
#[allow(unreachable_pub, clippy::duplicated_attributes)]
mod xdp_policy;

pub use address_pool::{AddressPool, AddressPoolSpec};
pub use check::{Checked, Kind, Problem, Resource, check};
pub use cidr::{CidrError, parse_cidr};
pub use cidr_group::{CidrGroup, CidrGroupSpec};
pub use crd::{all, files, to_yaml};
pub use endpoint::{CidrGroupReference, Endpoint};
pub use ipnet::IpNet;
pub use load_balancer_service::{
    Backends, Forwarding, LoadBalancerService, LoadBalancerServiceSpec, MAX_BACKENDS,
    MAX_SOURCE_RANGES, ServicePort, ServiceProtocol, ServiceReference, StaticBackend,
    TrafficPolicy, WithoutBackends,
};
pub use node_datapath::{
    InterfaceDatapath, NodeDatapath, NodeDatapathStatus, NodeFacts, ResourceException,
    TablesDatapath,
};
pub use protocol::{
    IcmpMatch, PortRange, Protocol, SctpMatch, TcpFlag, TcpFlags, TcpMatch, UdpMatch,
};
pub use reference::reference;
pub use selector::{LabelSelector, LabelSelectorOperator, LabelSelectorRequirement};
pub use status::{FailingNode, MOST_NAMES, NodeCounts, ResourceStatus, SourceRevision};
pub use tunnel_peer::{LocalDelivery, TunnelPeer, TunnelPeerSpec, device_address};
pub use xdp_policy::{
    Action, AttachMode, DEFAULT_ROUTE, Fragments, PolicyRule, XdpPolicy, XdpPolicySpec,
};

/// The API group of every resource here.
pub const GROUP: &str = "headgate.dev";
/// The only version of the group.
pub const VERSION: &str = "v1alpha1";
/// `GROUP/VERSION`, as `apiVersion` spells it.
pub const API_VERSION: &str = "headgate.dev/v1alpha1";
