//! Pod networks that are reached through a tunnel.

use std::net::IpAddr;

use garde::Validate;
use ipnet::IpNet;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    address, cidr,
    peers::{is_apart, is_unicast},
    schema::crd_object,
    selector::LabelSelector,
    status::ResourceStatus,
};

/// What a TunnelPeer says.
#[derive(CustomResource, KubeSchema, Validate, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "headgate.dev",
    version = "v1alpha1",
    kind = "TunnelPeer",
    doc = "Networks of pods, and the node that they are behind: other nodes send packets for them to it over \
           VXLAN, and take packets from them from it alone. The peer whose endpoint is an address of the \
           node itself says what is behind that node.",
    derive = "PartialEq",
    status = "ResourceStatus",
    shortname = "tp",
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
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".spec.endpoint"),
    printcolumn(name = "PodCIDRs", type_ = "string", json_path = ".spec.podCIDRs"),
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
pub struct TunnelPeerSpec {
    /// Nodes that reach this peer through the tunnel, by their labels. Absent or empty means every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(dive)]
    pub node_selector: Option<LabelSelector>,

    /// The networks behind the peer, IPv4 and IPv6, whatever the endpoint's family. Where networks of
    /// several peers overlap, the longest prefix wins.
    #[serde(rename = "podCIDRs")]
    #[schemars(length(min = 1, max = 256), extend("items" = cidr::schema()))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[x_kube(validation = Rule::new(crate::rules::UNIQUE_ITEMS).message(
        "a network is listed twice; remove one of the two"
    ))]
    #[garde(custom(is_unicast))]
    pub pod_cidrs: Vec<String>,

    /// The peer's address in the network below, which packets are sent to and come from.
    #[schemars(extend("maxLength" = 45, "x-kubernetes-validations" = address::rules()))]
    #[garde(custom(is_apart(&self.pod_cidrs)))]
    pub endpoint: String,

    /// The VXLAN network identifier of packets to the peer.
    #[schemars(range(min = 1, max = 16_777_215))]
    #[garde(skip)]
    pub vni: u32,

    /// The UDP port that the peer listens at. 8472 is Linux's, 4789 IANA's. All peers of a node have the
    /// same one.
    #[serde(default = "default_port")]
    #[schemars(range(min = 1, max = 65535))]
    #[garde(skip)]
    pub port: u16,

    /// The link-layer address of the peer's VXLAN device. Absent means 02:68 and the last four bytes of the
    /// endpoint, which is what Headgate gives its own device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 17, max = 17),
        regex(pattern = crate::structural::MAC)
    )]
    #[garde(skip)]
    pub mac: Option<String>,

    /// How nodes give packets that come from the peer to their pods; absent means `Stack`. `Direct` passes the node's own stack by, and all
    /// that it does there: kube-proxy, NetworkPolicies, connection tracking. A node where any of these is in use
    /// takes the stack and says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    pub local_delivery: Option<LocalDelivery>,
}

/// How packets of the tunnel get to pods of the node.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LocalDelivery {
    /// By the node's stack, with all that it does.
    #[default]
    Stack,
    /// From the tunnel's device into the pod.
    Direct,
}

impl TunnelPeerSpec {
    /// The networks, parsed and without host bits, each once; the check that let the resource in has seen
    /// that they are.
    pub fn networks(&self) -> Vec<IpNet> {
        let cidrs = self.pod_cidrs.iter();
        let mut networks: Vec<IpNet> = cidrs
            .filter_map(|text| cidr::parse_cidr(text).ok())
            .map(|network| network.trunc())
            .collect();
        networks.sort();
        networks.dedup();
        networks
    }

    /// The endpoint, parsed.
    ///
    /// # Panics
    /// Where the check has not let the resource in.
    pub fn endpoint_address(&self) -> IpAddr {
        let parsed = address::parse(&self.endpoint);
        parsed.expect("the check refuses what is no address")
    }

    /// Whether nodes give what comes from the peer to their pods without their stack.
    pub fn is_direct(&self) -> bool {
        self.local_delivery == Some(LocalDelivery::Direct)
    }

    /// The link-layer address of the peer's device: the one that is given, or the default.
    pub fn device_address(&self) -> [u8; 6] {
        let given = self.mac.as_deref().and_then(parse_mac);
        given.unwrap_or_else(|| device_address(self.endpoint_address()))
    }
}

/// The link-layer address of the device behind an endpoint, where nothing else is said: 02:68 and the last
/// four bytes of the endpoint.
pub fn device_address(endpoint: IpAddr) -> [u8; 6] {
    let [a, b, c, d] = match endpoint {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(v6) => {
            let [.., a, b, c, d] = v6.octets();
            [a, b, c, d]
        }
    };
    [0x02, 0x68, a, b, c, d]
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(bytes)
}

fn default_port() -> u16 {
    8472
}
