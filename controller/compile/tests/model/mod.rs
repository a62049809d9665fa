//! First match in the most obvious code: what the resources say, read word by word for each packet.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::{collections::BTreeMap, net::IpAddr};

use headgate_crds::{
    Action, CidrGroupReference, Endpoint, Fragments, IpNet, LabelSelector, LabelSelectorOperator,
    LoadBalancerServiceSpec, PolicyRule, PortRange, Protocol, ServiceProtocol, TcpMatch,
    XdpPolicySpec,
};

/// The fields of a packet. A field that it lacks is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    pub piece: Piece,
    /// Source and destination port.
    pub ports: Option<(u16, u16)>,
    pub flags: Option<u8>,
    /// ICMP or ICMPv6 type.
    pub kind: Option<u8>,
}

/// Whether the packet is a piece of a larger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    Whole,
    First,
    Later,
}

/// A policy and its name.
#[derive(Clone, Debug)]
pub struct Policy {
    pub name: String,
    pub spec: XdpPolicySpec,
}

/// A group, its name and its labels.
#[derive(Clone, Debug)]
pub struct Group {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub cidrs: Vec<String>,
}

/// A service of the namespace `shop` and its name.
#[derive(Clone, Debug)]
pub struct Service {
    pub name: String,
    pub spec: LoadBalancerServiceSpec,
}

/// Everything that one node knows.
#[derive(Clone, Debug)]
pub struct World {
    pub policies: Vec<Policy>,
    pub groups: Vec<Group>,
    pub services: Vec<Service>,
    pub node_labels: BTreeMap<String, String>,
}

/// What becomes of a packet, and by whose word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Neither a policy nor a service concerns the interface.
    NotConcerned,
    /// No rule matched.
    Default(Action),
    /// This rule of this policy.
    Rule(Action, String, String),
}

impl Outcome {
    pub fn drops(&self) -> bool {
        matches!(
            self,
            Self::Default(Action::Drop) | Self::Rule(Action::Drop, _, _)
        )
    }
}

impl World {
    /// What becomes of `packet` when it arrives at `interface`.
    pub fn judge(&self, interface: &str, packet: &Fields) -> Outcome {
        let mut policies: Vec<&Policy> = self
            .policies
            .iter()
            .filter(|policy| self.concerns(&policy.spec, interface))
            .collect();
        let services = self.services.iter();
        let served =
            services.filter(|service| service.spec.interfaces.iter().any(|i| i == interface));
        if policies.is_empty() && served.clone().count() == 0 {
            return Outcome::NotConcerned;
        }
        for service in served {
            if is_for(&service.spec, packet) && is_outside(&service.spec, packet.source) {
                let name = format!("shop/{}", service.name);
                return Outcome::Rule(Action::Drop, name, "sourceRanges".to_owned());
            }
        }
        policies.sort_by_key(|policy| (policy.spec.priority, &policy.name));
        for policy in &policies {
            for rule in &policy.spec.rules {
                if self.matches(rule, packet) {
                    return Outcome::Rule(rule.action, policy.name.clone(), rule.name.clone());
                }
            }
        }
        let mut defaults = policies.iter().map(|policy| policy.spec.default_action);
        if defaults.any(|default| default == Action::Drop) {
            Outcome::Default(Action::Drop)
        } else {
            Outcome::Default(Action::Allow)
        }
    }

    fn concerns(&self, spec: &XdpPolicySpec, interface: &str) -> bool {
        let node = spec.node_selector.as_ref();
        let selected = node.is_none_or(|selector| selects(selector, &self.node_labels));
        let named = spec
            .interfaces
            .iter()
            .any(|pattern| match pattern.strip_suffix('*') {
                Some(start) => interface.starts_with(start),
                None => interface == pattern,
            });
        selected && named
    }

    fn matches(&self, rule: &PolicyRule, packet: &Fields) -> bool {
        self.holds(rule.from.as_ref(), packet.source)
            && self.holds(rule.to.as_ref(), packet.destination)
            && match rule.fragments {
                None => true,
                Some(Fragments::First) => packet.piece == Piece::First,
                Some(Fragments::Later) => packet.piece == Piece::Later,
            }
            && match &rule.protocols {
                None => true,
                Some(protocols) => protocols.iter().any(|protocol| asks_for(protocol, packet)),
            }
    }

    fn holds(&self, endpoint: Option<&Endpoint>, address: IpAddr) -> bool {
        let Some(endpoint) = endpoint else {
            return true;
        };
        let in_group = match &endpoint.cidr_groups {
            None => false,
            Some(reference) => self
                .groups
                .iter()
                .any(|group| names_or_selects(reference, group) && contains(&group.cidrs, address)),
        };
        (contains(&endpoint.cidrs, address) || in_group) && !contains(&endpoint.except, address)
    }
}

fn is_for(service: &LoadBalancerServiceSpec, packet: &Fields) -> bool {
    let mut addresses = service.addresses.iter();
    let is_at = |port: &headgate_crds::ServicePort| {
        let protocol = match port.protocol {
            ServiceProtocol::Tcp => 6,
            ServiceProtocol::Udp => 17,
        };
        packet.protocol == protocol && packet.ports.is_some_and(|(_, to)| to == port.port)
    };
    addresses.any(|address| *address == packet.destination.to_string())
        && service.ports.iter().any(is_at)
}

fn is_outside(service: &LoadBalancerServiceSpec, client: IpAddr) -> bool {
    let ranges = service.source_ranges.as_ref();
    ranges.is_some_and(|ranges| !contains(ranges, client))
}

fn contains(cidrs: &[String], address: IpAddr) -> bool {
    cidrs
        .iter()
        .any(|cidr| cidr.parse::<IpNet>().unwrap().contains(&address))
}

fn names_or_selects(reference: &CidrGroupReference, group: &Group) -> bool {
    let selector = reference.selector.as_ref();
    reference.names.contains(&group.name)
        || selector.is_some_and(|selector| selects(selector, &group.labels))
}

fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    for (key, value) in &selector.match_labels {
        if labels.get(key) != Some(value) {
            return false;
        }
    }
    for requirement in &selector.match_expressions {
        let value = labels.get(&requirement.key);
        let listed = value.is_some_and(|value| requirement.values.contains(value));
        let met = match requirement.operator {
            LabelSelectorOperator::In => listed,
            LabelSelectorOperator::NotIn => !listed,
            LabelSelectorOperator::Exists => value.is_some(),
            LabelSelectorOperator::DoesNotExist => value.is_none(),
        };
        if !met {
            return false;
        }
    }
    true
}

fn asks_for(protocol: &Protocol, packet: &Fields) -> bool {
    let (source, destination) = packet.ports.unzip();
    match protocol {
        Protocol::Tcp(tcp) => {
            packet.protocol == 6
                && among(&tcp.ports, destination)
                && among(&tcp.source_ports, source)
                && flags_hold(tcp, packet.flags)
        }
        Protocol::Udp(udp) => {
            packet.protocol == 17
                && among(&udp.ports, destination)
                && among(&udp.source_ports, source)
        }
        Protocol::Sctp(sctp) => {
            packet.protocol == 132
                && among(&sctp.ports, destination)
                && among(&sctp.source_ports, source)
        }
        Protocol::Icmp(icmp) => {
            packet.protocol == 1 && packet.source.is_ipv4() && listed(&icmp.types, packet.kind)
        }
        Protocol::Icmpv6(icmp) => {
            packet.protocol == 58 && packet.source.is_ipv6() && listed(&icmp.types, packet.kind)
        }
        Protocol::Number(number) => packet.protocol == *number,
    }
}

fn among(ranges: &Option<Vec<PortRange>>, port: Option<u16>) -> bool {
    match (ranges, port) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(ranges), Some(port)) => ranges
            .iter()
            .any(|range| range.port <= port && port <= range.end_port.unwrap_or(range.port)),
    }
}

fn listed(types: &Option<Vec<u8>>, kind: Option<u8>) -> bool {
    match (types, kind) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(types), Some(kind)) => types.contains(&kind),
    }
}

fn flags_hold(tcp: &TcpMatch, flags: Option<u8>) -> bool {
    if tcp.flags.is_none() && tcp.established.is_none() {
        return true;
    }
    let Some(flags) = flags else {
        return false;
    };
    if let Some(wanted) = &tcp.flags {
        let set = wanted.set.iter().all(|flag| flags & flag.bit() != 0);
        let unset = wanted.unset.iter().all(|flag| flags & flag.bit() == 0);
        if !set || !unset {
            return false;
        }
    }
    let (rst, ack) = (flags & 0x04 != 0, flags & 0x10 != 0);
    tcp.established.is_none_or(|wanted| wanted == (ack || rst))
}
