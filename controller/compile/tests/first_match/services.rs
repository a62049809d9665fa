//! Random services with source ranges, and packets for them.

use std::net::IpAddr;

use headgate_crds::{
    Backends, Forwarding, LoadBalancerServiceSpec, ServicePort, ServiceProtocol, StaticBackend,
    TrafficPolicy, WithoutBackends,
};
use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::{Index, select, subsequence},
};

use crate::{
    INTERFACES,
    model::{Fields, Service},
    policies::cidr,
};

/// Each address is of one service, as no two may serve one.
const ADDRESSES: [&str; 6] = [
    "10.1.2.3",
    "192.0.2.77",
    "203.0.113.9",
    "2001:db8:1::1",
    "2001:db8:1::2",
    "8000::",
];
const PORTS: [u16; 4] = [1, 53, 80, 65535];

pub fn services() -> impl Strategy<Value = Vec<Service>> {
    let assigned = vec(0..4usize, ADDRESSES.len());
    (assigned, vec(spec(), 4)).prop_map(|(assigned, specs)| {
        let services = specs.into_iter().enumerate().map(|(number, spec)| {
            let mine = ADDRESSES.iter().zip(&assigned);
            let mine = mine.filter(|(_, owner)| **owner == number);
            Service {
                name: format!("service-{number}"),
                spec: LoadBalancerServiceSpec {
                    addresses: mine.map(|(address, _)| (*address).to_owned()).collect(),
                    ..spec
                },
            }
        });
        services.collect()
    })
}

fn spec() -> impl Strategy<Value = LoadBalancerServiceSpec> {
    let protocols = || subsequence(vec![ServiceProtocol::Tcp, ServiceProtocol::Udp], 1..=2);
    let ports = vec(protocols(), PORTS.len()).prop_flat_map(|protocols| {
        let pairs = PORTS.into_iter().zip(protocols);
        let pairs: Vec<_> = pairs
            .flat_map(|(port, protocols)| protocols.into_iter().map(move |p| (port, p)))
            .collect();
        subsequence(pairs, 1..=3)
    });
    (
        ports,
        option::weighted(0.8, vec(cidr(), 1..5)),
        subsequence(INTERFACES.to_vec(), 1..=2),
        select(vec![Forwarding::Nat, Forwarding::DirectReturn]),
    )
        .prop_map(
            |(ports, source_ranges, interfaces, forwarding)| LoadBalancerServiceSpec {
                node_selector: None,
                interfaces: interfaces.into_iter().map(str::to_owned).collect(),
                addresses: Vec::new(),
                ports: named(ports),
                backends: Backends {
                    fixed: ["198.51.100.1", "fd00::1"].map(backend).into(),
                    service_ref: None,
                },
                source_ranges,
                forwarding,
                external_traffic_policy: TrafficPolicy::Cluster,
                without_backends: WithoutBackends::Drop,
                ring_size: 4_093,
            },
        )
}

fn named(ports: Vec<(u16, ServiceProtocol)>) -> Vec<ServicePort> {
    let ports = ports.into_iter().map(|(port, protocol)| ServicePort {
        name: format!("{}-{port}", protocol.as_str().to_lowercase()),
        protocol,
        port,
        target_port: None,
    });
    ports.collect()
}

fn backend(address: &str) -> StaticBackend {
    StaticBackend {
        address: address.to_owned(),
        weight: 1,
    }
}

/// What of a packet is changed for it to be for a service.
#[derive(Clone, Debug)]
pub struct Aim(Option<(Index, Index, Index)>);

pub fn aim() -> impl Strategy<Value = Aim> {
    let places = any::<(Index, Index, Index)>();
    option::weighted(0.8, places).prop_map(Aim)
}

impl Aim {
    /// The packet, most often sent to an address of a service, and half of the time to a port of it.
    pub fn at_one_of(&self, services: &[Service], packet: Fields) -> Fields {
        let Some((service, address, port)) = self.0 else {
            return packet;
        };
        let spec = &service.get(services).spec;
        let addresses = spec.parsed_addresses();
        let of_family = |a: &IpAddr| a.is_ipv4() == packet.source.is_ipv4();
        let addresses: Vec<IpAddr> = addresses.filter(of_family).collect();
        if addresses.is_empty() {
            return packet;
        }
        let aimed = Fields {
            destination: *address.get(&addresses),
            ..packet
        };
        let port = port.get(&spec.ports).port;
        match packet.ports {
            Some((source, _)) if source % 2 == 0 => Fields {
                ports: Some((source, port)),
                ..aimed
            },
            _ => aimed,
        }
    }
}
