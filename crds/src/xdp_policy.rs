//! Packet filters.

use garde::Validate;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    endpoint::Endpoint, protocol::Protocol, schema::crd_object, selector::LabelSelector,
    status::ResourceStatus,
};

/// The word in `interfaces` that stands for the interfaces of the default routes.
pub const DEFAULT_ROUTE: &str = "defaultRoute";

/// What an XdpPolicy says.
#[derive(CustomResource, KubeSchema, Validate, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "headgate.dev",
    version = "v1alpha1",
    kind = "XdpPolicy",
    plural = "xdppolicies",
    doc = "Filters packets as they arrive at an interface of a node. All policies of an interface \
           are read as one list: by priority, then by name, then by the order of their rules; the \
           first rule that matches decides. Where none does, the policies' defaultAction holds, \
           and Drop where they differ. Policies are stateless, concern IPv4 and IPv6, and let \
           other EtherTypes such as ARP pass.",
    derive = "PartialEq",
    status = "ResourceStatus",
    shortname = "xp",
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
    printcolumn(name = "Live", type_ = "integer", json_path = ".status.nodes.live"),
    printcolumn(
        name = "Nodes",
        type_ = "integer",
        json_path = ".status.nodes.selected"
    ),
    printcolumn(name = "Priority", type_ = "integer", json_path = ".spec.priority"),
    printcolumn(name = "Default", type_ = "string", json_path = ".spec.defaultAction"),
    printcolumn(
        name = "Source",
        type_ = "string",
        json_path = ".status.source.revision",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    printcolumn(
        name = "Interfaces",
        type_ = "string",
        json_path = ".spec.interfaces",
        priority = 1
    ),
    printcolumn(
        name = "Attach",
        type_ = "string",
        json_path = ".spec.attachMode",
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
pub struct XdpPolicySpec {
    /// Nodes that enforce the policy, by their labels. Absent or empty means every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(dive)]
    pub node_selector: Option<LabelSelector>,

    /// Interfaces to filter on: names, patterns with * and ?, or the word defaultRoute, which
    /// stands for the interfaces of the node's default routes; one that loses its route keeps the
    /// policy for five minutes, and while no interface has one. A bond is named itself; a
    /// bridge stands for its ports other than veth pairs.
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

    /// How the program is attached. Native runs in the driver, Generic after it, at a
    /// higher cost. Auto takes Native where the driver can, else Generic. Under Native, an
    /// interface that cannot do it is reported and not filtered.
    #[serde(default)]
    #[garde(skip)]
    pub attach_mode: AttachMode,

    /// Place among the policies of an interface: the lower number is read first, equal ones
    /// by name.
    #[serde(default = "default_priority")]
    #[schemars(range(min = 0, max = 1000))]
    #[garde(skip)]
    pub priority: u16,

    /// What happens to a packet that no rule of any policy of the interface matches: Allow or
    /// Drop. Where the policies of an interface differ, Drop wins.
    #[serde(default)]
    #[garde(skip)]
    pub default_action: Action,

    /// The rules; the first that matches decides. Absent means that the policy only sets its
    /// defaultAction.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[x_kube(validation = Rule::new(crate::rules::UNIQUE_NAMES).message(
        "two rules have one name; give every rule a name of its own"
    ))]
    #[garde(dive)]
    pub rules: Vec<PolicyRule>,
}

/// One rule: all that is given must hold of the packet. A rule that gives nothing but an
/// action matches every IPv4 and IPv6 packet. A field that the packet lacks never matches.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crd_object)]
#[x_kube(validation = Rule::new(
    "!has(self.fragments) || self.fragments != 'Later' || !has(self.protocols) \
     || !self.protocols.exists(p, \
        has(p.tcp) && (has(p.tcp.ports) || has(p.tcp.sourcePorts) || has(p.tcp.flags) \
            || has(p.tcp.established)) \
        || has(p.udp) && (has(p.udp.ports) || has(p.udp.sourcePorts)) \
        || has(p.sctp) && (has(p.sctp.ports) || has(p.sctp.sourcePorts)) \
        || has(p.icmp) && has(p.icmp.types) \
        || has(p.icmpv6) && has(p.icmpv6.types))"
).message(
    "a later fragment carries no ports, flags or types, so the rule would never match; remove \
     these qualifiers, or fragments: Later"
))]
pub struct PolicyRule {
    /// The rule's name, unique in the policy: lower-case letters, digits and '-'. Its counters
    /// belong to this name, whatever else of the rule changes.
    #[schemars(length(min = 1, max = 63), regex(pattern = crate::structural::RULE_NAME))]
    pub name: String,

    /// What happens to a packet that matches. Allow lets it leave the policies, to the load
    /// balancer if one is set up and else to the host. Drop discards it.
    pub action: Action,

    /// The packet's source. Absent means any address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Endpoint>,

    /// The packet's destination, as it arrives: before any address translation. Absent means
    /// any address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Endpoint>,

    /// Protocols, any of them. Absent means every protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub protocols: Option<Vec<Protocol>>,

    /// First matches only the first fragment of a fragmented packet, Later only the fragments
    /// after it, which carry no ports, flags or types. Absent matches all, fragmented or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fragments: Option<Fragments>,
}

/// What happens to a packet.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// The packet leaves the policies.
    #[default]
    Allow,
    /// The packet is discarded.
    Drop,
}

/// How a program is attached to an interface.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachMode {
    /// Native where the driver can, else generic.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// After the driver.
    Generic,
}

/// Which fragments a rule is about.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragments {
    /// The first fragment of a fragmented packet.
    First,
    /// All fragments but the first.
    Later,
}

fn default_interfaces() -> Vec<String> {
    vec![DEFAULT_ROUTE.into()]
}

fn default_priority() -> u16 {
    500
}
