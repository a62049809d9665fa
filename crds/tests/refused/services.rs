//! Services and address pools.

use serde_json::{Value, json};

use crate::{
    assert_each,
    common::{good, pool, service},
    with,
};

#[test]
fn addresses_and_ports() {
    let address = |text: &str| with(service(), "/spec/addresses/0", json!(text));
    let no_address = |text: &str| {
        (
            address(text),
            "spec.addresses[0]",
            "is no address",
            "such as",
        )
    };
    assert_each(
        [
            "10.0.0.01",
            "10.0.0.1/32",
            "::ffff:192.0.2.1",
            "fe80::1%eth0",
            "",
            "example.com",
        ]
        .map(no_address)
        .into(),
    );
    let port = json!({"name": "http", "port": 80});
    let namesake = json!({"name": "http", "port": 81});
    let again = json!({"name": "again", "port": 80});
    assert_each(vec![
        (
            with(
                service(),
                "/spec/addresses",
                json!(["192.0.2.1", "192.0.2.1"]),
            ),
            "spec.addresses[1]",
            "is taken by spec.addresses[0]",
            "each once",
        ),
        (
            with(
                with(
                    service(),
                    "/spec/backends/static/0/address",
                    json!("2001:db8::9"),
                ),
                "/spec/addresses",
                json!(["2001:db8::1", "2001:DB8::1"]),
            ),
            "spec.addresses",
            "in two spellings",
            "remove one",
        ),
        (
            with(service(), "/spec/ports", json!([port, namesake])),
            "spec.ports[1].name",
            "is taken by",
            "rename",
        ),
        (
            with(service(), "/spec/ports", json!([port, again])),
            "spec.ports",
            "listed twice for one protocol",
            "remove one",
        ),
        (
            with(service(), "/spec/ports/0/port", json!(0)),
            "spec.ports[0].port",
            "out of range",
            "1 to 65535",
        ),
        (
            with(
                service(),
                "/spec/ports/0",
                json!({"name": "dns", "protocol": "Udp", "port": 53}),
            ),
            "spec.ports[0].protocol",
            "is not TCP or UDP",
            "did you mean UDP?",
        ),
        (
            with(
                service(),
                "/spec/ports/0",
                json!({"name": "http", "port": 80, "targetPort": 8080}),
            ),
            "spec",
            "DirectReturn cannot change a port",
            "remove targetPort, or set forwarding to Nat",
        ),
        (
            with(service(), "/spec/ports", json!([])),
            "spec.ports",
            "is an empty list",
            "at least one",
        ),
    ]);
}

#[test]
fn backends() {
    let backends = |list: Value| with(service(), "/spec/backends/static", list);
    assert_each(vec![
        (
            backends(json!([{"address": "192.0.2.1"}])),
            "spec.backends",
            "is an address of the service itself",
            "the backend's own address",
        ),
        (
            backends(json!([{"address": "10.0.0.1"}, {"address": "10.0.0.1", "weight": 2}])),
            "spec.backends",
            "is listed twice",
            "a greater weight",
        ),
        (
            backends(json!([{"address": "10.0.0.1"}, {"address": "169.254.169.254"}])),
            "spec.backends",
            "169.254.169.254 is no address of another host",
            "not loopback, link-local or multicast",
        ),
        (
            backends(json!([{"address": "10.0.0.1"}, {"address": "fe80::1"}])),
            "spec.backends",
            "fe80::1 is no address of another host",
            "not loopback, link-local or multicast",
        ),
        (
            backends(json!([{"address": "10.0.0.1", "weight": 0}])),
            "spec.backends",
            "no IPv4 backend with a weight above 0",
            "add one",
        ),
        (
            backends(json!([{"address": "2001:db8::1"}])),
            "spec.backends",
            "no IPv4 backend",
            "remove 192.0.2.1",
        ),
        (
            backends(json!([{"address": "10.0.0.1", "weight": 257}])),
            "spec.backends.static[0].weight",
            "out of range",
            "0 to 256",
        ),
        (
            backends(json!([])),
            "spec.backends.static",
            "is an empty list",
            "at least one",
        ),
    ]);
}

#[test]
fn endpoints_of_a_service() {
    let by_nat = || with(service(), "/spec/forwarding", json!("Nat"));
    let by_reference = || {
        let named = json!({"serviceRef": {"name": "web"}});
        with(by_nat(), "/spec/backends", named)
    };
    let mut both = by_nat();
    both["spec"]["backends"]["serviceRef"] = json!({"name": "web"});
    let mut direct = by_reference();
    direct["spec"]["forwarding"] = json!("DirectReturn");
    let mut elsewhere = by_reference();
    elsewhere["spec"]["ports"][0]["targetPort"] = json!(8080);
    let mut local = service();
    local["spec"]["externalTrafficPolicy"] = json!("Local");
    assert_each(vec![
        (
            both,
            "spec.backends",
            "backends come from one place",
            "either static or serviceRef",
        ),
        (
            with(service(), "/spec/backends", json!({})),
            "spec.backends",
            "backends come from one place",
            "either static or serviceRef",
        ),
        (
            direct,
            "spec",
            "do not have the service's address",
            "set forwarding to Nat",
        ),
        (
            elsewhere,
            "spec",
            "say themselves which port",
            "remove targetPort",
        ),
        (
            local,
            "spec",
            "where static backends run is not known",
            "give serviceRef",
        ),
        (
            with(
                by_reference(),
                "/spec/backends/serviceRef/name",
                json!("Web_1"),
            ),
            "spec.backends.serviceRef.name",
            "Web_1",
            "lower-case",
        ),
    ]);
    good(&by_reference());
}

#[test]
fn forwarding_and_ring() {
    assert_each(vec![
        (
            with(service(), "/spec/forwarding", json!("Dsr")),
            "spec.forwarding",
            "is not Nat or DirectReturn",
            "write Nat or DirectReturn",
        ),
        (
            with(service(), "/spec/ringSize", json!(4096)),
            "spec.ringSize",
            "is no size of a ring",
            "4093, 16381 or 65537",
        ),
    ]);
}

#[test]
fn source_ranges() {
    let ranges = |list: Value| {
        let mut object = service();
        object["spec"]["sourceRanges"] = list;
        object
    };
    let many: Value = (0..1025)
        .map(|n| json!(format!("10.{}.{}.0/24", n / 256, n % 256)))
        .collect();
    assert_each(vec![
        (
            ranges(json!([])),
            "spec.sourceRanges",
            "is an empty list",
            "at least one",
        ),
        (
            ranges(json!(["10.0.0.0/8", "192.0.2.1"])),
            "spec.sourceRanges[1]",
            "is no CIDR",
            "/32",
        ),
        (
            ranges(json!(["010.0.0.0/8"])),
            "spec.sourceRanges[0]",
            "is no CIDR",
            "without leading zeros",
        ),
        (
            ranges(many),
            "spec.sourceRanges",
            "at most 1024",
            "keep at most 1024",
        ),
    ]);
}

#[test]
fn pools() {
    assert_each(vec![
        (
            with(pool(), "/spec/cidrs/0", json!("192.0.2.1")),
            "spec.cidrs[0]",
            "is no CIDR",
            "/32",
        ),
        (
            with(pool(), "/spec/namespaces/0", json!("Shop")),
            "spec.namespaces[0]",
            "\"Shop\" is not",
            "lower-case",
        ),
    ]);
}

#[test]
fn a_namespace_belongs_to_a_service_alone() {
    assert!(good(&service()).warnings.is_empty());
    let mut pool = pool();
    pool["metadata"]["namespace"] = json!("shop");
    assert_eq!(good(&pool).warnings[0].path, "metadata.namespace");
    let mut object = service();
    object["metadata"]["namespace"] = json!("No");
    assert_each(vec![(
        object,
        "metadata.namespace",
        "\"No\" is not",
        "lower-case",
    )]);
}
