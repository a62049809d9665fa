//! Pods that answer, Services for them, and a pod that asks.

use std::time::Duration;

use headgate_e2e_tests::{
    real::{PODS_IMAGE, RealCluster, SOON},
    said::Said,
    wait::wait_for,
};
use serde_json::{Value, json};

/// The port that servers listen at, and Services for them.
pub(crate) const PORT: u16 = 8080;

/// Enters the network namespace that has the address `$0`, of a pod, with a command of the node.
const ENTER: &str = r#"for network in /run/netns/*; do
    if nsenter --net="$network" ip -o address | grep -qF "inet $0/"; then
        exec nsenter --net="$network" "$@"
    fi
done
echo "no pod here has $0" >&2; exit 1"#;

/// A client on the first node, and servers; gone when dropped.
pub(crate) struct Pods<'a> {
    cluster: &'a RealCluster,
    /// The client's own address.
    client: String,
    /// The servers.
    pub(crate) servers: Vec<Server>,
}

/// A pod that serves its file system, and a Service for it alone.
pub(crate) struct Server {
    /// Its name and its Service's.
    pub(crate) name: String,
    /// Its address and its Service's.
    pub(crate) addresses: [String; 2],
}

impl<'a> Pods<'a> {
    pub(crate) const NAMESPACE: &'static str = "pods";
    /// The label of all servers.
    pub(crate) const APP: &'static str = "server";

    /// With a server on each of these nodes.
    pub(crate) fn start(cluster: &'a RealCluster, nodes: &[usize]) -> Self {
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": Self::NAMESPACE},
        });
        let client = ["/busybox", "sleep", "2147483647"];
        let mut objects = vec![namespace, pod("client", &cluster.nodes[0].name, &client)];
        let port = PORT.to_string();
        let serve = ["/busybox", "httpd", "-f", "-p", &port, "-h", "/"];
        let names: Vec<String> = nodes.iter().map(|node| format!("server-{node}")).collect();
        for (name, node) in names.iter().zip(nodes) {
            objects.push(pod(name, &cluster.nodes[*node].name, &serve));
            objects.push(service(name));
        }
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        cluster.kubectl().apply(&list.to_string());
        let mut pods = Self {
            cluster,
            client: String::new(),
            servers: Vec::new(),
        };
        let in_namespace = ["-n", Self::NAMESPACE, "--timeout=60s"];
        let ready = ["wait", "--for=condition=Ready", "pods", "--all"];
        cluster.run(&[ready.as_slice(), &in_namespace].concat());
        let field = |object: &str, field: &str| {
            let path = format!("jsonpath={{{field}}}");
            cluster.run(&["get", object, "-n", Self::NAMESPACE, "-o", &path])
        };
        pods.client = field("pod/client", ".status.podIP");
        let server = |name: String| Server {
            addresses: [
                field(&format!("pod/{name}"), ".status.podIP"),
                field(&format!("service/{name}"), ".spec.clusterIP"),
            ],
            name,
        };
        pods.servers = names.into_iter().map(server).collect();
        pods
    }

    /// What busybox says in a pod.
    pub(crate) fn said_in(&self, pod: &str, arguments: &[&str]) -> Said {
        let exec = ["exec", "-n", Self::NAMESPACE, pod, "--", "/busybox"];
        self.cluster
            .kubectl()
            .said(&[exec.as_slice(), arguments].concat())
    }

    /// What a program of the client's node says in the client's network.
    pub(crate) fn said_of_client(&self, program: &[&str]) -> Said {
        let enter = ["-c", ENTER, &self.client];
        let node = &self.cluster.nodes[0];
        node.said("bash", &[enter.as_slice(), program].concat())
    }

    /// A request from the client has an answer of each server; by its Service as soon as the node
    /// knows it.
    pub(crate) fn assert_reached(&self, when: &str) {
        for address in self.servers.iter().flat_map(|server| &server.addresses) {
            self.assert_answers(address, PORT, when);
        }
    }

    /// The same at one address, by netcat in the client.
    pub(crate) fn assert_answers(&self, address: &str, port: u16, when: &str) {
        let request = format!(
            r"/busybox printf 'GET / HTTP/1.0\r\n\r\n' | /busybox nc -w 2 {address} {port}"
        );
        wait_for(SOON, &format!("{address} answers {when}"), || {
            let said = self.said_in("client", &["sh", "-c", &request]);
            said.output.starts_with("HTTP/1.0 ") || said.output.starts_with("HTTP/1.1 ")
        });
    }

    /// What curl gets from a server in the client's network, handed to a command that reads it.
    pub(crate) fn fetched(&self, address: &str, path: &str, reader: &str) -> Said {
        let seconds = Duration::from_secs(60).as_secs();
        let url = format!("http://{address}:{PORT}{path}");
        let fetch = format!("curl -sSf --noproxy '*' -m {seconds} {url} | {reader}");
        self.said_of_client(&["bash", "-o", "pipefail", "-c", &fetch])
    }
}

fn pod(name: &str, node: &str, command: &[&str]) -> Value {
    let app = name.split('-').next();
    let labels = json!({"app": app, "name": name});
    let container = json!({"name": name, "image": PODS_IMAGE, "command": command});
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": Pods::NAMESPACE, "labels": labels},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
        },
    })
}

/// For one server.
fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": Pods::NAMESPACE},
        "spec": {"selector": {"name": name}, "ports": [{"port": PORT}]},
    })
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
