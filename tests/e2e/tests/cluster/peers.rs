//! TunnelPeers that the operator keeps for Nodes.

use headgate_e2e_tests::{
    cluster::LABEL,
    fleet::{Fleet, SOON},
    kubectl::Kubectl,
    pod::Pod,
    trials::on_cluster,
    wait::wait_for,
};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::operator::{is, started};

pub(crate) fn trials() -> Vec<Trial> {
    vec![on_cluster(
        "nodes_are_joined_by_what_the_cluster_knows_of_them",
        joined,
    )]
}

/// What [`Pod::on`] has behind the node of this number.
fn networks(number: usize) -> [String; 2] {
    [
        format!("10.244.{number}.0/24"),
        format!("fd24:{number}::/64"),
    ]
}

/// Tells the API of a node what its kubelet and the controller of CIDRs would.
fn describe(kubectl: &Kubectl, node: &str, number: usize, address: &Value) {
    let cidrs = networks(number);
    let spec = json!({"spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs}});
    let address = json!({"type": "InternalIP", "address": address});
    let status = json!({"status": {"addresses": [address]}});
    let patch = ["patch", "node", node, "--type=merge", "-p"];
    kubectl.run(&[patch.as_slice(), &[&spec.to_string()]].concat());
    let of_status = ["--subresource=status"];
    kubectl.run(&[patch.as_slice(), &[&status.to_string()], &of_status].concat());
}

fn joined() {
    let control_plane = started();
    let fleet = Fleet::on(&control_plane, 3);
    let kubectl = control_plane.kubectl();
    let names: Vec<String> = fleet.cluster.nodes.iter().map(|n| n.name.clone()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for (index, node) in fleet.cluster.nodes.iter().enumerate() {
        describe(kubectl, &node.name, index + 1, &json!(node.member.end.v4));
    }
    // Of the third node somebody says himself what is behind it, and of something else.
    for (name, network) in [(names[2], "10.9.3.0/24"), ("site", "10.9.9.0/24")] {
        fleet.apply(&json!({
            "apiVersion": "headgate.dev/v1alpha1", "kind": "TunnelPeer",
            "metadata": {"name": name},
            "spec": {
                "nodeSelector": {"matchLabels": {LABEL: fleet.cluster.name}},
                "podCIDRs": [network], "endpoint": "198.51.100.9", "vni": 9,
            },
        }));
    }
    let peer = |name: &str| {
        let said = kubectl.said(&["get", "tp", name, "-o", "json"]);
        serde_json::from_str(&said.output).unwrap_or(Value::Null)
    };
    let written = [names[2], "site"].map(|name| peer(name)["spec"].clone());
    let operator = control_plane.start_operator("first", &["--peers-from-nodes=7"]);
    let pods = [0, 1].map(|index: usize| {
        let node = &fleet.cluster.nodes[index];
        Pod::on(&node.member, index as u8 + 1)
    });
    let fleet = fleet.start();
    for name in &names[..2] {
        wait_for(SOON, "the Node's peer is live", || {
            is(&peer(name), "Ready=True/Live")
        });
    }
    // A veth pair takes 1500 bytes if nobody says anything, and the tunnel 1450.
    let datapath = fleet.wait_for_datapath(0, "tells of its pods' MTU", |status| {
        is(
            &json!({"status": status}),
            "PodsFitTunnel=False/PodMtuTooLarge",
        )
    });
    assert!(
        is(&json!({"status": datapath}), "Ready=True/Enforced"),
        "{datapath:#}"
    );
    for [from, to] in [[0, 1], [1, 0]] {
        for address in pods[to].addresses {
            pods[from]
                .fetch(address)
                .unwrap_or_else(|error| panic!("pod {from} and {address}: {error}"));
        }
    }
    let found = kubectl.json(&["get", "tp", names[0]]);
    assert_eq!(found["spec"]["podCIDRs"], json!(networks(1)));
    assert_eq!(found["metadata"]["ownerReferences"][0]["kind"], "Node");

    let routes = || fleet.nodes[0].namespace.ip("route show dev headgate_vxlan");
    assert!(routes().contains("10.244.2.0/24"), "{}", routes());
    kubectl.run(&["delete", "node", names[1]]);
    wait_for(SOON, "nothing leads to a Node that is gone", || {
        peer(names[1]) == Value::Null && !routes().contains("10.244.2.0/24")
    });
    drop(operator);
    let _operator = control_plane.start_operator("second", &[]);
    wait_for(SOON, "none is kept where none is asked for", || {
        peer(names[0]) == Value::Null
    });
    let now = [names[2], "site"].map(|name| peer(name)["spec"].clone());
    assert_eq!(now, written, "another's are left alone");
    assert!(routes().contains("10.9.9.0/24"), "{}", routes());
}
