//! Pods of two nodes that no route joins but the tunnel's.

use headgate_e2e_tests::{
    real::{ProxyMode, RealCluster, RealNode},
    trials::on_real_nodes,
};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{
    Shared,
    servers::{Pods, Server},
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![on_real_nodes(
        "pods_of_two_nodes_and_services_work_through_the_tunnel_alone",
        joined,
    )]
}

const DEVICE: &str = "headgate_vxlan";
/// MiB of the file that is fetched.
const FILE: u64 = 100;

fn joined() {
    let cluster = Shared::installed();
    let pods = Pods::start(&cluster, &[0, 1]);
    let _tunnel = Tunnel::dig(&cluster);
    let [here, there] = [&pods.servers[0], &pods.servers[1]];
    let sums = [here, there].map(|server| pods.fill(server));
    for mode in ProxyMode::ALL {
        cluster.run_proxies(mode);
        pods.assert_reached(&format!("through the tunnel, by {mode:?}"));
        assert_pinged(&pods, &there.addresses[0]);
        for (server, sum) in [here, there].into_iter().zip(&sums) {
            for address in &server.addresses {
                let before = cluster.nodes.iter().map(through).collect::<Vec<_>>();
                let got = pods.fetched(address, "/file", "sha256sum");
                assert_eq!(got.code, 0, "{address} by {mode:?}: {got:?}");
                assert_eq!(first_word(&got.output), sum, "{address} by {mode:?}");
                let after = cluster.nodes.iter().map(through).collect::<Vec<_>>();
                let [received, sent] = [after[0].0 - before[0].0, after[1].1 - before[1].1];
                println!(
                    "{mode:?}, {} at {address}: {received} bytes received, {sent} sent",
                    server.name
                );
                // What a pod of the node itself serves has no reason to be there.
                let all = FILE << 20;
                match server.name == there.name {
                    true => assert!(received >= all && sent >= all, "not through the tunnel"),
                    false => assert!(received < all / 100, "through the tunnel"),
                }
            }
        }
        assert_node_reaches(&cluster, there, mode);
    }
}

/// What is longer than the tunnel takes is not, and its sender is told.
fn assert_pinged(pods: &Pods<'_>, address: &str) {
    for length in ["56", "1400"] {
        let ping = [
            "ping", "-c", "3", "-i", "0.2", "-W", "2", "-s", length, address,
        ];
        let said = pods.said_of_client(&ping);
        assert!(said.output.contains("3 received"), "{said:?}");
    }
    let too_long = [
        "ping", "-M", "do", "-c", "1", "-W", "2", "-s", "1450", address,
    ];
    let said = pods.said_of_client(&too_long);
    // By ICMP at first, of which its own kernel reminds it afterwards: `mtu = 1450`, and `mtu=1450`.
    let told = format!("{}{}", said.output, said.errors).replace(' ', "");
    assert!(told.contains("mtu=1450"), "{said:?}");
}

/// The node itself reaches a pod of another by its Service.
fn assert_node_reaches(cluster: &RealCluster, server: &Server, mode: ProxyMode) {
    let url = format!(
        "http://{}:{}/etc/hostname",
        server.addresses[1],
        crate::servers::PORT
    );
    let curl = ["-sSf", "--noproxy", "*", "-m", "10", &url];
    let said = cluster.nodes[0].said("curl", &curl);
    assert_eq!(said.output.trim_end(), server.name, "{mode:?}: {said:?}");
}

/// Bytes that a node has received and sent through the tunnel.
fn through(node: &RealNode) -> (u64, u64) {
    let text = node
        .member
        .namespace
        .ip(&format!("-s -j link show dev {DEVICE}"));
    let links: Value = serde_json::from_str(&text).expect("ip prints JSON");
    let bytes = |way: &str| links[0]["stats64"][way]["bytes"].as_u64();
    let (received, sent) = (bytes("rx"), bytes("tx"));
    (
        received.expect("they are counted"),
        sent.expect("they are counted"),
    )
}

fn first_word(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or_default()
}

impl Pods<'_> {
    /// Gives a server the file to serve; gives its checksum.
    fn fill(&self, server: &Server) -> String {
        let count = format!("count={FILE}");
        let write = ["dd", "if=/dev/urandom", "of=/file", "bs=1M", &count];
        let said = self.said_in(&server.name, &write);
        assert_eq!(said.code, 0, "{said:?}");
        let said = self.said_in(&server.name, &["sha256sum", "/file"]);
        assert_eq!(said.code, 0, "{said:?}");
        first_word(&said.output).to_owned()
    }
}

/// A tunnel between all nodes, in place of the routes between their pods, which come back when it is dropped.
struct Tunnel<'a> {
    cluster: &'a RealCluster,
}

impl<'a> Tunnel<'a> {
    fn dig(cluster: &'a RealCluster) -> Self {
        let nodes = cluster.kubectl().json(&["get", "nodes"]);
        let nodes = nodes["items"].as_array().cloned().unwrap_or_default();
        let peers: Vec<Value> = nodes.iter().map(peer).collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": peers});
        cluster.kubectl().apply(&list.to_string());
        cluster.route_between_pods("del");
        let tunnel = Self { cluster };
        let ready = ["wait", "--for=condition=Ready", "tunnelpeers", "--all"];
        cluster.run(&[ready.as_slice(), &["--timeout=60s"]].concat());
        tunnel
    }
}

impl Drop for Tunnel<'_> {
    fn drop(&mut self) {
        self.cluster.route_between_pods("add");
        let delete = ["delete", "tunnelpeers", "--all", "--timeout=60s"];
        let said = self.cluster.kubectl().said(&delete);
        if said.code != 0 {
            eprintln!("taking down the tunnel: {said:?}");
        }
    }
}

/// The peer that a Node is.
fn peer(node: &Value) -> Value {
    let addresses = node["status"]["addresses"].as_array().into_iter().flatten();
    let mut internal = addresses.filter(|address| address["type"] == "InternalIP");
    let endpoint = &internal.next().expect("a node has an address")["address"];
    json!({
        "apiVersion": "headgate.dev/v1alpha1",
        "kind": "TunnelPeer",
        "metadata": {"name": node["metadata"]["name"]},
        "spec": {"podCIDRs": node["spec"]["podCIDRs"], "endpoint": endpoint, "vni": 7},
    })
}
