//! What a peer asks of its networks and its endpoint, beyond the schema.

use std::net::IpAddr;

use crate::{address, backends::is_of_a_host, parse_cidr, validation::refusal};

/// Networks of hosts: none of them everything, of one host that talks to itself, or of a link.
pub(crate) fn is_unicast(cidrs: &[String], (): &()) -> garde::Result {
    for network in cidrs.iter().filter_map(|text| parse_cidr(text).ok()) {
        let network = network.trunc();
        if network.prefix_len() == 0 {
            return Err(refusal(
                format!("{network} is every address there is"),
                "list the networks that are behind the peer",
            ));
        }
        let first = network.network();
        let is_zero = matches!(first, IpAddr::V4(v4) if v4.octets()[0] == 0);
        if is_zero || !is_of_a_host(first) {
            return Err(refusal(
                format!("{network} is no network of pods"),
                "list networks of unicast addresses that are routed: not loopback, link-local or multicast",
            ));
        }
    }
    Ok(())
}

/// The endpoint must be reached otherwise than through the tunnel.
pub(crate) fn is_apart(cidrs: &[String]) -> impl Fn(&str, &()) -> garde::Result {
    let networks: Vec<_> = cidrs.iter().filter_map(|c| parse_cidr(c).ok()).collect();
    move |endpoint, ()| {
        let Some(endpoint) = address::parse(endpoint) else {
            return Ok(());
        };
        if !is_of_a_host(endpoint) {
            return Err(refusal(
                format!("the endpoint {endpoint} is no address of another host"),
                "give a unicast address that is routed: not loopback, link-local or multicast",
            ));
        }
        match networks.iter().find(|network| network.contains(&endpoint)) {
            Some(network) => Err(refusal(
                format!(
                    "the endpoint {endpoint} lies in {}, which is reached through it",
                    network.trunc()
                ),
                "give the peer's address in the network below, or correct podCIDRs",
            )),
            None => Ok(()),
        }
    }
}
