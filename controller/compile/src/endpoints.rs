//! Backends of Services, as their EndpointSlices tell them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use headgate_crds::{ServicePort, ServiceProtocol, TrafficPolicy};
use serde::{Deserialize, Serialize};

/// Slices by Service, given as `NAMESPACE/NAME`.
pub type Endpoints = BTreeMap<String, Vec<Slice>>;

/// What an EndpointSlice says, as far as a load balancer asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Slice {
    /// Ports of all its endpoints.
    pub ports: Vec<SlicePort>,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// A port of a slice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SlicePort {
    /// The Service's name for it; empty where the Service has one port and no name for it.
    pub name: String,
    /// `TCP` or `UDP`.
    pub protocol: String,
    /// The port that endpoints listen on.
    pub port: u16,
}

/// A pod, most often.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// The node that it runs on.
    pub node: Option<String>,
    /// Whether it wants packets.
    pub readiness: Readiness,
}

/// Whether an endpoint wants packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Readiness {
    /// Of all flows.
    Ready,
    /// Of flows that it has, as it ends; of new ones where nobody is ready.
    Draining,
}

/// A backend of one port of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Member {
    /// Its address.
    pub address: IpAddr,
    /// The port that it listens on.
    pub port: u16,
    /// Its share.
    pub weight: u16,
    /// Whether it runs on this node: then the node's stack knows the way.
    pub here: bool,
}

/// The endpoints that serve `port` from the node `node`, in any order: those that are ready, or, where none
/// is, those that end but still serve, as kube-proxy chooses.
#[must_use]
pub fn members(
    slices: &[Slice],
    port: &ServicePort,
    policy: TrafficPolicy,
    node: &str,
) -> Vec<Member> {
    let of_readiness = |readiness| -> BTreeSet<Member> {
        let served = slices.iter().filter_map(|slice| {
            let number = port_of(slice, port)?;
            let wanted = slice.endpoints.iter().filter(move |endpoint| {
                let here = endpoint.node.as_deref() == Some(node);
                endpoint.readiness == readiness && (here || policy == TrafficPolicy::Cluster)
            });
            Some(wanted.map(move |endpoint| Member {
                address: endpoint.address,
                port: number,
                weight: 1,
                here: endpoint.node.as_deref() == Some(node),
            }))
        });
        served.flatten().collect()
    };
    let mut members = of_readiness(Readiness::Ready);
    if members.is_empty() {
        members = of_readiness(Readiness::Draining);
    }
    members.into_iter().collect()
}

/// By name; a slice whose only port has no name has that of every service's only port.
fn port_of(slice: &Slice, port: &ServicePort) -> Option<u16> {
    let protocol = match port.protocol {
        ServiceProtocol::Tcp => "TCP",
        ServiceProtocol::Udp => "UDP",
    };
    let is_meant = |found: &&SlicePort| {
        found.protocol == protocol && (found.name == port.name || found.name.is_empty())
    };
    slice.ports.iter().find(is_meant).map(|found| found.port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str) -> ServicePort {
        ServicePort {
            name: name.to_owned(),
            protocol: ServiceProtocol::Tcp,
            port: 80,
            target_port: None,
        }
    }

    fn slice(name: &str, number: u16, endpoints: &[(u8, &str, Readiness)]) -> Slice {
        let endpoint = |(last, node, readiness): &(u8, &str, Readiness)| Endpoint {
            address: [10, 0, 0, *last].into(),
            node: Some((*node).to_owned()),
            readiness: *readiness,
        };
        Slice {
            ports: vec![SlicePort {
                name: name.to_owned(),
                protocol: "TCP".to_owned(),
                port: number,
            }],
            endpoints: endpoints.iter().map(endpoint).collect(),
        }
    }

    fn found(slices: &[Slice], name: &str, policy: TrafficPolicy) -> Vec<(u8, u16, bool)> {
        let members = members(slices, &port(name), policy, "a");
        let last = |address| match address {
            IpAddr::V4(v4) => v4.octets()[3],
            IpAddr::V6(_) => panic!("IPv4"),
        };
        members
            .iter()
            .map(|m| (last(m.address), m.port, m.here))
            .collect()
    }

    #[test]
    fn ready_endpoints_serve_the_port_of_that_name() {
        use Readiness::Ready;
        let slices = [
            slice("web", 8080, &[(1, "a", Ready), (2, "b", Ready)]),
            slice("web", 8081, &[(3, "b", Ready)]),
            slice("metrics", 9090, &[(1, "a", Ready)]),
        ];
        let all = [(1, 8080, true), (2, 8080, false), (3, 8081, false)];
        assert_eq!(found(&slices, "web", TrafficPolicy::Cluster), all);
        assert_eq!(found(&slices, "web", TrafficPolicy::Local), all[..1]);
        assert_eq!(found(&slices, "other", TrafficPolicy::Cluster), []);
        let unnamed = [slice("", 8080, &[(1, "a", Ready)])];
        let only = [(1, 8080, true)];
        assert_eq!(found(&unnamed, "other", TrafficPolicy::Cluster), only);
    }

    #[test]
    fn those_that_end_serve_where_nobody_else_does() {
        use Readiness::{Draining, Ready};
        let slices = [slice("", 80, &[(1, "a", Draining), (2, "b", Ready)])];
        assert_eq!(
            found(&slices, "web", TrafficPolicy::Cluster),
            [(2, 80, false)]
        );
        assert_eq!(found(&slices, "web", TrafficPolicy::Local), [(1, 80, true)]);
    }
}
