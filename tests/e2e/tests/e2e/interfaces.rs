//! Links that others remove, interfaces that come, go and change their names.

use headgate_e2e_tests::{
    frames::{Frame, udp},
    lab::{Client, Lab},
    namespace::run,
    node::{Node, SOON},
    policies::policy,
    trials::{on_node, on_node_with},
    wait::wait_for,
};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        on_node_with(
            "a_link_removed_behind_our_back_is_put_back",
            &["bpftool"],
            link_removed,
        ),
        on_node("an_interface_made_anew_is_enforced_again", made_anew),
        on_node("an_interface_that_comes_later_is_waited_for", comes_later),
        on_node("a_slip_in_an_interfaces_name_is_told", slip),
        on_node(
            "a_default_route_that_comes_later_is_waited_for",
            route_comes_later,
        ),
        on_node("a_renamed_interface_is_selected_by_its_new_name", renamed),
        on_node("a_bridge_is_its_ports_that_are_no_veth", bridge),
    ]
}

fn on(interface: &str) -> String {
    let spec = format!(
        "{{interfaces: [{interface}], rules: [{{name: udp, action: Drop, protocols: [{{udp: {{ports: [{{port: 9}}]}}}}]}}]}}"
    );
    policy("dropping", &spec)
}

fn bad() -> Frame {
    udp("10.0.0.1:5", "192.168.0.1:9")
}

fn enforced(node: &Node, interface: &str) -> bool {
    node.interface(interface)["state"] == "Enforced"
}

fn link_removed() {
    let lab = Lab::enforcing(&[("policy.yaml", &on("eth0"))]);
    lab.check([bad().dropped_by("dropping/udp")]);
    lab.node.pause();
    let layouts = std::fs::read_dir(lab.node.pins()).expect("the instance's folder");
    let [layout] = layouts
        .flatten()
        .collect::<Vec<_>>()
        .try_into()
        .expect("one layout");
    let links = std::fs::read_dir(layout.path().join("links"));
    let link = links.expect("the links' folder").next();
    let link = link
        .expect("there is a link")
        .expect("it can be read")
        .path();
    run(std::process::Command::new("bpftool")
        .args(["link", "detach", "pinned"])
        .arg(link));
    let status = lab.node.headgate(&["status"]);
    assert_eq!(status.code, 3, "{status:?}");
    assert!(
        status.output.contains("detached by somebody else"),
        "{status:?}"
    );
    lab.check([bad().passes()]);

    lab.node.resume();
    wait_for(SOON, "the link is put back", || enforced(&lab.node, "eth0"));
    lab.check([bad().dropped_by("dropping/udp")]);
    lab.node
        .wait_for_log("the program was detached by somebody else");
}

fn made_anew() {
    let mut lab = Lab::enforcing(&[("policy.yaml", &on("eth0"))]);
    lab.check([bad().dropped_by("dropping/udp")]);
    lab.node.namespace.ip("link del eth0");
    wait_for(SOON, "the loss is told", || {
        let listed = lab.node.headgate(&["policy", "list", "-o", "json"]).json();
        listed[0]["state"] == "Pending"
    });
    lab.client.lay_again(&lab.node.namespace);
    let took = wait_for(SOON, "it is enforced again", || enforced(&lab.node, "eth0"));
    println!("enforced {took:?} after the interface was there");
    lab.check([bad().dropped_by("dropping/udp")]);
}

fn comes_later() {
    let mut lab = Lab::new();
    lab.node.write("policy.yaml", &on("eth1"));
    lab.node.start_unsettled();
    let finding = lab.node.status()["findings"][0].clone();
    assert_eq!(finding["reason"], "InterfaceNotFound", "{finding:#}");
    assert_eq!(finding["severity"], "Pending", "{finding:#}");
    let message = finding["message"].as_str().unwrap_or_default();
    assert!(
        message.contains("no interface \"eth1\" on this node"),
        "{message}"
    );
    lab.node.wait_for_log("no interface \"eth1\" on this node");

    let other = Client::join(&lab.node.namespace, 1);
    let took = wait_for(SOON, "it is attached", || enforced(&lab.node, "eth1"));
    println!("enforced {took:?} after the interface was there");
    other.check(
        &lab.node,
        [udp("10.0.0.1:5", "192.168.1.1:9").dropped_by("dropping/udp")],
    );
    lab.check([bad().passes()]);
}

fn slip() {
    let lab = Lab::enforcing(&[("policy.yaml", &on("eth0"))]);
    assert_eq!(lab.node.headgate(&["status"]).code, 0);
    lab.node.write("policy.yaml", &on("eht0"));
    lab.node.wait_for_log("did you mean \"eth0\"?");
    let status = lab.node.headgate(&["status"]);
    assert_eq!(status.code, 3, "{status:?}");
    for words in [
        "XdpPolicy/dropping: none of the interfaces is on this node",
        "did you mean \"eth0\"?",
        "it is enforced nowhere on this node",
    ] {
        assert!(status.output.contains(words), "{words}: {status:?}");
    }
    // One of several that is missing is waited for, and is no fault of the node's.
    lab.node.apply("policy.yaml", &on("eth0, eht1"));
    let status = lab.node.headgate(&["status"]);
    assert_eq!(status.code, 0, "{status:?}");
    assert!(
        status.output.contains("no interface \"eht1\""),
        "{status:?}"
    );
}

fn route_comes_later() {
    let mut lab = Lab::new();
    let no_route = |lab: &Lab| {
        lab.node.namespace.ip("route del default");
        lab.node.namespace.ip("-6 route del default");
    };
    no_route(&lab);
    lab.node.write("policy.yaml", &on("defaultRoute"));
    lab.node.start_unsettled();
    lab.node.wait_for_log("no interface has a default route");
    lab.check([bad().passes()]);
    lab.client.be_default_route(&lab.node.namespace);
    wait_for(SOON, "it is attached", || enforced(&lab.node, "eth0"));
    lab.check([bad().dropped_by("dropping/udp")]);

    // A route that is lost takes nothing away.
    no_route(&lab);
    lab.node
        .wait_for_log("no default route leaves by eth0 any more");
    lab.check([bad().dropped_by("dropping/udp")]);
}

fn renamed() {
    let lab = Lab::enforcing(&[("policy.yaml", &on("\"wan*\", eth0"))]);
    lab.check([bad().dropped_by("dropping/udp")]);
    let node = &lab.node.namespace;
    for step in ["down", "name wan0", "up"] {
        let name = if step == "up" { "wan0" } else { "eth0" };
        node.ip(&format!("link set {name} {step}"));
    }
    wait_for(SOON, "it is enforced by its new name", || {
        enforced(&lab.node, "wan0")
    });
    lab.check([bad().dropped_by("dropping/udp")]);

    lab.node
        .live_after(|node| node.write("policy.yaml", &on("eth0")));
    lab.check([bad().passes()]);
    assert!(!node.ip("link show wan0").contains("xdp"));
}

fn bridge() {
    let mut lab = Lab::new();
    let node = lab.node.namespace.clone();
    node.ip("link add br0 type bridge");
    node.ip("link set br0 up");
    node.ip("link set eth0 master br0");
    lab.node.write("policy.yaml", &on("br0"));
    lab.node.start_unsettled();
    let said = "bridge br0 has no port that is not a veth";
    lab.node.wait_for_log(said);
    lab.check([bad().passes()]);

    node.ip("link add vxlan0 type vxlan id 7 dstport 4789 local 192.168.0.1");
    node.ip("link set vxlan0 up");
    node.ip("link set vxlan0 master br0");
    wait_for(SOON, "the port is attached", || {
        enforced(&lab.node, "vxlan0")
    });
    let interfaces = lab.node.status()["interfaces"].clone();
    assert_eq!(
        interfaces.as_array().map(Vec::len),
        Some(1),
        "{interfaces:#}"
    );
    lab.check([bad().passes()]);
}
