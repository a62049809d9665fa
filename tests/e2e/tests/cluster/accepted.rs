//! What Headgate's own check accepts, given to the API server.

use headgate_crds::{Resource, check};
use headgate_e2e_tests::{control_plane::ControlPlane, trials::on_cluster};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{
    objects::{from, group, many, peer, policy, pool, protocol, ranges, rule, service},
    submit::{create, named},
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        on_cluster(
            "what_the_check_accepts_is_stored_with_equal_defaults",
            accepted,
        ),
        on_cluster("the_largest_objects_are_within_celss_cost", largest),
    ]
}

/// The spec of an accepted object, defaults filled in by the check.
fn completed(object: &Value) -> Value {
    let checked = check(object).unwrap_or_else(|problems| panic!("{object:#}: {problems:#?}"));
    let spec = match checked.resource {
        Resource::AddressPool(pool) => serde_json::to_value(pool.spec),
        Resource::CidrGroup(group) => serde_json::to_value(group.spec),
        Resource::LoadBalancerService(service) => serde_json::to_value(service.spec),
        Resource::TunnelPeer(peer) => serde_json::to_value(peer.spec),
        Resource::XdpPolicy(policy) => serde_json::to_value(policy.spec),
    };
    spec.expect("plain data")
}

fn assert_stored<'a>(objects: impl IntoIterator<Item = (&'a str, Value)>) {
    let objects = named(objects);
    let control_plane = ControlPlane::shared();
    let outcome = create(control_plane.kubectl(), &objects, &["--dry-run=server"]);
    assert!(outcome.refused.is_empty(), "{:#?}", outcome.refused);
    for (name, object) in &objects {
        assert_eq!(outcome.stored[*name]["spec"], completed(object), "{name}");
    }
}

fn accepted() {
    let full = json!({
        "nodeSelector": {
            "matchLabels": {"role": "edge", "empty": ""},
            "matchExpressions": [
                {"key": "example.org/zone", "operator": "NotIn", "values": ["a", ""]},
                {"key": "gpu", "operator": "DoesNotExist"},
            ],
        },
        "interfaces": ["eth*", "bond0.7", "wg?", "defaultRoute"],
        "attachMode": "Native",
        "priority": 0,
        "defaultAction": "Drop",
        "rules": [{
            "name": "replies",
            "action": "Allow",
            "from": {"cidrs": ["0.0.0.0/0", "::/0"], "except": ["192.0.2.0/24"]},
            "to": {"cidrGroups": {"names": ["ours"], "selector": {}}},
            "protocols": [
                {"tcp": {
                    "ports": [{"port": 0, "endPort": 65535}, {"port": 22, "endPort": 22}],
                    "sourcePorts": [{"port": 443}],
                    "flags": {"set": ["Ack"], "unset": ["Syn", "Fin"]},
                    "established": true,
                }},
                {"udp": {"sourcePorts": [{"port": 53}]}},
                {"sctp": {}},
                {"icmp": {"types": [0, 255]}},
                {"icmpv6": {}},
                {"number": 47},
            ],
            "fragments": "First",
        }],
    });
    let host_bits = [
        "10.0.0.1/8",
        "2001:DB8::1/32",
        "::1.2.3.4/128",
        "0.0.0.0/0",
        "::/0",
    ];
    assert_stored([
        ("empty", policy(json!({}))),
        ("full", policy(full)),
        ("as-written", group(json!({"cidrs": host_bits}))),
        (
            "twice-in-a-group",
            group(json!({"cidrs": ["10.0.0.0/8", "10.0.0.0/8"]})),
        ),
        ("v4-compatible", from("::1.2.3.4/128")),
        ("everybody", rule(json!({}))),
        (
            "later",
            rule(json!({"fragments": "Later", "protocols": [{"tcp": {}}, {"number": 6}]})),
        ),
        ("last-number", protocol(json!({"number": 255}))),
        (
            "same-flag",
            protocol(json!({"tcp": {"flags": {"set": ["Syn", "Syn"]}}})),
        ),
        ("empty-selector", policy(json!({"nodeSelector": {}}))),
        ("service", service(json!({}))),
        (
            "service-of-both-families",
            service(json!({
                "nodeSelector": {"matchLabels": {"role": "edge"}},
                "interfaces": ["eth*"],
                "addresses": ["203.0.113.10", "2001:db8::10"],
                "ports": [
                    {"name": "dns", "protocol": "UDP", "port": 53},
                    {"name": "dns-tcp", "port": 53},
                ],
                "backends": {"static": [
                    {"address": "10.0.0.1", "weight": 256},
                    {"address": "10.0.0.2", "weight": 0},
                    {"address": "fd00::1"},
                ]},
                "ringSize": 65537,
            })),
        ),
        (
            "peer",
            peer(
                json!({"podCIDRs": ["10.244.2.0/24", "2001:db8:2::/64"], "endpoint": "192.0.2.2", "vni": 7}),
            ),
        ),
        (
            "native-peer",
            peer(
                json!({"mode": "Native", "podCIDRs": ["10.244.2.0/24", "2001:db8:2::/64"], "endpoint": "2001:db8::2"}),
            ),
        ),
        (
            "peer-with-all-fields",
            peer(json!({
                "nodeSelector": {"matchLabels": {"site": "a"}},
                "podCIDRs": ["10.244.2.1/24"],
                "mode": "Vxlan",
                "endpoint": "2001:db8::2",
                "vni": 16_777_215,
                "port": 4789,
                "mac": "02:68:C0:00:02:02",
            })),
        ),
        (
            "pool-for-all",
            pool(json!({"cidrs": ["203.0.113.0/24", "2001:db8::/64"]})),
        ),
        (
            "pool-for-two",
            pool(json!({"cidrs": ["203.0.113.0/24"], "namespaces": ["shop", "blog"]})),
        ),
    ]);
}

/// As much of everything as the limits allow, and as etcd takes at once.
fn largest() {
    let cidrs = ranges(256);
    let with_cidrs = many(
        256,
        |i| json!({"name": format!("r{i}"), "action": "Drop", "from": {"cidrs": cidrs}}),
    );
    let ports = many(64, |i| json!({"port": i, "endPort": 65535}));
    let protocols = many(16, |_| json!({"udp": {"ports": ports}}));
    let with_ports = many(
        32,
        |i| json!({"name": format!("r{i}"), "action": "Drop", "protocols": protocols}),
    );
    let interfaces = many(64, |i| json!(format!("interface{i}")));
    let long = many(5000, |i| {
        json!(format!("2001:0db8:0001:0002:0003:0004:{i:04x}:0000/112"))
    });
    let backends = many(
        512,
        |i| json!({"address": format!("2001:db8::{:x}", i + 1)}),
    );
    let addresses = many(16, |i| json!(format!("2001:db8:ff::{:x}", i + 1)));
    let served = many(64, |i| json!({"name": format!("p{i}"), "port": i + 1}));
    assert_stored([
        (
            "service-of-all",
            service(json!({
                "addresses": addresses, "ports": served, "interfaces": interfaces,
                "backends": {"static": backends},
            })),
        ),
        ("ranges", policy(json!({"rules": with_cidrs}))),
        (
            "ports",
            policy(json!({"rules": with_ports, "interfaces": interfaces})),
        ),
        ("group", group(json!({"cidrs": ranges(5000)}))),
        ("long-group", group(json!({"cidrs": long}))),
    ]);
}
