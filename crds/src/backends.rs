//! What a service asks of its addresses and backends, beyond the schema.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{Backends, address, validation::refusal};

/// No address may stand there in two spellings.
pub(crate) fn are_different(addresses: &[String], (): &()) -> garde::Result {
    let mut seen = BTreeSet::new();
    for address in addresses.iter().filter_map(|text| address::parse(text)) {
        if !seen.insert(address) {
            return Err(refusal(
                format!("{address} is listed twice, in two spellings"),
                "remove one of the two",
            ));
        }
    }
    Ok(())
}

/// Every address must have a backend of its family that gets packets, and no backend may be an address
/// of the service itself, or stand there twice.
pub(crate) fn are_usable(addresses: &[String]) -> impl Fn(&Backends, &()) -> garde::Result {
    let addresses: BTreeSet<IpAddr> = addresses.iter().filter_map(|a| address::parse(a)).collect();
    move |backends, ()| {
        if backends.service_ref.is_some() {
            return Ok(());
        }
        let mut seen = BTreeSet::new();
        for backend in &backends.fixed {
            let Some(parsed) = address::parse(&backend.address) else {
                continue;
            };
            if addresses.contains(&parsed) {
                return Err(refusal(
                    format!("the backend {parsed} is an address of the service itself"),
                    "give the backend's own address, by which its link-layer address is found",
                ));
            }
            if !is_of_a_host(parsed) {
                return Err(refusal(
                    format!("the backend {parsed} is no address of another host"),
                    "give a unicast address that is routed: not loopback, link-local or multicast",
                ));
            }
            if !seen.insert(parsed) {
                return Err(refusal(
                    format!("the backend {parsed} is listed twice"),
                    "list it once, with a greater weight if it is to get more",
                ));
            }
        }
        for address in &addresses {
            let serves = backends.fixed.iter().any(|backend| {
                let parsed = address::parse(&backend.address);
                backend.weight > 0 && parsed.is_some_and(|b| b.is_ipv4() == address.is_ipv4())
            });
            if !serves {
                let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
                return Err(refusal(
                    format!("no {family} backend with a weight above 0 serves {address}"),
                    format!("add one, or remove {address}"),
                ));
            }
        }
        Ok(())
    }
}

/// What lies at other addresses depends on who asks, such as a cloud's metadata.
pub(crate) fn is_of_a_host(address: IpAddr) -> bool {
    let is_link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(is_link_local || address.is_loopback() || address.is_multicast() || address.is_unspecified())
}
