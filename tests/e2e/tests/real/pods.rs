//! What pods say to each other passes the uplinks of their nodes.

use headgate_e2e_tests::{
    real::{PODS_IMAGE, RealCluster, SOON, Traffic},
    trials::on_real_nodes,
    wait::wait_for,
};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::Shared;

pub(crate) fn trials() -> Vec<Trial> {
    vec![on_real_nodes(
        "pods_and_services_work_beside_a_default_drop",
        reach_each_other,
    )]
}

const PORT: u16 = 8080;

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
struct Pods<'a> {
    cluster: &'a RealCluster,
    /// The server's own address, and the Service's.
    addresses: [String; 2],
}

impl<'a> Pods<'a> {
    const NAMESPACE: &'static str = "pods";

    fn start(cluster: &'a RealCluster) -> Self {
        let pod = |name: &str, node: usize, command: &[&str]| {
            let metadata =
                json!({"name": name, "namespace": Self::NAMESPACE, "labels": {"app": name}});
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
        for object in [
            namespace,
            pod("server", 1, &server),
            pod("client", 0, &client),
            service,
        ] {
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

    /// A request from the client has an answer of the server; by the Service as soon as its node
    /// knows it.
    fn assert_reached(&self, when: &str) {
        for address in &self.addresses {
            let request = format!(
                r#"/busybox printf 'GET / HTTP/1.0\r\n\r\n' | /busybox nc -w 2 {address} {PORT}"#
            );
            let exec = ["exec", "-n", Self::NAMESPACE, "client", "--"];
            let shell = ["/busybox", "sh", "-c", &request];
            let command = [exec.as_slice(), &shell].concat();
            wait_for(SOON, &format!("{address} answers {when}"), || {
                let said = self.cluster.kubectl().said(&command);
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
