//! Rings that are many lie in maps of their own, and a change of one service copies only those of its neighbours.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use headgate_compile::{node::NextHop, services::place_of};
use headgate_crds::ServiceProtocol;
use headgate_datapath::plan::Step;
use headgate_kernel_tests::{
    frames::{Segment, XDP_TX},
    trials::in_kernel_that_balances as in_kernel,
};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::compiled::{ARRIVED, Compiled};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        in_kernel("many_rings_lead_where_few_would", places),
        in_kernel("a_change_of_one_service_copies_few_rings", change),
        in_kernel("ring_blocks_go_when_rings_are_few", few),
    ]
}

/// Their rings take more than a block holds inside, 32 KiB each.
const SERVICES: u8 = 100;
const RING: u32 = 16_381;

/// Backends of a service: no two services have the same.
fn backends(service: u8, without: u8) -> Vec<IpAddr> {
    let hosts = (0..5 + service % 7).filter(|host| *host != without);
    let addresses = hosts.map(|host| Ipv4Addr::new(198, 51, service, host + 1));
    addresses.map(IpAddr::from).collect()
}

const NOBODY: u8 = u8::MAX;

fn address(service: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, service)
}

fn service(number: u8, backends: &[IpAddr]) -> Value {
    let backends: Vec<Value> = backends.iter().map(|a| json!({"address": a})).collect();
    json!({
        "apiVersion": "headgate.dev/v1alpha1", "kind": "LoadBalancerService",
        "metadata": {"name": format!("s{number}"), "namespace": "shop"},
        "spec": {
            "addresses": [address(number).to_string()],
            "ports": [{"name": format!("s{number}"), "protocol": "TCP", "port": 80}],
            "backends": {"static": backends},
            "forwarding": "DirectReturn",
            "ringSize": RING,
        },
    })
}

/// So many services; the one of number 7 lacks the backend `without`.
fn services(count: u8, without: u8) -> Vec<Value> {
    let pool = json!({
        "apiVersion": "headgate.dev/v1alpha1", "kind": "AddressPool",
        "metadata": {"name": "all"},
        "spec": {"cidrs": ["192.0.2.0/24"]},
    });
    let services = (0..count).map(|number| {
        let without = if number == 7 { without } else { NOBODY };
        service(number, &backends(number, without))
    });
    std::iter::once(pool).chain(services).collect()
}

/// The MAC address of a backend tells which it is.
fn link_address(backend: IpAddr) -> [u8; 6] {
    let IpAddr::V4(address) = backend else {
        panic!("all are IPv4");
    };
    let [_, _, service, host] = address.octets();
    [2, 0, 0, 0, service, host]
}

fn ways() -> BTreeMap<IpAddr, NextHop> {
    let all = (0..SERVICES).flat_map(|service| backends(service, NOBODY));
    let way = |address| {
        let hop = NextHop {
            ifindex: ARRIVED,
            mtu: 1_500,
            reflects: true,
            destination: link_address(address),
            source: [2, 0, 0, 0, 0, 9],
            local: None,
            overlay: false,
        };
        (address, hop)
    };
    all.map(way).collect()
}

/// Flows to a service go to the backend that Maglev's ring alone has for them, in the kernel as on the host.
fn assert_placed(served: &Compiled, service: u8, backends: &[IpAddr]) {
    let weighted: Vec<(IpAddr, u16)> = backends.iter().map(|a| (*a, 1)).collect();
    let address = address(service);
    let service = SocketAddr::new(address.into(), 80);
    for flow in 0..12_u16 {
        let client = SocketAddr::new(Ipv4Addr::new(10, 0, 0, flow as u8).into(), 1_024 + flow);
        let segment = Segment {
            source: client.ip(),
            ports: (client.port(), 80),
            flags: 2,
            offset: 0,
        };
        let mut frame = segment.frame();
        frame[30..34].copy_from_slice(&address.octets());
        let (_, place) = place_of(client, service, ServiceProtocol::Tcp, &weighted, RING);
        let run = served.node.kernel.run_program(Compiled::port(), &frame, 1);
        let run = run.expect("a test run");
        assert_eq!(run.verdict, XDP_TX, "{service}");
        assert_eq!(run.frame[..6], link_address(backends[place]), "{service}");
        assert_eq!(served.rewritten_on_host(&mut frame), Ok(Some(ARRIVED.0)));
        assert_eq!(run.frame, frame);
    }
}

fn places() {
    let served = Compiled::with_next_hops(&services(SERVICES, NOBODY), ways());
    for service in 0..SERVICES {
        assert_placed(&served, service, &backends(service, NOBODY));
    }
}

fn change() {
    let mut served = Compiled::with_next_hops(&services(SERVICES, NOBODY), ways());
    let observed = served.node.observe();
    let blocks = observed.ring_blocks.values().next().expect("ring blocks");
    assert!(blocks.len() > 4, "{blocks:?}");
    // New connections go by the new ring at once; what settles is another test's.
    let plan = served.change(&services(SERVICES, 3), ways());
    let built = plan.steps.iter().filter_map(|step| match step {
        Step::BuildRingBlocks(digests) => Some(digests.len()),
        _ => None,
    });
    assert_eq!(built.collect::<Vec<_>>(), [1], "{plan}");
    assert_placed(&served, 7, &backends(7, 3));
    assert_placed(&served, 8, &backends(8, NOBODY));
}

fn few() {
    let mut served = Compiled::with_next_hops(&services(SERVICES, NOBODY), ways());
    served.change(&services(3, NOBODY), ways());
    assert_eq!(served.node.observe().ring_blocks, BTreeMap::new());
    assert_placed(&served, 2, &backends(2, NOBODY));
    served.change(&services(SERVICES, NOBODY), ways());
    assert_placed(&served, 99, &backends(99, NOBODY));
}
