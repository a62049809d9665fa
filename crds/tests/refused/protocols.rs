//! Protocols and their qualifiers.

use serde_json::{Value, json};

use crate::{
    assert_each,
    common::{bad, protocol},
    numbered,
};

#[test]
fn protocols() {
    const AT: &str = "spec.rules[0].protocols[0]";
    assert_each(vec![
        (protocol(json!({})), AT, "holds none of", "exactly one"),
        (
            protocol(json!({"tcp": {}, "udp": {}})),
            AT,
            "tcp and udp at once",
            "an item of its own",
        ),
        (protocol(json!("TCP")), AT, "a string", "write tcp: {}"),
        (
            protocol(json!({"tcp": null})),
            "spec.rules[0].protocols[0].tcp",
            "blank",
            "{}",
        ),
        (
            protocol(json!({"number": 256})),
            "spec.rules[0].protocols[0].number",
            "256 is out of range",
            "0 to 255",
        ),
    ]);
    for number in [0, 43, 44, 60] {
        assert_each(vec![(
            protocol(json!({"number": number})),
            "spec.rules[0].protocols[0].number",
            "extension header",
            "fragments",
        )]);
    }
    let misspelt = bad(&protocol(json!({"tpc": {}})));
    assert!(
        misspelt
            .iter()
            .any(|p| p.path == "spec.rules[0].protocols[0].tpc" && p.remedy.contains("tcp?")),
        "{misspelt:#?}"
    );
}

#[test]
fn ports_and_types() {
    for of in ["tcp", "udp", "sctp"] {
        for list in ["ports", "sourcePorts"] {
            let ports = |ports: Value| protocol(json!({of: {list: ports}}));
            let at: &str = &format!("spec.rules[0].protocols[0].{of}.{list}");
            let assert_one = |object: Value, path: String, reason: &'static str, remedy| {
                assert_each(vec![(object, path.leak(), reason, remedy)]);
            };
            let first = format!("{at}[0]");
            assert_one(ports(json!([])), at.into(), "empty list", "remove");
            assert_one(ports(json!([80])), first.clone(), "a number", "port: 80");
            assert_one(
                ports(json!([{"endPort": 80}])),
                format!("{first}.port"),
                "required",
                "add port",
            );
            assert_one(
                ports(json!([{"port": 65536}])),
                format!("{first}.port"),
                "65536 is out of range",
                "0 to 65535",
            );
            assert_one(
                ports(json!([{"port": 1, "endPort": 65536}])),
                format!("{first}.endPort"),
                "65536 is out of range",
                "0 to 65535",
            );
            assert_one(
                ports(json!([{"port": 90, "endPort": 80}])),
                first.clone(),
                "endPort is below port",
                "swap",
            );
            assert_one(
                ports(json!([{"port": "http"}])),
                format!("{first}.port"),
                "a string",
                "0 to 65535",
            );
            assert_one(
                ports(numbered(65, |i| json!({"port": i}))),
                at.into(),
                "65 entries, at most 64",
                "64",
            );
        }
    }
    for of in ["icmp", "icmpv6"] {
        let at = |rest: &str| -> &'static str {
            format!("spec.rules[0].protocols[0].{of}.types{rest}").leak()
        };
        assert_each(vec![
            (
                protocol(json!({of: {"types": []}})),
                at(""),
                "empty list",
                "remove",
            ),
            (
                protocol(json!({of: {"types": 8}})),
                at(""),
                "a number, must be a list",
                "[8]",
            ),
            (
                protocol(json!({of: {"types": [256]}})),
                at("[0]"),
                "256 is out of range",
                "0 to 255",
            ),
            (
                protocol(json!({of: {"types": numbered(65, |i| json!(i))}})),
                at(""),
                "65 entries",
                "64",
            ),
        ]);
    }
}

#[test]
fn flags() {
    const AT: &str = "spec.rules[0].protocols[0].tcp";
    let tcp = |t: Value| protocol(json!({"tcp": t}));
    let at = |rest: &str| -> &'static str { format!("{AT}{rest}").leak() };
    assert_each(vec![
        (
            tcp(json!({"flags": {}})),
            at(".flags"),
            "says nothing",
            "set or unset",
        ),
        (
            tcp(json!({"flags": {"set": ["Syn", "Ack"], "unset": ["Ack"]}})),
            at(".flags"),
            "both set and unset",
            "remove",
        ),
        (
            tcp(json!({"flags": {"set": ["SYN"]}})),
            at(".flags.set[0]"),
            "\"SYN\"",
            "Syn?",
        ),
        (
            tcp(json!({"flags": {"unset": []}})),
            at(".flags.unset"),
            "empty list",
            "remove",
        ),
        (
            tcp(json!({"established": "yes"})),
            at(".established"),
            "a string, must be a boolean",
            "true or false",
        ),
        (
            tcp(json!({"established": true, "flags": {"unset": ["Ack", "Rst"]}})),
            at(".established"),
            "contradicts",
            "remove",
        ),
        (
            tcp(json!({"established": false, "flags": {"set": ["Rst"]}})),
            at(".established"),
            "contradicts",
            "remove",
        ),
    ]);
}
