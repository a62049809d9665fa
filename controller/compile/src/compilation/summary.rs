//! What was compiled, for people.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use headgate_crds::{Forwarding, LocalDelivery, TunnelMode, parse_cidr};
use headgate_datapath::{
    failsafe::Prefix,
    state::{Block, Digest, Ifindex},
};
use headgate_layout::verdict::Action;
use serde::{Deserialize, Serialize};

use super::{
    Compiler,
    attempt::{Attempt, Chosen, PolicySet},
};
use crate::{
    adopt::Version,
    classifier::Sizes,
    endpoints::Member,
    select,
    services::History,
    snapshot::{Content, Uid},
};

/// A rule, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleSummary {
    /// Its name.
    pub name: String,
    /// `Allow` or `Drop`.
    pub action: String,
    /// Index of its counter.
    pub counter: Option<u32>,
}

/// A policy, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicySummary {
    /// Its name.
    pub name: String,
    /// Where it was read.
    pub place: String,
    /// Number of the content that was read.
    pub generation: u64,
    /// Number of the content that is in effect, if any is.
    pub effective: Option<u64>,
    /// Lower first.
    pub priority: u16,
    /// `Allow` or `Drop`.
    pub default_action: String,
    /// Whether its nodeSelector selects this node.
    pub selected: bool,
    /// Interfaces that it is compiled for.
    pub interfaces: Vec<String>,
    /// Rules of the content that is in effect, in order.
    pub rules: Vec<RuleSummary>,
}

/// A service, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSummary {
    /// Its name, with its namespace.
    pub name: String,
    /// Where it was read.
    pub place: String,
    /// Number of the content that was read.
    pub generation: u64,
    /// Number of the content that is in effect, if any is.
    pub effective: Option<u64>,
    /// Whether its nodeSelector selects this node.
    pub selected: bool,
    /// Interfaces that it is compiled for.
    pub interfaces: Vec<String>,
    /// What is served, in order of addresses and ports.
    pub frontends: Vec<FrontendSummary>,
    /// Who may use it; absent: any.
    #[serde(default)]
    pub source_ranges: Option<SourceRangesSummary>,
    /// For the agent that compiled it.
    #[serde(skip)]
    pub needs: Needs,
}

/// What a service needs of the node besides the programs on its interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The table of flows.
    pub flows: bool,
    /// Interfaces with the program at the egress that restores replies.
    pub egress: BTreeSet<Ifindex>,
    /// Interfaces with the program that sends packets on to overlays, and back.
    pub overlay: BTreeSet<Ifindex>,
}

/// A service's source ranges, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRangesSummary {
    /// As written.
    pub ranges: Vec<String>,
    /// Index of the counter of what came from outside of them.
    pub counter: u32,
}

/// An address and port of a service, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontendSummary {
    /// The port's name.
    pub name: String,
    /// The address.
    pub address: IpAddr,
    /// `TCP` or `UDP`.
    pub protocol: String,
    /// The port.
    pub port: u16,
    /// How packets get to backends.
    #[serde(default)]
    pub forwarding: Forwarding,
    /// Entries of its ring.
    pub ring_size: u32,
    /// Index of its counter.
    pub counter: u32,
    /// Backends, in the order of their numbers in the ring.
    pub backends: Vec<Member>,
    /// What its connections are kept by while it settles from a change of its backends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settling: Option<Arc<History>>,
}

/// A peer of the tunnel, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerSummary {
    /// Its name.
    pub name: String,
    /// Where it was read.
    pub place: String,
    /// Number of the content that was read.
    pub generation: u64,
    /// Number of the content that is in effect, if any is.
    pub effective: Option<u64>,
    /// Whether its nodeSelector selects this node.
    pub selected: bool,
    /// Whether it is this node itself.
    pub is_own: bool,
    /// Its address in the network below.
    pub endpoint: IpAddr,
    /// Networks behind it.
    pub networks: Vec<String>,
    /// How packets get there.
    #[serde(default)]
    pub mode: TunnelMode,
    /// Number of the network that packets to it carry, by Vxlan.
    pub vni: Option<u32>,
    /// Link-layer address of its device, by Vxlan.
    pub mac: Option<String>,
    /// The node's own address on the way there.
    pub local: Option<IpAddr>,
    /// How what comes from it gets to the node's pods.
    #[serde(default)]
    pub local_delivery: LocalDelivery,
    /// What its packets leave by, by Vxlan.
    pub tunnel: Option<TunnelSummary>,
    /// What its packets leave by, by Native.
    #[serde(default)]
    pub native: Vec<NativeRouteSummary>,
}

/// A plain route to a network of a peer, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NativeRouteSummary {
    /// The network.
    pub network: Prefix,
    /// The peer's endpoint.
    pub gateway: IpAddr,
    /// Name of the interface.
    pub interface: String,
    /// Its number.
    pub ifindex: Ifindex,
    /// What the node's own packets on this way have for their source.
    pub source: Option<IpAddr>,
}

impl PeerSummary {
    /// Whether packets go to it.
    #[must_use]
    pub fn is_joined(&self) -> bool {
        self.effective.is_some() && !self.is_own
    }

    /// The networks, as they were written and as the kernel has them.
    pub fn prefixes(&self) -> impl Iterator<Item = (&str, Prefix)> {
        let networks = self.networks.iter();
        networks.filter_map(|text| {
            let network = parse_cidr(text).ok()?;
            let prefix = Prefix {
                address: network.network(),
                length: network.prefix_len(),
            };
            Some((text.as_str(), prefix))
        })
    }
}

/// The tunnel's device, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelSummary {
    /// Its name.
    pub device: String,
    /// UDP port that it listens at and sends to.
    pub port: u16,
    /// Bytes of an inner packet.
    pub mtu: u32,
    /// Its link-layer address.
    pub mac: String,
}

/// A policy set's tables, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablesSummary {
    /// Name of the tables.
    pub tables: Digest,
    /// Bytes in use.
    pub bytes: u32,
    /// Policies in the order in which they are tried.
    pub policies: Vec<String>,
    /// Services.
    #[serde(default)]
    pub services: Vec<String>,
    /// Interfaces that share the tables.
    pub interfaces: Vec<String>,
    /// Rules, those of services' source ranges included.
    pub rules: usize,
    /// Classes of sources, destinations and transport headers.
    pub classes: [usize; 3],
    /// Bytes of crossings.
    pub crossings: u64,
}

impl Compiler<'_> {
    pub(super) fn summary(&self, policy: &Chosen<'_>) -> PolicySummary {
        let candidate = &self.candidates[policy.uid];
        let read = candidate.present.as_ref().unwrap_or(policy.version);
        let rules = policy.spec.rules.iter().zip(&policy.compiled.rules);
        PolicySummary {
            name: policy.version.name.name.clone(),
            place: read.place.clone(),
            generation: candidate.generation,
            effective: Some(policy.version.generation),
            priority: policy.spec.priority,
            default_action: action_name(policy.compiled.default),
            selected: true,
            interfaces: policy.interfaces.iter().map(|i| i.name.clone()).collect(),
            rules: rules
                .map(|(written, compiled)| RuleSummary {
                    name: written.name.clone(),
                    action: action_name(compiled.action),
                    counter: Some(compiled.counter),
                })
                .collect(),
        }
    }

    /// Policies that exist and have nothing in effect here.
    pub(super) fn not_in_effect(
        &self,
        listed: &[PolicySummary],
        versions: &BTreeMap<Uid, Version>,
    ) -> Vec<PolicySummary> {
        let listed: BTreeSet<&str> = listed.iter().map(|policy| policy.name.as_str()).collect();
        let candidates = self.candidates.iter().filter_map(|(uid, candidate)| {
            let version = candidate
                .present
                .as_ref()
                .or(candidate.last_good.as_ref())?;
            let Content::Policy(spec) = &version.content else {
                return None;
            };
            let unlisted = !listed.contains(version.name.name.as_str());
            unlisted.then(|| PolicySummary {
                name: version.name.name.clone(),
                place: version.place.clone(),
                generation: candidate.generation,
                effective: versions.get(uid).map(|v| v.generation),
                priority: spec.priority,
                default_action: format!("{:?}", spec.default_action),
                selected: select::concerns(spec.node_selector.as_ref(), self.node),
                interfaces: Vec::new(),
                rules: spec
                    .rules
                    .iter()
                    .map(|rule| RuleSummary {
                        name: rule.name.clone(),
                        action: format!("{:?}", rule.action),
                        counter: None,
                    })
                    .collect(),
            })
        });
        candidates.collect()
    }
}

impl Attempt {
    pub(super) fn note_tables(
        &mut self,
        block: &Block,
        sizes: Sizes,
        set: &PolicySet<'_>,
        interface: &str,
    ) {
        if let Some(known) = self.tables.iter_mut().find(|t| t.tables == block.digest()) {
            known.interfaces.push(interface.to_owned());
            return;
        }
        let refusals = set.services.iter().filter(|s| s.refusal.is_some());
        let rules = set.policies.iter().map(|p| p.compiled.rules.len());
        self.tables.push(TablesSummary {
            tables: block.digest(),
            bytes: block.length_with_ring_blocks(),
            policies: names(set.policies.iter().map(|policy| policy.version)),
            services: names(set.services.iter().map(|service| service.version)),
            interfaces: vec![interface.to_owned()],
            rules: refusals.count() + rules.sum::<usize>(),
            classes: [sizes.sources, sizes.destinations, sizes.transports],
            crossings: sizes.crossings,
        });
    }
}

fn names<'a>(versions: impl Iterator<Item = &'a Version>) -> Vec<String> {
    versions.map(|version| version.name.name.clone()).collect()
}

fn action_name(action: Action) -> String {
    format!("{action:?}")
}
