//! Peers of the tunnel.

use serde_json::json;

use crate::{
    assert_each,
    common::{good, peer},
    with,
};

#[test]
fn networks() {
    let networks = |list: serde_json::Value| with(peer(), "/spec/podCIDRs", list);
    assert_each(vec![
        (
            networks(json!([])),
            "spec.podCIDRs",
            "is an empty list",
            "at least one",
        ),
        (
            networks(json!(["10.244.2.1"])),
            "spec.podCIDRs[0]",
            "is no CIDR",
            "ADDRESS/LENGTH",
        ),
        (
            networks(json!(["10.1.0.0/16", "10.1.0.0/16"])),
            "spec.podCIDRs[1]",
            "is taken by spec.podCIDRs[0]",
            "each once",
        ),
        (
            networks(json!(["2001:db8::/32", "::/0"])),
            "spec.podCIDRs",
            "::/0 is every address there is",
            "behind the peer",
        ),
        (
            networks(json!(["127.0.0.0/8"])),
            "spec.podCIDRs",
            "127.0.0.0/8 is no network of pods",
            "that are routed",
        ),
        (
            networks(json!(["fe80::/64"])),
            "spec.podCIDRs",
            "fe80::/64 is no network of pods",
            "that are routed",
        ),
        (
            networks(json!(["0.0.0.0/4"])),
            "spec.podCIDRs",
            "0.0.0.0/4 is no network of pods",
            "that are routed",
        ),
    ]);
}

#[test]
fn endpoint() {
    let endpoint = |text: &str| with(peer(), "/spec/endpoint", json!(text));
    assert_each(vec![
        (
            endpoint("node-b"),
            "spec.endpoint",
            "is no address",
            "such as",
        ),
        (
            endpoint("192.0.2.2/32"),
            "spec.endpoint",
            "is no address",
            "such as",
        ),
        (
            endpoint("10.244.2.9"),
            "spec.endpoint",
            "lies in 10.244.2.0/24, which is reached through it",
            "in the network below",
        ),
        (
            endpoint("2001:db8:2::9"),
            "spec.endpoint",
            "lies in 2001:db8:2::/64",
            "in the network below",
        ),
        (
            endpoint("127.0.0.1"),
            "spec.endpoint",
            "is no address of another host",
            "that is routed",
        ),
        (
            endpoint("ff02::1"),
            "spec.endpoint",
            "is no address of another host",
            "that is routed",
        ),
    ]);
}

#[test]
fn numbers_and_mac() {
    let vni = |number: u64| with(peer(), "/spec/vni", json!(number));
    let port = |number: u64| with(peer(), "/spec/port", json!(number));
    let mac = |text: &str| with(peer(), "/spec/mac", json!(text));
    assert_each(vec![
        (vni(0), "spec.vni", "out of range", "1 to 16777215"),
        (vni(1 << 24), "spec.vni", "out of range", "1 to 16777215"),
        (port(0), "spec.port", "out of range", "1 to 65535"),
        (port(65_536), "spec.port", "out of range", "1 to 65535"),
        (
            mac("03:68:c0:00:02:02"),
            "spec.mac",
            "is not a link-layer address of one device",
            "the first of them even",
        ),
        (
            mac("02-68-c0-00-02-02"),
            "spec.mac",
            "is not a link-layer address of one device",
            "six bytes in hexadecimal",
        ),
    ]);
    let spec = |name: &str| {
        let mut object = peer();
        let spec = object["spec"].as_object_mut().expect("a spec");
        spec.remove(name);
        object
    };
    assert_each(vec![
        (spec("podCIDRs"), "spec.podCIDRs", "is required", "add"),
        (spec("endpoint"), "spec.endpoint", "is required", "add"),
        (spec("vni"), "spec", "vni is required", "add vni"),
    ]);
}

/// The example, by Native.
fn native() -> serde_json::Value {
    let mut object = peer();
    object["spec"]["mode"] = json!("Native");
    let spec = object["spec"].as_object_mut().expect("a spec");
    for field in ["vni", "port", "mac"] {
        spec.remove(field);
    }
    with(object, "/spec/endpoint", json!("2001:db8::2"))
}

#[test]
fn what_native_has_not() {
    let also = |field: &str, value: serde_json::Value| {
        let mut object = native();
        object["spec"][field] = value;
        object
    };
    assert_each(vec![
        (also("vni", json!(7)), "spec", "without a vni", "remove vni"),
        (
            also("port", json!(8472)),
            "spec",
            "to no port",
            "remove port",
        ),
        (
            also("mac", json!("02:68:c0:00:02:02")),
            "spec",
            "has no VXLAN device",
            "remove mac",
        ),
        (
            also("localDelivery", json!("Stack")),
            "spec",
            "by the node's stack",
            "remove localDelivery",
        ),
        (
            also("endpoint", json!("192.0.2.2")),
            "spec",
            "no route leads to an IPv6 network by an IPv4 endpoint",
            "in another peer",
        ),
        (
            also("mode", json!("native")),
            "spec.mode",
            "is not Vxlan or Native",
            "did you mean Native?",
        ),
    ]);
}

#[test]
fn native_takes_networks_that_routes_lead_to() {
    let headgate_crds::Resource::TunnelPeer(peer) = good(&native()).resource else {
        panic!("another kind");
    };
    assert_eq!(peer.spec.vxlan(), None);
    let networks = json!(["10.244.2.0/24"]);
    let over_v4 = with(native(), "/spec/endpoint", json!("192.0.2.2"));
    good(&with(over_v4, "/spec/podCIDRs", networks));
}

#[test]
fn what_is_left_out_has_a_default() {
    let mut object = peer();
    let spec = object["spec"].as_object_mut().expect("a spec");
    spec.remove("port");
    spec.remove("mac");
    let headgate_crds::Resource::TunnelPeer(peer) = good(&object).resource else {
        panic!("another kind");
    };
    let vxlan = peer.spec.vxlan().expect("the default mode");
    assert_eq!(vxlan.port, 8472);
    assert_eq!(vxlan.mac, [0x02, 0x68, 192, 0, 2, 2]);
    let over_v6 = with(object, "/spec/endpoint", json!("2001:db8::a:1"));
    let headgate_crds::Resource::TunnelPeer(peer) = good(&over_v6).resource else {
        panic!("another kind");
    };
    let vxlan = peer.spec.vxlan().expect("the default mode");
    assert_eq!(vxlan.mac, [0x02, 0x68, 0, 0xa, 0, 1]);
}

#[test]
fn host_bits_are_warned_of() {
    let object = with(peer(), "/spec/podCIDRs", json!(["10.244.2.1/24"]));
    let warnings = good(&object).warnings;
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].path, "spec.podCIDRs[0]");
    assert!(warnings[0].reason.contains("means 10.244.2.0/24"));
}
