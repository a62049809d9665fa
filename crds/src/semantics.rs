//! What CEL cannot say: label keys, and rules that can never match.

use ipnet::IpNet;

use crate::{
    Endpoint, LabelSelector, PolicyRule, Protocol, Resource, TcpFlag, TcpMatch, check::Problem,
    metadata::is_label_key, parse_cidr, path::Path, remedy, structural::LABEL_KEY,
};

pub(crate) fn check(resource: &Resource, problems: &mut Vec<Problem>, warnings: &mut Vec<Problem>) {
    let spec = Path::ROOT.field("spec");
    match resource {
        Resource::CidrGroup(group) => {
            cidrs(&spec.field("cidrs"), &group.spec.cidrs, warnings);
        }
        Resource::XdpPolicy(policy) => {
            if let Some(selector) = &policy.spec.node_selector {
                label_keys(&spec.field("nodeSelector"), selector, problems);
            }
            let rules = spec.field("rules");
            for (index, rule) in policy.spec.rules.iter().enumerate() {
                check_rule(&rules.item(index), rule, problems, warnings);
            }
        }
    }
}

fn check_rule(
    path: &Path<'_>,
    rule: &PolicyRule,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<Problem>,
) {
    let from = side(&path.field("from"), rule.from.as_ref(), problems, warnings);
    let to = side(&path.field("to"), rule.to.as_ref(), problems, warnings);
    let both = from.and(to);
    if from.any() && to.any() && !both.any() {
        problems.push(remedy::problem(
            path.field("to"),
            format!(
                "holds only {} and from only {}, so no packet has both",
                to.name(),
                from.name()
            ),
            "give both sides addresses of one family",
        ));
        return;
    }
    let protocols = path.field("protocols");
    for (index, protocol) in rule.protocols.iter().flatten().enumerate() {
        let path = protocols.item(index);
        match protocol {
            Protocol::Icmp(_) if both.any() && !both.v4 => {
                problems.push(wrong_icmp(&path, "icmp", both, "icmpv6"));
            }
            Protocol::Icmpv6(_) if both.any() && !both.v6 => {
                problems.push(wrong_icmp(&path, "icmpv6", both, "icmp"));
            }
            Protocol::Tcp(tcp) => established(&path, tcp, problems),
            _ => {}
        }
    }
}

fn wrong_icmp(path: &Path<'_>, written: &str, families: Families, other: &str) -> Problem {
    remedy::problem(
        path.field(written),
        format!(
            "never matches, for the rule's addresses are {} only",
            families.name()
        ),
        format!("write {other}, or add addresses of the other family"),
    )
}

fn established(path: &Path<'_>, tcp: &TcpMatch, problems: &mut Vec<Problem>) {
    let (Some(established), Some(flags)) = (tcp.established, &tcp.flags) else {
        return;
    };
    let acknowledges = |flag: &TcpFlag| matches!(flag, TcpFlag::Ack | TcpFlag::Rst);
    let contradicted = if established {
        flags.unset.contains(&TcpFlag::Ack) && flags.unset.contains(&TcpFlag::Rst)
    } else {
        flags.set.iter().any(acknowledges)
    };
    if contradicted {
        problems.push(remedy::problem(
            path.field("tcp").field("established"),
            "contradicts flags, so nothing matches: established means that Ack or Rst is set",
            "remove established, or these flags",
        ));
    }
}

/// Which address families a packet that matches may have.
#[derive(Clone, Copy, Default)]
struct Families {
    v4: bool,
    v6: bool,
}

impl Families {
    const BOTH: Self = Self { v4: true, v6: true };

    fn and(self, other: Self) -> Self {
        Self {
            v4: self.v4 && other.v4,
            v6: self.v6 && other.v6,
        }
    }

    fn any(self) -> bool {
        self.v4 || self.v6
    }

    fn name(self) -> &'static str {
        if self.v6 { "IPv6" } else { "IPv4" }
    }

    fn add(&mut self, net: &IpNet) {
        match net {
            IpNet::V4(_) => self.v4 = true,
            IpNet::V6(_) => self.v6 = true,
        }
    }
}

/// The families that a side leaves possible; groups may hold either.
fn side(
    path: &Path<'_>,
    endpoint: Option<&Endpoint>,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<Problem>,
) -> Families {
    let Some(endpoint) = endpoint else {
        return Families::BOTH;
    };
    let mut given = cidrs(&path.field("cidrs"), &endpoint.cidrs, warnings);
    let taken = cidrs(&path.field("except"), &endpoint.except, warnings);
    if let Some(groups) = &endpoint.cidr_groups {
        if let Some(selector) = &groups.selector {
            let path = path.field("cidrGroups");
            label_keys(&path.field("selector"), selector, problems);
        }
        given.extend(everything());
    }
    let taken = IpNet::aggregate(&taken);
    let mut families = Families::default();
    for net in &given {
        if !taken.iter().any(|t| t.contains(net)) {
            families.add(net);
        }
    }
    if !families.any() && !given.is_empty() {
        problems.push(remedy::problem(
            path.field("except"),
            "takes away every address of this side, so the rule never matches",
            "narrow except, or remove the rule",
        ));
    }
    families
}

fn everything() -> [IpNet; 2] {
    [IpNet::V4(Default::default()), IpNet::V6(Default::default())]
}

/// The networks of a list, with one warning of host bits. The schema has refused
/// what is no CIDR.
fn cidrs(path: &Path<'_>, list: &[String], warnings: &mut Vec<Problem>) -> Vec<IpNet> {
    let mut nets = Vec::with_capacity(list.len());
    let mut first_with_host_bits = None;
    let mut with_host_bits = 0;
    for (index, text) in list.iter().enumerate() {
        let Ok(net) = parse_cidr(text) else { continue };
        if net.addr() != net.network() {
            with_host_bits += 1;
            first_with_host_bits.get_or_insert((index, text, net.trunc()));
        }
        nets.push(net.trunc());
    }
    if let Some((index, text, meant)) = first_with_host_bits {
        let more = match with_host_bits - 1 {
            0 => String::new(),
            n => format!(", and {n} more in this list"),
        };
        warnings.push(remedy::problem(
            path.item(index),
            format!("{text} has bits set beyond its prefix length and means {meant}{more}"),
            format!("write {meant}"),
        ));
    }
    nets
}

fn label_keys(path: &Path<'_>, selector: &LabelSelector, problems: &mut Vec<Problem>) {
    let path = path.field("matchLabels");
    for key in selector.match_labels.keys() {
        if key.len() > 317 || !is_label_key(key) {
            problems.push(remedy::mismatch(&path.key(key), key, LABEL_KEY));
        }
    }
}
