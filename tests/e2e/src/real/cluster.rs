//! A control plane and its nodes.

use std::{
    fs,
    net::Ipv4Addr,
    path::Path,
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{ProxyMode, node::RealNode};
use crate::{
    cluster::{Member, UPLINK, end, let_xdp_send, new_switch, plug},
    control_plane::{ADDRESS, ControlPlane},
    kubectl::Kubectl,
    namespace::{Namespace, unique_name},
    paths::documented,
    said::Said,
    wait::wait_for_some,
};

/// The namespace that Headgate is installed in.
pub const NAMESPACE: &str = "headgate-system";
/// Time within which pods must be at work and policies in force, on a busy machine.
pub const SOON: Duration = Duration::from_secs(120);

/// A cluster of real nodes. All of it goes away with it.
#[derive(Debug)]
pub struct RealCluster {
    // Nodes first: they are to be gone before their network and their files.
    /// Its nodes.
    pub nodes: Vec<RealNode>,
    /// A neighbour of the nodes, which is none.
    pub client: Member,
    control_plane: ControlPlane,
    switch: Namespace,
    #[allow(dead_code, reason = "it is deleted when dropped")]
    folder: TempDir,
}

impl RealCluster {
    /// One of so many nodes, all of them Ready, with nothing installed.
    ///
    /// # Panics
    /// Where something of it does not start, with what its programs said.
    #[must_use]
    pub fn start(nodes: u8) -> Self {
        let started = Instant::now();
        let say =
            |what: &str| eprintln!("==> {what} after {:.1} s", started.elapsed().as_secs_f32());
        let control_plane = ControlPlane::start_for_kubelets();
        say("the control plane is up");
        let number = control_plane.next_cluster();
        let switch = new_switch();
        let gateway = end(&format!("cluster{number}"), number, 1);
        plug(&switch, UPLINK, &control_plane.namespace, &gateway);
        // Nodes are asked from the address that they know the API server by.
        let (network, interface) = (
            Ipv4Addr::from_bits(gateway.v4.to_bits() & !0xff),
            &gateway.interface,
        );
        let own = format!("route replace {network}/24 dev {interface} src {ADDRESS}");
        control_plane.namespace.ip(&own);
        let client = Member::join(&switch, "client", number, 2);
        let folder = tempfile::Builder::new()
            .prefix(&format!("{}-nodes-", unique_name()))
            .tempdir()
            .expect("a temporary folder can be made");
        let boot = |node: u8| boot(&switch, number, node, folder.path());
        let nodes = thread::scope(|scope| {
            let booting: Vec<_> = (1..=nodes)
                .map(|node| scope.spawn(move || boot(node)))
                .collect();
            let booted = booting.into_iter().map(ScopedJoinHandle::join);
            booted.map(|node| node.expect("it says why")).collect()
        });
        say("containerd and the images are there");
        let mut cluster = Self {
            nodes,
            client,
            control_plane,
            switch,
            folder,
        };
        cluster.register();
        say("the nodes are Ready");
        cluster
    }

    /// Makes the nodes known, joins the networks of their pods, and waits until they are Ready.
    fn register(&mut self) {
        for node in &mut self.nodes {
            node.register(&self.control_plane);
        }
        for index in 0..self.nodes.len() {
            let range = self.wait_for_range(index);
            let node = &self.nodes[index];
            node.give_network(&range);
            let route = format!("route add {range} via {}", node.address());
            let back = format!("{route} src {ADDRESS}");
            self.control_plane.namespace.ip(&back);
            let others = self.nodes.iter().filter(|other| other.name != node.name);
            others.for_each(|other| drop(other.member.namespace.ip(&route)));
        }
        let ready = [
            "wait",
            "--for=condition=Ready",
            "nodes",
            "--all",
            "--timeout=120s",
        ];
        self.run(&ready);
    }

    /// The range that the control plane gives the pods of a node.
    fn wait_for_range(&mut self, index: usize) -> String {
        let name = self.nodes[index].name.clone();
        let get = ["get", "node", &name, "-o", "jsonpath={.spec.podCIDR}"];
        let what = format!("{name} is known and has a range for its pods");
        let (range, _) = wait_for_some(SOON, &what, || {
            self.nodes[index].assert_runs();
            let said = self.kubectl().said(&get);
            (said.code == 0 && !said.output.is_empty()).then_some(said.output)
        });
        range
    }

    /// As [`crate::cluster::Cluster::let_xdp_send`].
    ///
    /// # Panics
    /// Where the kernel refuses.
    pub fn let_xdp_send(&self) {
        let nodes = self.nodes.iter().map(|node| &node.member);
        let_xdp_send(&self.switch, nodes.chain([&self.client]));
    }

    /// Has kube-proxy work in this mode on all nodes.
    ///
    /// # Panics
    /// As [`RealNode::proxy_by`].
    pub fn proxy_by(&mut self, mode: ProxyMode) {
        self.nodes.iter_mut().for_each(|node| node.proxy_by(mode));
    }

    /// Lets nodes forget, or know again, by which node the pods of others are reached.
    ///
    /// # Panics
    /// Where the kernel refuses.
    pub fn route_pods(&self, change: &str) {
        for node in &self.nodes {
            let others = self.nodes.iter().filter(|other| other.name != node.name);
            for other in others {
                let range = ["get", "node", &other.name, "-o", "jsonpath={.spec.podCIDR}"];
                let (range, gateway) = (self.run(&range), other.address());
                let route = format!("route {change} {range} via {gateway}");
                node.member.namespace.ip(&route);
            }
        }
    }

    /// kubectl with all rights.
    #[must_use]
    pub fn kubectl(&self) -> &Kubectl {
        self.control_plane.kubectl()
    }

    /// What kubectl prints.
    ///
    /// # Panics
    /// Where it fails.
    pub fn run(&self, arguments: &[&str]) -> String {
        self.kubectl().run(arguments)
    }

    /// Runs the commands below a heading of docs/install.md.
    ///
    /// # Panics
    /// Where one fails.
    pub fn follow(&self, heading: &str) {
        let script = documented(heading);
        let said = Said::of(&mut self.kubectl().script(&script, SOON.as_secs() as u32));
        assert_eq!(said.code, 0, "{heading}: {said:?}");
    }

    /// Installs Headgate as its documentation says, and waits until it is at work.
    ///
    /// # Panics
    /// Where it does not come to work.
    pub fn install(&self) {
        self.follow("kubectl");
    }

    /// Applies a policy and waits until it is enforced by all nodes.
    ///
    /// # Panics
    /// Where it is not.
    pub fn enforce(&self, name: &str, policy: &str) {
        self.kubectl().apply(policy);
        self.wait_until_live(name);
    }

    /// Waits until a policy is enforced by all nodes, as it says itself.
    ///
    /// # Panics
    /// Where it is not.
    pub fn wait_until_live(&self, name: &str) {
        let policy = format!("xdppolicy/{name}");
        self.run(&["wait", "--for=condition=Ready", &policy, "--timeout=120s"]);
        let policy = self.kubectl().json(&["get", &policy]);
        let status = &policy["status"];
        assert_eq!(
            status["observedGeneration"],
            policy["metadata"]["generation"]
        );
        assert_eq!(condition(&policy, "Ready")["reason"], "Live", "{status:#}");
    }

    /// The agents' pods, those that are on their way out left aside.
    #[must_use]
    pub fn agents(&self) -> Vec<Value> {
        let selector = ["-l", "app.kubernetes.io/component=agent"];
        let get = ["get", "pods", "-n", NAMESPACE];
        let list = self.kubectl().json(&[get.as_slice(), &selector].concat());
        let mut pods = list["items"].as_array().cloned().unwrap_or_default();
        pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        pods
    }

    /// Waits until every node has an agent that is Ready and none of these; gives how long that
    /// took. An agent that kubelet has started again in its pod is another one.
    ///
    /// # Panics
    /// Where that does not come to be.
    pub fn wait_for_other_agents(&self, before: &[Value]) -> Duration {
        let container = |pod: &Value| pod["status"]["containerStatuses"][0].clone();
        let id = |pod: &Value| container(pod)["containerID"].clone();
        let old: Vec<Value> = before.iter().map(id).collect();
        let is_other = |pod: &Value| container(pod)["ready"] == true && !old.contains(&id(pod));
        let (_, took) = wait_for_some(SOON, "every node has another agent", || {
            let agents = self.agents();
            (agents.len() == self.nodes.len() && agents.iter().all(is_other)).then_some(())
        });
        took
    }

    /// Tells what a failure may come from.
    pub fn explain(&self) {
        let all = [
            "get",
            "nodes,pods,xdppolicies,nodedatapaths",
            "-A",
            "-o",
            "wide",
        ];
        eprintln!("{}", self.kubectl().said(&all).output);
        let pods = ["describe", "pods", "-n", NAMESPACE];
        eprintln!("{}", self.kubectl().said(&pods).output);
        for component in ["agent", "operator"] {
            let selector = format!("app.kubernetes.io/component={component}");
            let logs = [
                "logs",
                "-n",
                NAMESPACE,
                "--prefix",
                "--tail=30",
                "-l",
                &selector,
            ];
            eprintln!("{}", self.kubectl().said(&logs).output);
        }
        self.nodes
            .iter()
            .for_each(|node| eprintln!("{}", node.logs()));
    }
}

impl Drop for RealCluster {
    fn drop(&mut self) {
        if thread::panicking() {
            self.explain();
        }
    }
}

/// A condition of an object, or null.
#[must_use]
pub fn condition(object: &Value, kind: &str) -> Value {
    let conditions = object["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    let found = conditions.find(|condition| condition["type"] == kind);
    found.cloned().unwrap_or(Value::Null)
}

fn boot(switch: &Namespace, cluster: u8, node: u8, folder: &Path) -> RealNode {
    let name = format!("node{node}");
    let host = node.checked_add(10).expect("a switch has 255 addresses");
    let member = Member::join(switch, &name, cluster, host);
    let folder = folder.join(&name);
    fs::create_dir(&folder).expect("the folder is new and empty");
    RealNode::boot(&name, member, &folder)
}
