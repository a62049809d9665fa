//! Which interface each pod of a node is behind.

use std::{process::Command, sync::Arc};

use headgate_e2e_tests::{
    binary::headgate,
    namespace::Namespace,
    node::{Node, SOON},
    said::Said,
    trials::on_node,
    wait::wait_for,
};
use libtest_mimic::Trial;
use serde_json::{Value, json};

pub(crate) fn trials() -> Vec<Trial> {
    vec![on_node(
        "pods_of_a_bridge_and_of_point_to_point_are_found",
        found,
    )]
}

const POLICY: &str = "\
apiVersion: headgate.dev/v1alpha1
kind: XdpPolicy
metadata: {name: at-a-pod}
spec: {interfaces: [alone], defaultAction: Allow}
";

/// A pod behind this interface of `node`; gives the number of its own end.
fn pod(node: &Namespace, interface: &str, v4: &str, v6: &str) -> (Namespace, u64) {
    let pod = Namespace::new(interface);
    pod.ip(&format!(
        "link add eth0 type veth peer name {interface} netns {}",
        node.path().display()
    ));
    node.ip(&format!("link set {interface} up"));
    pod.ip("link set eth0 up");
    pod.ip(&format!("address add {v4} dev eth0"));
    pod.ip(&format!("address add {v6} dev eth0 nodad"));
    let shown: Value = serde_json::from_str(&pod.ip("-j link show eth0")).expect("JSON");
    let number = shown[0]["ifindex"].as_u64().expect("a number");
    (pod, number)
}

fn command(node: &Namespace, arguments: &[&str]) -> Command {
    let mut command = node.command(headgate());
    command.args(arguments);
    command
}

fn get(node: &Namespace, address: &str) -> Value {
    let found = Said::of(&mut command(node, &["pod", "get", address, "-o", "json"])).json();
    found[0].clone()
}

fn found() {
    let node = Arc::new(Namespace::new("node"));
    node.ip("link add cni0 type bridge");
    node.ip("link set cni0 up");
    node.ip("address add 10.99.1.1/24 dev cni0");
    node.ip("address add fd99:1::1/64 dev cni0 nodad");
    let (bridged, of_bridged) = pod(&node, "bridged", "10.99.1.2/24", "fd99:1::2/64");
    node.ip("link set bridged master cni0");
    let (alone, of_alone) = pod(&node, "alone", "10.99.9.5/32", "fd99:9::5/128");
    node.ip("route add 10.99.9.5/32 dev alone");
    node.ip("-6 route add fd99:9::5/128 dev alone");
    let mut agent = Node::new(&node);
    agent.write("policy.yaml", POLICY);
    agent.start();
    // Of the one at the bridge nobody knows before it was spoken to.
    let unasked = get(&node, "10.99.1.2");
    let reason = unasked["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("would lie at cni0"), "{unasked:#}");
    for address in ["10.99.1.2", "fd99:1::2"] {
        wait_for(SOON, "the pod answers", || {
            let ping = ["-c", "1", "-W", "1", address];
            node.command("ping")
                .args(ping)
                .output()
                .is_ok_and(|o| o.status.success())
        });
        let pod = get(&node, address);
        let place = &pod["place"];
        assert_eq!(place["interface"], "bridged", "{pod:#}");
        assert_eq!(place["peerIfindex"], of_bridged, "{pod:#}");
        assert_eq!(place["bridge"], "cni0", "{pod:#}");
        assert_eq!(place["programs"], json!([]), "{pod:#}");
    }
    for address in ["10.99.9.5", "fd99:9::5"] {
        let pod = get(&node, address);
        let place = &pod["place"];
        assert_eq!(place["interface"], "alone", "{pod:#}");
        assert_eq!(place["peerIfindex"], of_alone, "{pod:#}");
        assert_eq!(place["way"], "PointToPoint", "{pod:#}");
        let [program] = place["programs"].as_array().expect("programs").as_slice() else {
            panic!("one program: {pod:#}");
        };
        assert_eq!(program["hook"], "XDP, native", "{pod:#}");
        assert_eq!(program["name"], "headgate", "{pod:#}");
    }
    let list = Said::of(&mut command(&node, &["pod", "list", "-o", "json"])).json();
    let listed = list.as_array().expect("a list").iter();
    let listed: Vec<_> = listed.filter_map(|pod| pod["address"].as_str()).collect();
    let all = ["10.99.1.2", "10.99.9.5", "fd99:1::2", "fd99:9::5"];
    assert_eq!(listed, all);
    // A bridge that has forgotten at which port it is.
    node.ip("link set bridged type bridge_slave fdb_flush");
    let forgotten = get(&node, "10.99.1.2");
    let reason = forgotten["reason"].as_str().unwrap_or_default();
    assert!(
        reason.contains("does not know at which port"),
        "{forgotten:#}"
    );
    for (address, why) in [
        ("10.99.1.1", "of the node itself"),
        ("203.0.113.1", "no route of this node"),
    ] {
        let pod = get(&node, address);
        let reason = pod["reason"].as_str().unwrap_or_default();
        assert!(reason.contains(why), "{pod:#}");
    }
    let table = Said::of(&mut command(&node, &["pod", "list"]));
    assert!(table.output.contains("point to point"), "{table:?}");
    let named = table.errors.contains("names of Pods are not known");
    assert!(named, "{table:?}");
    drop((bridged, alone));
}
