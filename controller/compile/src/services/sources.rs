//! Who is outside of a service's source ranges.

use std::{net::IpAddr, sync::Arc};

use headgate_crds::{IpNet, LoadBalancerServiceSpec, parse_cidr};
use headgate_layout::verdict::Action;

use super::protocol;
use crate::{
    addresses::AddressSet,
    classifier::{Rule, Term},
};

/// The rule of a service with source ranges, which is tried before those of all policies: what comes from
/// outside of them for one of its addresses and ports is dropped, and counts by `counter`.
pub(crate) fn refusal(spec: &LoadBalancerServiceSpec, ranges: &[String], counter: u32) -> Rule {
    let addresses = spec.parsed_addresses().map(IpNet::from);
    let ports = spec.ports.iter();
    Rule {
        action: Action::Drop,
        counter,
        source: Some(Arc::new(everything().minus(&set_of(ranges)))),
        destination: Some(Arc::new(AddressSet::from_networks(addresses))),
        terms: ports
            .map(|port| Term::to_port(protocol(port.protocol), port.port))
            .collect(),
    }
}

/// Whether `client` lies in one of the ranges.
#[must_use]
pub fn admit(ranges: &[String], client: IpAddr) -> bool {
    let set = set_of(ranges);
    match client {
        IpAddr::V4(v4) => set.v4.contains(v4.to_bits()),
        IpAddr::V6(v6) => set.v6.contains(v6.to_bits()),
    }
}

fn set_of(ranges: &[String]) -> AddressSet {
    // The check that let the service in has parsed every one of them.
    AddressSet::from_networks(ranges.iter().filter_map(|range| parse_cidr(range).ok()))
}

fn everything() -> AddressSet {
    let zero = [IpAddr::from([0; 4]), IpAddr::from([0; 16])];
    // A prefix of no bits is never too long.
    AddressSet::from_networks(zero.into_iter().filter_map(|zero| IpNet::new(zero, 0).ok()))
}
