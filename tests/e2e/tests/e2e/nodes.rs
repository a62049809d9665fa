//! Which policies concern a node, and which of its interfaces.

use headgate_e2e_tests::{
    frames::{Frame, tcp, udp},
    lab::{Client, Lab},
    node::Node,
    policies::{drop_udp, policy},
    trials::on_node,
};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        on_node("policies_of_different_interfaces_stay_apart", apart),
        on_node("match_expressions_select_the_nodes_they_say", labels),
        on_node(
            "defaults_that_differ_come_to_drop_and_priorities_order",
            order,
        ),
    ]
}

fn drop_on(interface: &str, name: &str, port: u16) -> String {
    drop_udp(name, port).replace("spec: {", &format!("spec: {{interfaces: [{interface}], "))
}

fn apart() {
    let mut lab = Lab::new();
    let other = Client::join(&lab.node.namespace, 1);
    lab.node.write("zero.yaml", &drop_on("eth0", "zero", 1));
    lab.node.write("one.yaml", &drop_on("eth1", "one", 2));
    lab.node.write("both.yaml", &drop_on("\"eth*\"", "both", 3));
    lab.node.start();
    let to = |network: u8, port: u16| -> Frame {
        udp("10.0.0.1:5", &format!("192.168.{network}.1:{port}"))
    };
    lab.check([
        to(0, 1).dropped_by("zero/udp"),
        to(0, 2).passes(),
        to(0, 3).dropped_by("both/udp"),
    ]);
    other.check(
        &lab.node,
        [
            to(1, 1).passes(),
            to(1, 2).dropped_by("one/udp"),
            to(1, 3).dropped_by("both/udp"),
        ],
    );
    // An edit of one leaves the other as it is.
    lab.node.apply("one.yaml", &drop_on("eth1", "one", 4));
    lab.check([to(0, 1).dropped_by("zero/udp"), to(0, 4).passes()]);
    other.check(
        &lab.node,
        [to(1, 2).passes(), to(1, 4).dropped_by("one/udp")],
    );
}

fn states(node: &Node) -> Vec<String> {
    let listed = node.headgate(&["policy", "list", "-o", "json"]).json();
    let policies = listed.as_array().cloned().unwrap_or_default();
    let state = |policy: &serde_json::Value| {
        let text = |field: &str| policy[field].as_str().unwrap_or_default().to_owned();
        format!("{} {}", text("name"), text("state"))
    };
    policies.iter().map(state).collect()
}

fn labels() {
    let selecting = |name: &str, expression: &str, port: u16| {
        let selector = format!("spec: {{nodeSelector: {{matchExpressions: [{expression}]}}, ");
        drop_udp(name, port).replace("spec: {", &selector)
    };
    let mut lab = Lab::new();
    lab.node.write(
        "edge.yaml",
        &selecting("edge", "{key: role, operator: In, values: [edge]}", 1),
    );
    lab.node.write(
        "inner.yaml",
        &selecting("inner", "{key: role, operator: NotIn, values: [edge]}", 2),
    );
    lab.node.write(
        "zoned.yaml",
        &selecting("zoned", "{key: zone, operator: Exists}", 3),
    );
    let to = |port: u16| udp("10.0.0.1:5", &format!("192.168.0.1:{port}"));

    lab.node.arguments = vec!["--node-labels".to_owned(), "role=edge,zone=a".to_owned()];
    lab.node.start();
    assert_eq!(
        states(&lab.node),
        ["edge Enforced", "inner NotSelected", "zoned Enforced"]
    );
    lab.check([
        to(1).dropped_by("edge/udp"),
        to(2).passes(),
        to(3).dropped_by("zoned/udp"),
    ]);
    // What the agent was told about its node needs no telling again.
    let directory = lab.node.policies().display().to_string();
    let planned = lab.node.headgate(&["plan", &directory]);
    assert!(
        planned.output.contains("Nothing would change"),
        "{planned:?}"
    );

    lab.node.terminate();
    lab.node.arguments = vec!["--node-labels".to_owned(), "role=core".to_owned()];
    lab.node.start();
    assert_eq!(
        states(&lab.node),
        ["edge NotSelected", "inner Enforced", "zoned NotSelected"]
    );
    lab.check([
        to(1).passes(),
        to(2).dropped_by("inner/udp"),
        to(3).passes(),
    ]);
}

fn order() {
    let open = "{priority: 10, rules: [{name: dns, action: Allow, protocols: [{udp: {ports: [{port: 53}]}}]}]}";
    let closed = "{priority: 20, defaultAction: Drop, rules: [{name: dns, action: Drop, protocols: [{udp: {ports: [{port: 53}]}}]}, {name: web, action: Allow, protocols: [{tcp: {ports: [{port: 80}]}}]}]}";
    let lab = Lab::enforcing(&[
        ("open.yaml", &policy("open", open)),
        ("closed.yaml", &policy("closed", closed)),
    ]);
    lab.check([
        udp("10.0.0.1:5", "192.168.0.1:53").passed_by("open/dns"),
        udp("10.0.0.1:5", "192.168.0.1:54").dropped_by("DefaultDrop"),
        tcp("10.0.0.1:5", "192.168.0.1:80", "S").passed_by("closed/web"),
    ]);
    lab.node.apply(
        "open.yaml",
        &policy("open", &open.replace("priority: 10", "priority: 30")),
    );
    lab.check([udp("10.0.0.1:5", "192.168.0.1:53").dropped_by("closed/dns")]);
}
