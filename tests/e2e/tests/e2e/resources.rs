//! Bad resources: what was good stays in effect, and it is said.

use std::fs;

use headgate_e2e_tests::{
    flow::Receiver,
    frames::{Frame, udp},
    lab::Lab,
    node::{Node, SOON},
    policies::{drop_udp, group, policy},
    trials::on_node,
    wait::wait_for_some,
};
use libtest_mimic::Trial;
use serde_json::Value;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        on_node(
            "a_bad_edit_leaves_the_last_good_content_in_effect",
            bad_edit,
        ),
        on_node(
            "a_file_that_does_not_parse_leaves_its_resources_in_effect",
            unparsable,
        ),
        on_node("a_directory_that_is_gone_changes_nothing", directory_gone),
        on_node("a_directory_that_never_was_is_refused", directory_unknown),
        on_node(
            "renames_of_files_and_of_the_directory_leak_nothing",
            renamed,
        ),
        on_node("a_resource_that_never_was_good_is_left_out", never_good),
        on_node(
            "a_reference_to_nothing_is_stalled_until_there_is_something",
            unresolved,
        ),
        on_node("a_restart_keeps_the_last_good_content", restart_while_bad),
        on_node(
            "with_the_memory_lost_nothing_changes_while_something_is_bad",
            memory_lost,
        ),
        on_node(
            "a_damaged_memory_is_set_aside_and_nothing_leaks",
            memory_damaged,
        ),
        on_node("two_of_one_name_are_an_error_on_both", duplicate),
        on_node(
            "a_policy_that_is_too_large_is_refused_with_the_numbers",
            too_large,
        ),
    ]
}

fn to(port: u16) -> Frame {
    udp("10.0.0.1:5", &format!("192.168.0.1:{port}"))
}

fn dropping(port: u16) -> Lab {
    Lab::enforcing(&[("policy.yaml", &drop_udp("policy", port))])
}

/// A policy whose ports are reversed.
fn bad(name: &str) -> String {
    let rule = "{name: udp, action: Drop, protocols: [{udp: {ports: [{port: 9, endPort: 3}]}}]}";
    policy(name, &format!("{{rules: [{rule}]}}"))
}

/// The findings of a resource, `KIND/NAME`, or of files as a whole.
fn findings(node: &Node, resource: Option<&str>) -> Vec<Value> {
    let status = node.status();
    let all = status["findings"].as_array().cloned().unwrap_or_default();
    let of = |finding: &Value| {
        let name = finding["resource"]["name"].as_str()?;
        Some(format!("{}/{name}", finding["resource"]["kind"].as_str()?))
    };
    let fits = |finding: &Value| of(finding).as_deref() == resource;
    all.into_iter().filter(fits).collect()
}

/// Waits for a finding with this reason, and gives its place and message.
fn finding(node: &Node, resource: Option<&str>, reason: &str) -> (String, String) {
    let find = || {
        findings(node, resource)
            .into_iter()
            .find(|finding| finding["reason"] == reason)
    };
    let what = format!("{reason} of {resource:?}");
    let (found, _) = wait_for_some(SOON, &what, find);
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    (
        text("place"),
        format!("{}: {}", text("path"), text("message")),
    )
}

fn bad_edit() {
    let lab = dropping(1);
    lab.node.write("policy.yaml", &bad("policy"));
    let (place, message) = finding(&lab.node, Some("XdpPolicy/policy"), "Invalid");
    assert!(place.starts_with("policy.yaml:"), "{place}");
    for words in [
        "spec.rules[0].protocols[0].udp.ports[0]",
        "endPort",
        "generation 1 stays in effect",
    ] {
        assert!(message.contains(words), "{words}: {message}");
    }
    lab.node.wait_for_log(&place);
    lab.check([
        to(1).dropped_by("policy/udp"),
        to(3).passes(),
        to(9).passes(),
    ]);
    let status = lab.node.headgate(&["status"]);
    assert_eq!(status.code, 3, "{status:?}");
    let listed = lab.node.headgate(&["policy", "list"]).output;
    assert!(
        listed.contains("2 (1 in effect)") && listed.contains("Stalled"),
        "{listed}"
    );

    lab.node.apply("policy.yaml", &drop_udp("policy", 3));
    lab.check([to(1).passes(), to(3).dropped_by("policy/udp")]);
    assert_eq!(lab.node.headgate(&["status"]).code, 0);
}

fn unparsable() {
    let text = format!("{}---\n{}", drop_udp("one", 1), drop_udp("two", 2));
    let lab = Lab::enforcing(&[("both.yaml", &text)]);
    lab.node.write("both.yaml", "kind: [unclosed\n");
    let (place, message) = finding(&lab.node, None, "Unreadable");
    assert!(place.starts_with("both.yaml"), "{place}");
    for words in ["stays in effect", "XdpPolicy/one", "XdpPolicy/two"] {
        assert!(message.contains(words), "{words}: {message}");
    }
    lab.check([to(1).dropped_by("one/udp"), to(2).dropped_by("two/udp")]);
    lab.node.apply("both.yaml", &drop_udp("two", 2));
    lab.check([to(1).passes(), to(2).dropped_by("two/udp")]);
}

fn directory_gone() {
    let lab = dropping(1);
    let policies = lab.node.policies();
    let elsewhere = policies.with_file_name("elsewhere");
    fs::rename(&policies, &elsewhere).expect("both are ours");
    lab.node.wait_for_log("what is in effect stays");
    let status = lab.node.headgate(&["status"]);
    assert_eq!(status.code, 3, "{status:?}");
    assert!(
        status
            .output
            .contains("unavailable, what is in effect stays"),
        "{status:?}"
    );
    lab.check([to(1).dropped_by("policy/udp")]);

    fs::rename(&elsewhere, &policies).expect("both are ours");
    lab.node.wait_for_log("the source is available again");
    lab.node.apply("policy.yaml", &drop_udp("policy", 2));
    lab.check([to(1).passes(), to(2).dropped_by("policy/udp")]);
    assert_eq!(lab.node.headgate(&["status"]).code, 0);
}

fn directory_unknown() {
    let mut lab = dropping(1);
    lab.node.kill();
    let policies = lab.node.policies();
    // What this instance has read is waited for, over a restart too.
    let elsewhere = policies.with_file_name("elsewhere");
    fs::rename(&policies, &elsewhere).expect("both are ours");
    lab.node.start_unsettled();
    lab.node.wait_for_log("what is in effect stays");
    lab.check([to(1).dropped_by("policy/udp")]);
    lab.node.kill();
    // Another name is a slip, and so is a file.
    let file = elsewhere.join("policy.yaml");
    for (slip, why) in [
        (&policies.with_file_name("polices"), "No such file"),
        (&file, "Not a directory"),
    ] {
        let source = slip.display().to_string();
        let said = lab.node.headgate(&["agent", "--source", &source]);
        assert_eq!(said.code, 1, "{said:?}");
        for words in [&format!("--source {source}: {why}"), "the word kubernetes"] {
            assert!(said.errors.contains(words), "{words}: {said:?}");
        }
    }
    lab.check([to(1).dropped_by("policy/udp")]);
    fs::rename(&elsewhere, &policies).expect("both are ours");
    lab.node.start();
}

fn renamed() {
    let lab = dropping(1);
    let receiver = Receiver::open(&lab.node.namespace, &[1]);
    let flow = lab
        .client
        .flow(&[lab.client.cable.client.v4.into()], 1, 2_000);
    let policies = lab.node.policies();
    let away = policies.with_file_name("elsewhere");
    let [one, other] = ["policy.yaml", "0.yaml"].map(|name| policies.join(name));
    for _ in 0..100 {
        let steps = [
            (&one, &other),
            (&policies, &away),
            (&away, &policies),
            (&other, &one),
        ];
        for (from, to) in steps {
            fs::rename(from, to).expect("all are ours");
            lab.client.let_flow(&flow, 10);
        }
    }
    let (sent, leaked) = lab.client.finish(flow, &receiver);
    assert_eq!(leaked, 0, "of {sent}");
    lab.check([to(1).dropped_by("policy/udp"), to(2).passes()]);
}

fn never_good() {
    let mut lab = Lab::new();
    lab.node.write("good.yaml", &drop_udp("good", 1));
    lab.node.write("bad.yaml", &bad("bad"));
    lab.node.start();
    let (_, message) = finding(&lab.node, Some("XdpPolicy/bad"), "Invalid");
    assert!(message.contains("it is left out"), "{message}");
    lab.check([to(1).dropped_by("good/udp"), to(3).passes(), to(9).passes()]);
}

fn unresolved() {
    let rule = "{name: listed, action: Drop, from: {cidrGroups: {names: [list]}}}";
    let lab = Lab::enforcing(&[(
        "policy.yaml",
        &policy("policy", &format!("{{rules: [{rule}]}}")),
    )]);
    let (_, message) = finding(&lab.node, Some("XdpPolicy/policy"), "UnresolvedReferences");
    assert!(
        message.contains("there is no CidrGroup \"list\""),
        "{message}"
    );
    lab.check([to(1).passes()]);
    lab.node
        .apply("list.yaml", &group("list", &["10.0.0.0/24".to_owned()]));
    lab.check([to(1).dropped_by("policy/listed")]);
    // Gone again, its last content stays.
    lab.node.remove("list.yaml");
    let (_, message) = finding(&lab.node, Some("XdpPolicy/policy"), "UnresolvedReferences");
    assert!(message.contains("stays in effect"), "{message}");
    lab.check([to(1).dropped_by("policy/listed")]);
}

fn restart_while_bad() {
    let mut lab = dropping(1);
    lab.node.write("policy.yaml", &bad("policy"));
    finding(&lab.node, Some("XdpPolicy/policy"), "Invalid");
    lab.node.kill();
    lab.check([to(1).dropped_by("policy/udp")]);
    lab.node.start();
    let (_, message) = finding(&lab.node, Some("XdpPolicy/policy"), "Invalid");
    assert!(
        message.contains("generation 1 stays in effect"),
        "{message}"
    );
    lab.check([to(1).dropped_by("policy/udp"), to(9).passes()]);
}

fn memory_lost() {
    let mut lab = dropping(1);
    lab.node.kill();
    fs::remove_dir_all(lab.node.state()).expect("the state is there");
    lab.node.write("policy.yaml", &bad("policy"));
    lab.node.write("other.yaml", &drop_udp("other", 2));
    lab.node.start_unsettled();
    let (_, message) = finding(&lab.node, Some("XdpPolicy/other"), "Blocked");
    assert!(message.contains("XdpPolicy/policy"), "{message}");
    lab.node.wait_for_log("the agent's memory is lost");
    lab.check_arrivals([to(1).dropped(), to(2).passes()]);
    assert_eq!(lab.node.headgate(&["status"]).code, 3);

    lab.node.apply("policy.yaml", &drop_udp("policy", 3));
    lab.check([
        to(1).passes(),
        to(2).dropped_by("other/udp"),
        to(3).dropped_by("policy/udp"),
    ]);
    assert_eq!(lab.node.headgate(&["status"]).code, 0);
}

fn memory_damaged() {
    let mut lab = dropping(1);
    let receiver = Receiver::open(&lab.node.namespace, &[1]);
    let flow = lab
        .client
        .flow(&[lab.client.cable.client.v4.into()], 1, 2_000);
    lab.node.kill();
    fs::write(lab.node.state().join("memory.json"), "{\"lost").expect("the state is ours");
    lab.node.start();
    lab.client.let_flow(&flow, 500);
    let log = lab.node.log();
    assert!(log.contains("memory.json is damaged"), "{log}");
    let (sent, leaked) = lab.client.finish(flow, &receiver);
    assert_eq!(leaked, 0, "of {sent}");
    lab.check([to(1).dropped_by("policy/udp"), to(2).passes()]);
    assert_eq!(lab.node.headgate(&["status"]).code, 0);
}

fn duplicate() {
    let lab = dropping(1);
    lab.node.write("second.yaml", &drop_udp("policy", 2));
    let (_, message) = finding(&lab.node, Some("XdpPolicy/policy"), "Invalid");
    assert!(message.contains("stays in effect"), "{message}");
    let places: Vec<Value> = findings(&lab.node, Some("XdpPolicy/policy"))
        .into_iter()
        .map(|finding| finding["place"].clone())
        .collect();
    for file in ["policy.yaml:1", "second.yaml:1"] {
        assert!(
            places.iter().any(|place| place == file),
            "{file}: {places:?}"
        );
    }
    lab.check([to(1).dropped_by("policy/udp"), to(2).passes()]);
}

fn too_large() {
    let lab = dropping(1);
    // Every rule has a source set, a destination set and ports of its own: the crossings multiply.
    let rules: Vec<String> = (0..256)
        .map(|n| {
            let bits: Vec<String> = (0..8).map(|bit| format!("10.{n}.{}.0/24", bit * 31 + n % 7)).collect();
            format!(
                "{{name: r{n}, action: Drop, from: {{cidrs: [{from}]}}, to: {{cidrs: [{to}]}}, protocols: [{{udp: {{ports: [{{port: {n}, endPort: {end}}}], sourcePorts: [{{port: {low}, endPort: {high}}}]}}}}]}}",
                from = bits.join(", "),
                to = bits.join(", "),
                end = 40_000 + n * 3,
                low = n * 5,
                high = 50_000 + n,
            )
        })
        .collect();
    lab.node.write(
        "large.yaml",
        &policy("large", &format!("{{rules: [{}]}}", rules.join(", "))),
    );
    let (_, message) = finding(&lab.node, Some("XdpPolicy/large"), "TooLarge");
    assert!(message.contains("it is left out"), "{message}");
    assert!(message.contains(|c: char| c.is_ascii_digit()), "{message}");
    lab.check([to(1).dropped_by("policy/udp")]);
}
