//! Pods of real nodes that nothing joins but the tunnel.

use std::{collections::BTreeSet, thread};

use headgate_e2e_tests::{
    real::{ProxyMode, RealCluster, RealNode, SOON, condition},
    trials::on_real_nodes,
    wait::wait_for,
};
use libtest_mimic::Trial;
use serde_json::json;

use crate::{
    Shared,
    pods::{PORT, Pods},
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        on_real_nodes("pods_are_joined_by_a_tunnel_beside_nftables", || {
            joined(ProxyMode::Nftables);
        }),
        on_real_nodes("pods_are_joined_by_a_tunnel_beside_iptables", || {
            joined(ProxyMode::Iptables);
        }),
    ]
}

/// MiB of the file that one pod fetches from another.
const LARGE: u64 = 100;

fn joined(mode: ProxyMode) {
    let mut cluster = Shared::installed();
    cluster.proxy_by(mode);
    let pods = Pods::start_of(&cluster, &[0, 1]);
    pods.assert_proxied_by(mode);
    let joined = Joined::from(&cluster);
    let [_, service] = pods.addresses();
    let before = received(&cluster.nodes[0]);
    // Across nodes by the address of a pod itself, and by that of the Service to pods of both nodes.
    let other = cluster.run(&[
        "get",
        "pod/server-2",
        "-n",
        Pods::NAMESPACE,
        "-o",
        "jsonpath={.status.podIP}",
    ]);
    let ping = pods.shell("client", &format!("/busybox ping -c 3 -W 2 {other}"));
    assert_eq!(ping.code, 0, "{ping:?}");
    // The busybox of Debian dies of `wget`.
    let get = |address: &str, path: &str| {
        let request = format!(r"GET {path} HTTP/1.0\r\n\r\n");
        format!("/busybox printf '{request}' | /busybox nc -w 30 {address} {PORT}")
    };
    let name = |address: &str| {
        let said = pods.shell("client", &get(address, "/etc/hostname"));
        let last = said.output.lines().last();
        last.unwrap_or_else(|| panic!("{address}: {said:?}"))
            .to_owned()
    };
    assert_eq!(name(&other), "server-2");
    let answering: BTreeSet<String> = (0..40).map(|_| name(service)).collect();
    assert_eq!(answering, Pods::both());
    let sum = |pod: &str, script: &str| {
        let said = pods.shell(pod, &format!("{script} | /busybox md5sum"));
        assert_eq!(said.code, 0, "{pod}: {said:?}");
        said.output
    };
    let make = format!("/busybox dd if=/dev/urandom of=/large bs=1M count={LARGE} 2>/dev/null");
    let written = sum("server-2", &format!("{make}; /busybox cat /large"));
    let content = format!(
        "{} | /busybox tail -c {}",
        get(&other, "/large"),
        LARGE << 20
    );
    assert_eq!(sum("client", &content), written);
    let through = received(&cluster.nodes[0]) - before;
    assert!(through > LARGE << 20, "{through} bytes came by the tunnel");
    let curl = "curl -sSf --noproxy '*' -m 60";
    let fetch = format!("{curl} http://{other}:{PORT}/large | md5sum");
    let fetched = pods.beside_client(&fetch);
    let digest = |text: &str| text.split_whitespace().next().map(str::to_owned);
    assert_eq!(digest(&fetched.output), digest(&written), "{fetched:?}");
    assert_told_of_mtu(&pods, &other);
    // The node's own packets, to pods of both nodes.
    let url = format!("http://{service}:{PORT}/etc/hostname");
    let ask = |_| {
        let said = cluster.nodes[0].said("bash", &["-c", &format!("{curl} {url}")]);
        assert_eq!(said.code, 0, "{said:?}");
        said.output.trim_end().to_owned()
    };
    let answering: BTreeSet<String> = (0..40).map(ask).collect();
    assert_eq!(answering, Pods::both());
    joined.ask_for_direct_delivery();
    let answering: BTreeSet<String> = (0..40).map(|_| name(service)).collect();
    assert_eq!(answering, Pods::both(), "with kube-proxy by the stack");
    drop(joined);
}

/// What is longer than the tunnel takes is not lost in silence.
fn assert_told_of_mtu(pods: &Pods<'_>, address: &str) {
    let ping = |size: u32| {
        let ping = format!("ping -M do -c 2 -i 0.2 -W 2 -s {size} {address}");
        pods.beside_client(&ping)
    };
    // With 28 bytes of headers.
    let said = ping(1422);
    assert!(said.output.contains("2 received"), "{said:?}");
    // By ICMP at first, of which the sender's kernel reminds it afterwards: `mtu = 1450`, and `mtu=1450`.
    let said = ping(1423);
    let told = format!("{}{}", said.output, said.errors).replace(' ', "");
    assert!(told.contains("mtu=1450"), "{said:?}");
}

/// Bytes that came out of a node's tunnel.
fn received(node: &RealNode) -> u64 {
    let path = "/sys/class/net/headgate_vxlan/statistics/rx_bytes";
    let said = node.said("cat", &[path]);
    said.output.trim().parse().unwrap_or(0)
}

/// Nodes with peers in the place of routes.
struct Joined<'a>(&'a RealCluster);

impl<'a> Joined<'a> {
    fn from(cluster: &'a RealCluster) -> Self {
        cluster.route_pods("del");
        for node in &cluster.nodes {
            let get = ["get", "node", &node.name, "-o", "jsonpath={.spec.podCIDR}"];
            let peer = json!({
                "apiVersion": "headgate.dev/v1alpha1", "kind": "TunnelPeer",
                "metadata": {"name": node.name},
                "spec": {"podCIDRs": [cluster.run(&get)], "endpoint": node.address(), "vni": 7},
            });
            cluster.kubectl().apply(&peer.to_string());
        }
        let ready = ["wait", "--for=condition=Ready", "tunnelpeers", "--all"];
        cluster.run(&[ready.as_slice(), &["--timeout=60s"]].concat());
        Self(cluster)
    }

    /// Which the nodes refuse, for it would pass by kube-proxy, and take the stack.
    fn ask_for_direct_delivery(&self) {
        let direct = r#"{"spec": {"localDelivery": "Direct"}}"#;
        for node in &self.0.nodes {
            let patch = [
                "patch",
                "tunnelpeer",
                &node.name,
                "--type=merge",
                "-p",
                direct,
            ];
            self.0.run(&patch);
        }
        for node in &self.0.nodes {
            wait_for(SOON, "the nodes say that kube-proxy is there", || {
                let peer = self.0.kubectl().json(&["get", "tunnelpeer", &node.name]);
                let told = condition(&peer, "Ready").to_string();
                told.contains("spec.localDelivery: this node has the ")
            });
        }
    }
}

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        let delete = ["delete", "tunnelpeers", "--all", "--timeout=60s"];
        let said = self.0.kubectl().said(&delete);
        if said.code != 0 {
            eprintln!("taking down peers: {said:?}");
        }
        self.0.route_pods("add");
        if thread::panicking() {
            return;
        }
        wait_for(SOON, "nothing is left of the tunnel", || {
            let nodes = self.0.nodes.iter();
            let links = nodes.map(|node| node.member.namespace.ip("link show"));
            links
                .into_iter()
                .all(|links| !links.contains("headgate_vxlan"))
        });
    }
}
