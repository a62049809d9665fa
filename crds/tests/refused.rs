//! Every wrong field and every broken rule: where it is, and what is said.

mod common;

use common::{bad, group, policy, protocol, rule};
use headgate_crds::Problem;
use serde_json::{Value, json};

/// One bad object: its only problem's path, and part of the reason and the remedy.
type Case = (Value, &'static str, &'static str, &'static str);

fn assert_each(cases: Vec<Case>) {
    for (object, path, reason, remedy) in cases {
        let problems = bad(&object);
        let [problem] = problems.as_slice() else {
            panic!("{object:#}\nhas not one problem: {problems:#?}");
        };
        assert_eq!(problem.path, path, "{object:#}\n{problem}");
        assert!(
            problem.reason.contains(reason),
            "{reason:?} is not in: {problem}"
        );
        assert!(
            problem.remedy.contains(remedy),
            "{remedy:?} is not in: {problem}"
        );
        assert!(!problem.remedy.is_empty(), "no remedy: {problem}");
    }
}

fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    *object.pointer_mut(pointer).expect("the pointer fits") = value;
    object
}

fn numbered(n: usize, item: impl Fn(usize) -> Value) -> Value {
    (0..n).map(item).collect()
}

#[test]
fn identity() {
    let ok = || group(json!({"cidrs": ["10.0.0.0/8"]}));
    assert_each(vec![
        (json!([]), "", "no object", "apiVersion"),
        (json!({}), "apiVersion", "required", "headgate.dev/v1alpha1"),
        (
            with(ok(), "/apiVersion", json!("headgate.dev/v1")),
            "apiVersion",
            "\"headgate.dev/v1\" is not served",
            "headgate.dev/v1alpha1",
        ),
        (
            json!({"apiVersion": "headgate.dev/v1alpha1"}),
            "kind",
            "required",
            "XdpPolicy",
        ),
        (
            with(ok(), "/kind", json!("CIDRGroup ")),
            "kind",
            "not CidrGroup or XdpPolicy",
            "mean CidrGroup?",
        ),
        (
            with(ok(), "/metadata", json!({})),
            "metadata.name",
            "required",
            "add",
        ),
        (
            with(ok(), "/metadata", json!({"name": 7})),
            "metadata.name",
            "a number",
            "\"7\"",
        ),
        (
            with(ok(), "/metadata", json!({"name": "Web_1"})),
            "metadata.name",
            "\"Web_1\"",
            "lower-case",
        ),
        (
            with(ok(), "/metadata", json!({"name": "a".repeat(254)})),
            "metadata.name",
            "254",
            "shorten",
        ),
        (
            with(ok(), "/metadata", json!("web")),
            "metadata",
            "a string",
            "KEY: VALUE",
        ),
        (
            with(ok(), "/metadata", json!({"name": "a", "label": {}})),
            "metadata.label",
            "no known field",
            "labels?",
        ),
        (
            with(ok(), "/metadata/labels", json!({"feed": 1})),
            "metadata.labels[feed]",
            "a number",
            "quotes",
        ),
        (
            with(ok(), "/metadata/labels", json!({"feed": "a b"})),
            "metadata.labels[feed]",
            "\"a b\"",
            "letters",
        ),
        (
            with(ok(), "/metadata/labels", json!({"my feed": "a"})),
            "metadata.labels[my feed]",
            "label key",
            "PREFIX/NAME",
        ),
        (
            with(ok(), "/metadata", json!({"name": "a", "generation": "x"})),
            "metadata",
            "expected i64",
            "fields of Kubernetes",
        ),
    ]);
    let mut unknown = ok();
    unknown["status"] = json!({});
    let mut no_spec = ok();
    no_spec.as_object_mut().expect("an object").remove("spec");
    assert_each(vec![
        (unknown, "status", "no known field", "remove it"),
        (no_spec, "spec", "required", "add spec"),
    ]);
}

#[test]
fn policy_fields() {
    assert_each(vec![
        (
            policy(json!({"defaultaction": "Drop"})),
            "spec.defaultaction",
            "no known field",
            "mean defaultAction?",
        ),
        (
            policy(json!({"enforcement": "Shadow"})),
            "spec.enforcement",
            "no known field",
            "attachMode",
        ),
        (
            policy(json!({"interfaces": []})),
            "spec.interfaces",
            "empty list",
            "remove",
        ),
        (
            policy(json!({"interfaces": "eth0"})),
            "spec.interfaces",
            "a string, must be a list",
            "[\"eth0\"]",
        ),
        (
            policy(json!({"interfaces": ["a-name-too-long0"]})),
            "spec.interfaces[0]",
            "16 characters",
            "shorten",
        ),
        (
            policy(json!({"interfaces": [""]})),
            "spec.interfaces[0]",
            "empty",
            "write",
        ),
        (
            policy(json!({"interfaces": ["eth0/1"]})),
            "spec.interfaces[0]",
            "\"eth0/1\"",
            "defaultRoute",
        ),
        (
            policy(json!({"interfaces": ["eth0", "eth1", "eth0"]})),
            "spec.interfaces[2]",
            "\"eth0\" is taken by spec.interfaces[0]",
            "remove",
        ),
        (
            policy(json!({"interfaces": numbered(65, |i| json!(format!("eth{i}")))})),
            "spec.interfaces",
            "65 entries, at most 64",
            "64",
        ),
        (
            policy(json!({"attachMode": "native"})),
            "spec.attachMode",
            "\"native\" is not Auto, Native or Generic",
            "Native?",
        ),
        (
            policy(json!({"attachMode": null})),
            "spec.attachMode",
            "blank",
            "remove the field",
        ),
        (
            policy(json!({"priority": 1001})),
            "spec.priority",
            "1001 is out of range",
            "0 to 1000",
        ),
        (
            policy(json!({"priority": -1})),
            "spec.priority",
            "-1 is out of range",
            "0 to 1000",
        ),
        (
            policy(json!({"priority": "10"})),
            "spec.priority",
            "a string, must be a whole number",
            "without quotes",
        ),
        (
            policy(json!({"priority": 1.5})),
            "spec.priority",
            "a fraction",
            "whole number",
        ),
        (
            policy(json!({"priority": u64::MAX})),
            "spec.priority",
            "out of range",
            "0 to 1000",
        ),
        (
            policy(json!({"defaultAction": "Reject"})),
            "spec.defaultAction",
            "\"Reject\" is not Allow or Drop",
            "write Allow or Drop",
        ),
        (
            policy(json!({"rules": []})),
            "spec.rules",
            "empty list",
            "remove",
        ),
        (
            policy(
                json!({"rules": numbered(257, |i| json!({"name": format!("r{i}"), "action": "Drop"}))}),
            ),
            "spec.rules",
            "257 entries, at most 256",
            "priority",
        ),
        (policy(json!(null)), "spec", "blank", "value"),
    ]);
}

#[test]
fn selectors() {
    let selector = |s: Value| policy(json!({"nodeSelector": s}));
    let expression = |e: Value| selector(json!({"matchExpressions": [e]}));
    assert_each(vec![
        (
            selector(json!({"matchlabels": {}})),
            "spec.nodeSelector.matchlabels",
            "no known field",
            "matchLabels?",
        ),
        (
            selector(json!({"matchLabels": {"role": true}})),
            "spec.nodeSelector.matchLabels[role]",
            "a boolean, must be a string",
            "\"true\"",
        ),
        (
            selector(json!({"matchLabels": {"role": "-edge"}})),
            "spec.nodeSelector.matchLabels[role]",
            "\"-edge\" is not a label value",
            "letters",
        ),
        (
            selector(json!({"matchLabels": {"a role": "edge"}})),
            "spec.nodeSelector.matchLabels[a role]",
            "not a label key",
            "NAME",
        ),
        (
            selector(json!({"matchExpressions": []})),
            "spec.nodeSelector.matchExpressions",
            "empty list",
            "remove",
        ),
        (
            expression(json!({"operator": "Exists"})),
            "spec.nodeSelector.matchExpressions[0].key",
            "required",
            "add key",
        ),
        (
            expression(json!({"key": "a/b/c", "operator": "Exists"})),
            "spec.nodeSelector.matchExpressions[0].key",
            "not a label key",
            "NAME",
        ),
        (
            expression(json!({"key": "role"})),
            "spec.nodeSelector.matchExpressions[0].operator",
            "required",
            "In, NotIn, Exists or DoesNotExist",
        ),
        (
            expression(json!({"key": "role", "operator": "Equals"})),
            "spec.nodeSelector.matchExpressions[0].operator",
            "\"Equals\"",
            "In, NotIn",
        ),
        (
            expression(json!({"key": "role", "operator": "In"})),
            "spec.nodeSelector.matchExpressions[0]",
            "In and NotIn need values",
            "add values",
        ),
        (
            expression(json!({"key": "role", "operator": "Exists", "values": ["a"]})),
            "spec.nodeSelector.matchExpressions[0]",
            "Exists and DoesNotExist take none",
            "remove",
        ),
        (
            expression(json!({"key": "role", "operator": "In", "values": []})),
            "spec.nodeSelector.matchExpressions[0].values",
            "empty list",
            "list at least one",
        ),
        (
            expression(json!({"key": "role", "operator": "In", "values": ["a b"]})),
            "spec.nodeSelector.matchExpressions[0].values[0]",
            "not a label value",
            "letters",
        ),
    ]);
}

#[test]
fn rule_fields() {
    let twice = json!([{"name": "a", "action": "Drop"}, {"name": "a", "action": "Allow"}]);
    assert_each(vec![
        (
            policy(json!({"rules": [{"action": "Drop"}]})),
            "spec.rules[0].name",
            "required",
            "add name",
        ),
        (
            policy(json!({"rules": [{"name": "a"}]})),
            "spec.rules[0].action",
            "required",
            "Allow or Drop",
        ),
        (
            policy(json!({"rules": twice})),
            "spec.rules[1].name",
            "\"a\" is taken by spec.rules[0]",
            "rename",
        ),
        (
            rule(json!({"name": "Block SSH"})),
            "spec.rules[0].name",
            "\"Block SSH\"",
            "lower-case",
        ),
        (
            rule(json!({"name": "a".repeat(64)})),
            "spec.rules[0].name",
            "64 characters",
            "shorten",
        ),
        (
            rule(json!({"name": ""})),
            "spec.rules[0].name",
            "empty",
            "write",
        ),
        (
            rule(json!({"action": "RateLimit"})),
            "spec.rules[0].action",
            "\"RateLimit\" is not Allow or Drop",
            "write",
        ),
        (
            rule(json!({"form": {"cidrs": ["10.0.0.0/8"]}})),
            "spec.rules[0].form",
            "no known field",
            "from?",
        ),
        (
            rule(json!({"from": null})),
            "spec.rules[0].from",
            "blank",
            "remove the field",
        ),
        (
            rule(json!({"to": []})),
            "spec.rules[0].to",
            "a list, must be an object",
            "cidrs",
        ),
        (
            rule(json!({"protocols": []})),
            "spec.rules[0].protocols",
            "empty list",
            "remove",
        ),
        (
            rule(json!({"protocols": numbered(17, |i| json!({"number": 100 + i}))})),
            "spec.rules[0].protocols",
            "17 entries, at most 16",
            "16",
        ),
        (
            rule(json!({"fragments": "All"})),
            "spec.rules[0].fragments",
            "\"All\" is not First or Later",
            "First or Later",
        ),
    ]);
}

#[test]
fn addresses() {
    let from = |e: Value| rule(json!({"from": e}));
    let cidr = |c: &str| from(json!({"cidrs": [c]}));
    let not_cidr = |c: &str| (cidr(c), "spec.rules[0].from.cidrs[0]", "is no CIDR", "/32");
    assert_each(
        [
            "10.0.0.1",
            "2001:db8::1",
            "010.0.0.0/8",
            "10.00.0.0/8",
            "10.0.0.0/33",
            "10.0.0.0/08",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.0/",
            "10.0.0/8",
            "10.0.0.0/255.0.0.0",
            "2001:db8::/129",
            "::ffff:192.0.2.0/120",
            "fe80::1%eth0/64",
            " 10.0.0.0/8",
            "",
            "example.com",
        ]
        .map(not_cidr)
        .into(),
    );
    assert_each(vec![
        (
            cidr(&"1".repeat(50)),
            "spec.rules[0].from.cidrs[0]",
            "50 characters",
            "shorten",
        ),
        (
            from(json!({"cidrs": [10]})),
            "spec.rules[0].from.cidrs[0]",
            "a number",
            "quotes",
        ),
        (
            from(json!({})),
            "spec.rules[0].from",
            "no addresses",
            "cidrs: [\"0.0.0.0/0\", \"::/0\"]",
        ),
        (
            from(json!({"except": ["10.0.0.0/8"]})),
            "spec.rules[0].from",
            "no addresses",
            "cidrs: [\"0.0.0.0/0\", \"::/0\"]",
        ),
        (
            from(json!({"cidrs": []})),
            "spec.rules[0].from.cidrs",
            "empty list",
            "remove",
        ),
        (
            from(json!({"cidrs": numbered(257, |i| json!(format!("10.0.{}.0/24", i % 256)))})),
            "spec.rules[0].from.cidrs",
            "257 entries, at most 256",
            "CidrGroup",
        ),
        (
            from(json!({"cidrs": ["10.0.0.0/8"], "except": ["10.0.0.1"]})),
            "spec.rules[0].from.except[0]",
            "no CIDR",
            "/32",
        ),
        (
            from(json!({"cidrs": ["10.0.0.0/8"], "except": []})),
            "spec.rules[0].from.except",
            "empty list",
            "remove",
        ),
        (
            from(json!({"cidrGroups": {}})),
            "spec.rules[0].from.cidrGroups",
            "no group is named or selected",
            "selector: {}",
        ),
        (
            from(json!({"cidrGroups": ["a"]})),
            "spec.rules[0].from.cidrGroups",
            "a list, must be an object",
            "names",
        ),
        (
            from(json!({"cidrGroups": {"names": []}})),
            "spec.rules[0].from.cidrGroups.names",
            "empty list",
            "remove",
        ),
        (
            from(json!({"cidrGroups": {"names": ["Bad Hosts"]}})),
            "spec.rules[0].from.cidrGroups.names[0]",
            "\"Bad Hosts\"",
            "lower-case",
        ),
        (
            from(json!({"cidrGroups": {"selector": {"matchLabels": {"a b": "c"}}}})),
            "spec.rules[0].from.cidrGroups.selector.matchLabels[a b]",
            "label key",
            "NAME",
        ),
    ]);
}

#[test]
fn groups() {
    let many = numbered(5001, |i| json!(format!("10.{}.{}.0/24", i / 256, i % 256)));
    assert_each(vec![
        (group(json!({})), "spec.cidrs", "required", "add cidrs"),
        (
            group(json!({"cidrs": []})),
            "spec.cidrs",
            "empty list",
            "at least one",
        ),
        (
            group(json!({"cidrs": many})),
            "spec.cidrs",
            "5001 entries, at most 5000",
            "several CidrGroups with a common label",
        ),
        (
            group(json!({"cidrs": ["10.0.0.0/8", "10.0.0.1"]})),
            "spec.cidrs[1]",
            "\"10.0.0.1\" is no CIDR",
            "/32",
        ),
        (
            group(json!({"cidr": ["10.0.0.0/8"], "cidrs": ["10.0.0.0/8"]})),
            "spec.cidr",
            "no known field",
            "cidrs?",
        ),
    ]);
}

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

#[test]
fn later_fragments_with_qualifiers() {
    let port = json!([{"port": 80}]);
    for qualified in [
        json!({"tcp": {"ports": port}}),
        json!({"tcp": {"sourcePorts": port}}),
        json!({"tcp": {"flags": {"set": ["Syn"]}}}),
        json!({"tcp": {"established": false}}),
        json!({"udp": {"ports": port}}),
        json!({"udp": {"sourcePorts": port}}),
        json!({"sctp": {"ports": port}}),
        json!({"sctp": {"sourcePorts": port}}),
        json!({"icmp": {"types": [8]}}),
        json!({"icmpv6": {"types": [128]}}),
    ] {
        assert_each(vec![(
            rule(json!({"fragments": "Later", "protocols": [{"number": 50}, qualified]})),
            "spec.rules[0]",
            "would never match",
            "fragments: Later",
        )]);
    }
}

#[test]
fn families_that_cannot_match() {
    let v4 = json!({"cidrs": ["10.0.0.0/8"]});
    let v6 = json!({"cidrs": ["2001:db8::/32"]});
    assert_each(vec![
        (
            rule(json!({"from": v4, "to": v6})),
            "spec.rules[0].to",
            "only IPv6 and from only IPv4",
            "one family",
        ),
        (
            rule(json!({"from": v4, "protocols": [{"icmpv6": {}}]})),
            "spec.rules[0].protocols[0].icmpv6",
            "IPv4 only",
            "icmp",
        ),
        (
            rule(json!({"to": v6, "protocols": [{"tcp": {}}, {"icmp": {}}]})),
            "spec.rules[0].protocols[1].icmp",
            "IPv6 only",
            "icmpv6",
        ),
        (
            rule(
                json!({"from": {"cidrs": ["10.1.0.0/16"], "except": ["10.0.0.0/9", "10.128.0.0/9"]}}),
            ),
            "spec.rules[0].from.except",
            "every address",
            "narrow",
        ),
        (
            rule(json!({
                "from": {"cidrs": ["10.0.0.0/8", "2001:db8::/32"], "except": ["::/0"]},
                "to": v6,
            })),
            "spec.rules[0].to",
            "no packet has both",
            "one family",
        ),
        (
            rule(json!({
                "from": {"cidrGroups": {"names": ["a"]}, "except": ["::/1", "8000::/1"]},
                "protocols": [{"icmpv6": {}}],
            })),
            "spec.rules[0].protocols[0].icmpv6",
            "IPv4 only",
            "icmp",
        ),
    ]);
}

#[test]
fn several_problems_are_told_at_once() {
    let object = policy(json!({
        "priority": 2000,
        "rules": [{"name": "a", "action": "drop"}, {"name": "b", "action": "Drop", "from": {"cidr": []}}],
    }));
    let paths: Vec<String> = bad(&object).into_iter().map(|p| p.path).collect();
    assert_eq!(
        paths,
        [
            "spec.priority",
            "spec.rules[0].action",
            "spec.rules[1].from.cidr"
        ]
    );
}

#[test]
fn a_long_list_of_problems_is_cut() {
    let object = group(json!({"cidrs": numbered(5000, |_| json!("10.0.0.1"))}));
    let problems = bad(&object);
    assert_eq!(problems.len(), 51);
    assert_eq!(
        problems.last().map(Problem::to_string).as_deref(),
        Some("4950 more problems are not listed; mend these first")
    );
}
