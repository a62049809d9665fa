//! What pods say to each other passes the uplinks of their nodes.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

use headgate_e2e_tests::{
    real::{PODS_IMAGE, ProxyMode, RealCluster, SOON, Traffic},
    said::Said,
    trials::on_real_nodes,
    wait::wait_for,
};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::Shared;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        on_real_nodes(
            "pods_and_services_work_beside_a_default_drop",
            reach_each_other,
        ),
        on_real_nodes(
            "a_service_of_our_class_leads_to_pods_of_both_nodes_beside_nftables",
            || balanced(ProxyMode::Nftables),
        ),
        on_real_nodes(
            "a_service_of_our_class_leads_to_pods_of_both_nodes_beside_iptables",
            || balanced(ProxyMode::Iptables),
        ),
    ]
}

pub(crate) const PORT: u16 = 8080;

fn reach_each_other() {
    let cluster = Shared::installed();
    let pods = Pods::start(&cluster);
    pods.assert_reached("before the policy");
    cluster.enforce("cluster-only", &cluster_only().to_string());
    let traffic = Traffic::start(&cluster);
    pods.assert_reached("with the policy");
    traffic.go_on(200);
    traffic.stop_unbroken("a default Drop");
}

/// By the first node to a pod there and to one on the second, beside kube-proxy.
fn balanced(mode: ProxyMode) {
    let mut cluster = Shared::installed();
    cluster.proxy_by(mode);
    cluster.let_xdp_send();
    let pods = Pods::start_of(&cluster, &[0, 1]);
    pods.assert_proxied_by(mode);
    let address: Ipv4Addr = [203, 0, 113, 10].into();
    cluster.kubectl().apply(
        &json!({
            "apiVersion": "headgate.dev/v1alpha1",
            "kind": "AddressPool",
            "metadata": {"name": "public"},
            "spec": {"cidrs": ["203.0.113.10/32"], "namespaces": [Pods::NAMESPACE]},
        })
        .to_string(),
    );
    cluster.kubectl().apply(
        &json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "public", "namespace": Pods::NAMESPACE},
            "spec": {
                "type": "LoadBalancer", "loadBalancerClass": "headgate.dev/xdp",
                "selector": {"app": "server"},
                "ports": [{"port": 80, "targetPort": PORT}],
            },
        })
        .to_string(),
    );
    let told = "jsonpath={.status.loadBalancer.ingress[0].ip}";
    let get = ["get", "service/public", "-n", Pods::NAMESPACE, "-o", told];
    wait_for(SOON, "the Service is told its address", || {
        cluster.run(&get) == address.to_string()
    });
    let client = &cluster.client.namespace;
    let node = cluster.nodes[0].address();
    client.ip(&format!("route replace {address} via {node}"));
    let answer = || -> std::io::Result<String> {
        client.enter(|| {
            let patience = Duration::from_secs(2);
            let mut stream = TcpStream::connect_timeout(&(address, 80).into(), patience)?;
            stream.set_read_timeout(Some(patience))?;
            stream.write_all(b"GET /etc/hostname HTTP/1.0\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        })
    };
    let mut answering = BTreeSet::new();
    for _ in 0..40 {
        let text = answer().expect("a pod answers");
        let name = text.lines().last().expect("a page").to_owned();
        answering.insert(name);
    }
    assert_eq!(answering, Pods::both());
    drop(pods);
}

/// Lets pass what the cluster itself says, and one port of the two that traffic goes to.
fn cluster_only() -> Value {
    let cluster = ["pod-cidrs", "nodes", "api-servers"];
    json!({
        "apiVersion": "headgate.dev/v1alpha1",
        "kind": "XdpPolicy",
        "metadata": {"name": "cluster-only"},
        "spec": {"defaultAction": "Drop", "rules": [
            {"name": "cluster", "action": "Allow", "from": {"cidrGroups": {"names": cluster}}},
            {"name": "flow", "action": "Allow",
                "protocols": [{"udp": {"ports": [{"port": 12346}]}}]},
        ]},
    })
}

/// A server on one node, a Service for it, and a client on another node.
pub(crate) struct Pods<'a> {
    cluster: &'a RealCluster,
    /// The server's own address, and the Service's.
    addresses: [String; 2],
}

impl<'a> Pods<'a> {
    pub(crate) const NAMESPACE: &'static str = "pods";

    fn start(cluster: &'a RealCluster) -> Self {
        Self::start_of(cluster, &[1])
    }

    /// A server on each of these nodes.
    pub(crate) fn start_of(cluster: &'a RealCluster, nodes: &[usize]) -> Self {
        let pod = |name: &str, node: usize, command: &[&str]| {
            let metadata = json!({"name": name, "namespace": Self::NAMESPACE, "labels": {"app": name.trim_end_matches("-2")}});
            let container = json!({"name": name, "image": PODS_IMAGE, "command": command});
            let spec = json!({
                "nodeName": cluster.nodes[node].name,
                "terminationGracePeriodSeconds": 0,
                "containers": [container],
            });
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        };
        let port = PORT.to_string();
        let server = ["/busybox", "httpd", "-f", "-p", &port, "-h", "/"];
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "server", "namespace": Self::NAMESPACE},
            "spec": {"selector": {"app": "server"}, "ports": [{"port": PORT}]},
        });
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": Self::NAMESPACE},
        });
        let client = ["/busybox", "sleep", "2147483647"];
        let names = ["server", "server-2"].into_iter().zip(nodes);
        let servers = names.map(|(name, node)| pod(name, *node, &server));
        for object in [namespace, pod("client", 0, &client), service]
            .into_iter()
            .chain(servers)
        {
            cluster.kubectl().apply(&object.to_string());
        }
        let in_namespace = ["-n", Self::NAMESPACE, "--timeout=60s"];
        let ready = ["wait", "--for=condition=Ready", "pods", "--all"];
        cluster.run(&[ready.as_slice(), &in_namespace].concat());
        let field = |object: &str, field: &str| {
            let path = format!("jsonpath={{{field}}}");
            cluster.run(&["get", object, "-n", Self::NAMESPACE, "-o", &path])
        };
        Self {
            addresses: [
                field("pod/server", ".status.podIP"),
                field("service/server", ".spec.clusterIP"),
            ],
            cluster,
        }
    }

    /// The names of servers on two nodes.
    pub(crate) fn both() -> BTreeSet<String> {
        ["server", "server-2"].map(str::to_owned).into()
    }

    /// What a shell prints in one of the pods.
    pub(crate) fn shell(&self, pod: &str, script: &str) -> Said {
        let exec = ["exec", "-n", Self::NAMESPACE, pod, "--"];
        let shell = ["/busybox", "sh", "-c", script];
        let command = [exec.as_slice(), &shell].concat();
        self.cluster.kubectl().said(&command)
    }

    /// The server's own address, and the Service's.
    pub(crate) fn addresses(&self) -> &[String; 2] {
        &self.addresses
    }

    /// kube-proxy has the Service in the tables of this mode on the client's node, and in no others.
    pub(crate) fn assert_proxied_by(&self, mode: ProxyMode) {
        let [_, service] = &self.addresses;
        let node = &self.cluster.nodes[0];
        let has = |program: &str, arguments: &[&str]| {
            node.said(program, arguments).output.contains(service)
        };
        wait_for(SOON, &format!("kube-proxy works by {mode:?}"), || {
            let nftables = has("nft", &["list", "table", "ip", "kube-proxy"]);
            let iptables = has("iptables", &["-t", "nat", "-S", "KUBE-SERVICES"]);
            (nftables, iptables) == (mode == ProxyMode::Nftables, mode == ProxyMode::Iptables)
        });
    }

    /// A request from the client has an answer of the server; by the Service as soon as its node
    /// knows it.
    pub(crate) fn assert_reached(&self, when: &str) {
        for address in &self.addresses {
            let request = format!(
                r#"/busybox printf 'GET / HTTP/1.0\r\n\r\n' | /busybox nc -w 2 {address} {PORT}"#
            );
            wait_for(SOON, &format!("{address} answers {when}"), || {
                let said = self.shell("client", &request);
                said.output.starts_with("HTTP/1.0 ") || said.output.starts_with("HTTP/1.1 ")
            });
        }
    }
}

impl Drop for Pods<'_> {
    fn drop(&mut self) {
        let delete = ["delete", "namespace", Self::NAMESPACE, "--timeout=60s"];
        let said = self.cluster.kubectl().said(&delete);
        if said.code != 0 {
            eprintln!("taking down pods: {said:?}");
        }
    }
}
