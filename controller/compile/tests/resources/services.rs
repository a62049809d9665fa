//! Who has an address, and what is said where a service has nobody to serve it.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use headgate_compile::{
    endpoints::{Endpoint, Endpoints, Readiness, Slice, SlicePort},
    finding::{FindingReason, Severity},
    snapshot::Snapshot,
};
use serde_json::{Value, json};

use crate::scene::{Agent, Enforced, plain_node, snapshot};

fn pool() -> Value {
    json!({
        "apiVersion": "headgate.dev/v1alpha1",
        "kind": "AddressPool",
        "metadata": {"name": "all"},
        "spec": {"cidrs": ["192.0.2.0/24", "198.18.0.0/15", "2001:db8::/64"]},
    })
}

/// A service of one port, by the endpoints of the Service `web`, made at this hour.
fn service(name: &str, hour: u8) -> Value {
    json!({
        "apiVersion": "headgate.dev/v1alpha1",
        "kind": "LoadBalancerService",
        "metadata": {
            "name": name,
            "namespace": "shop",
            "creationTimestamp": format!("2026-01-01T{hour:02}:00:00Z"),
        },
        "spec": {
            "interfaces": ["eth0"],
            "addresses": ["192.0.2.1"],
            "ports": [{"name": "http", "port": 80}],
            "backends": {"serviceRef": {"name": "web"}},
            "ringSize": 4093,
        },
    })
}

/// These objects, and so many endpoints of `shop/web`, all on the node.
fn with_endpoints(objects: &[Value], count: u32) -> Snapshot {
    let endpoint = |number| Endpoint {
        address: Ipv4Addr::from_bits(0x0a00_0000 | number).into(),
        node: Some("node-1".to_owned()),
        readiness: Readiness::Ready,
    };
    let slice = Slice {
        ports: vec![SlicePort {
            name: "http".to_owned(),
            protocol: "TCP".to_owned(),
            port: 8080,
        }],
        endpoints: (0..count).map(endpoint).collect(),
    };
    let endpoints: Endpoints = BTreeMap::from([("shop/web".to_owned(), vec![slice])]);
    Snapshot {
        endpoints: Some(Arc::new(endpoints)),
        ..snapshot(objects)
    }
}

fn run(objects: &[Value], endpoints: u32) -> Enforced {
    Agent::new(plain_node()).run(&with_endpoints(objects, endpoints))
}

#[test]
fn of_two_that_come_at_once_the_older_has_the_address() {
    for (older, younger) in [("a", "b"), ("b", "a")] {
        let objects = [pool(), service(younger, 9), service(older, 8)];
        let enforced = run(&objects, 2);
        let finding = enforced.finding(FindingReason::AddressTaken);
        let name = &finding.resource.as_ref().unwrap().name;
        assert_eq!(name, &format!("shop/{younger}"));
        let words = format!(
            "TCP port 80 of 192.0.2.1 is served by LoadBalancerService/shop/{older}; take another address or port"
        );
        assert!(finding.message.contains(&words), "{finding}");
        assert_eq!(enforced.stalled(), [format!("shop/{younger}")].into());
    }
}

#[test]
fn nobody_who_serves_is_said_and_takes_no_address_away() {
    let enforced = run(&[pool(), service("web", 8)], 0);
    let finding = enforced.finding(FindingReason::NoEndpoints);
    assert_eq!(finding.severity, Severity::Warning);
    assert_eq!(finding.path, "spec.ports[0]");
    assert!(finding.message.contains("dropped and counted as NoBackend"));
    assert!(finding.message.contains("wait for a pod that is ready"));
    assert_eq!(enforced.compilation.services[0].frontends.len(), 1);
}

#[test]
fn endpoints_of_the_other_family_serve_nothing() {
    let mut service = service("web", 8);
    service["spec"]["addresses"] = json!(["192.0.2.1", "2001:db8::1"]);
    let enforced = run(&[pool(), service], 3);
    let finding = enforced.finding(FindingReason::NoEndpoints);
    assert!(finding.message.contains("at 2001:db8::1"), "{finding}");
}

#[test]
fn a_ring_smaller_than_its_endpoints_is_said() {
    let objects = [pool(), service("web", 8)];
    run(&objects, 4_093).assert_no_findings();
    let enforced = run(&objects, 4_094);
    let finding = enforced.finding(FindingReason::Suspicious);
    assert_eq!(finding.path, "spec.ringSize");
    assert!(
        finding
            .message
            .starts_with("4094 endpoints share 4093 entries"),
        "{finding}"
    );
}

/// Ten clients that no other service has, for each of a thousand services.
#[test]
fn a_thousand_services_have_source_ranges_of_their_own() {
    let services = (0..1_000_u32).map(|number| {
        let client = |nth: u32| Ipv4Addr::from_bits(0x0a00_0000 | ((number * 10 + nth) * 2));
        let ranges = (0..10).map(|nth| format!("{}/32", client(nth)));
        let mut service = service(&format!("s{number}"), 8);
        service["spec"]["addresses"] = json!([Ipv4Addr::from_bits(0xc612_0000 | number)]);
        service["spec"]["sourceRanges"] = ranges.collect();
        service
    });
    let objects: Vec<Value> = [pool()].into_iter().chain(services).collect();
    let snapshot = with_endpoints(&objects, 2);
    let enforced = Agent::new(plain_node()).run(&snapshot);
    enforced.assert_no_findings();
    let [tables] = enforced.compilation.tables.as_slice() else {
        panic!("one interface");
    };
    println!("{} bytes of crossings", tables.crossings);
    assert_eq!(tables.rules, 1_000);
    assert!(tables.crossings < 4 << 20, "half of what is allowed");
}
