//! Warnings of host bits: CIDRs that mean another than they spell.
//!
//! Apart from the refusals, for garde knows no warnings.

use crate::{Resource, check::Problem, parse_cidr, path::Path, remedy};

pub(crate) fn check(resource: &Resource, warnings: &mut Vec<Problem>) {
    let spec = Path::ROOT.field("spec");
    match resource {
        Resource::AddressPool(pool) => list(&spec.field("cidrs"), &pool.spec.cidrs, warnings),
        Resource::LoadBalancerService(service) => {
            let ranges = service.spec.source_ranges.as_deref().unwrap_or_default();
            list(&spec.field("sourceRanges"), ranges, warnings);
        }
        Resource::CidrGroup(group) => list(&spec.field("cidrs"), &group.spec.cidrs, warnings),
        Resource::TunnelPeer(peer) => {
            list(&spec.field("podCIDRs"), &peer.spec.pod_cidrs, warnings);
        }
        Resource::XdpPolicy(policy) => {
            let rules = spec.field("rules");
            for (index, rule) in policy.spec.rules.iter().enumerate() {
                let rule_path = rules.item(index);
                for (name, side) in [("from", &rule.from), ("to", &rule.to)] {
                    let Some(side) = side else { continue };
                    let path = rule_path.field(name);
                    list(&path.field("cidrs"), &side.cidrs, warnings);
                    list(&path.field("except"), &side.except, warnings);
                }
            }
        }
    }
}

/// One warning a list. The schema has refused what is no CIDR.
fn list(path: &Path<'_>, list: &[String], warnings: &mut Vec<Problem>) {
    let mut with_host_bits = list.iter().enumerate().filter_map(|(index, text)| {
        let net = parse_cidr(text).ok()?;
        (net.addr() != net.network()).then(|| (index, text, net.trunc()))
    });
    let Some((index, text, meant)) = with_host_bits.next() else {
        return;
    };
    let more = match with_host_bits.count() {
        0 => String::new(),
        n => format!(", and {n} more in this list"),
    };
    warnings.push(remedy::problem(
        path.item(index),
        format!("{text} has bits set beyond its prefix length and means {meant}{more}"),
        format!("write {meant}"),
    ));
}
