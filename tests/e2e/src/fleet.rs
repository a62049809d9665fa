//! A cluster whose nodes have agents.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, LABEL},
    control_plane::ControlPlane,
    flow::{Flow, Receiver},
    node::Node,
    wait::wait_for,
};

/// Time within which agents must have done what they are about to do, on a busy machine.
pub const SOON: Duration = Duration::from_secs(20);

/// A cluster whose nodes have agents, not started. Policies select it by its label, for several
/// clusters share the API.
#[derive(Debug)]
pub struct Fleet {
    /// Its agents.
    pub nodes: Vec<Node>,
    /// By node and port.
    receivers: RefCell<BTreeMap<(usize, u16), Receiver>>,
    /// Its nodes as the API knows them.
    pub cluster: Cluster,
}

impl Fleet {
    /// One of so many nodes on the control plane that all tests share.
    ///
    /// # Panics
    /// Where something of it cannot be made.
    #[must_use]
    pub fn new(nodes: u8) -> Self {
        Self::on(&ControlPlane::shared(), nodes)
    }

    /// The same on this control plane.
    ///
    /// # Panics
    /// Where something of it cannot be made.
    #[must_use]
    pub fn on(control_plane: &Arc<ControlPlane>, nodes: u8) -> Self {
        let fleet = Self::without_rights(control_plane, nodes);
        fleet.grant();
        fleet
    }

    /// Gives agents their rights.
    ///
    /// # Panics
    /// Where the API server refuses.
    pub fn grant(&self) {
        let manifests = ["apply", "-k", "manifests/base"];
        self.cluster.kubectl().run(&manifests);
    }

    /// One whose agents may not do anything yet.
    ///
    /// # Panics
    /// Where something of it cannot be made.
    #[must_use]
    pub fn without_rights(control_plane: &Arc<ControlPlane>, nodes: u8) -> Self {
        let cluster = Cluster::on(control_plane, nodes);
        Self {
            nodes: cluster.nodes.iter().map(Node::of_cluster).collect(),
            receivers: RefCell::default(),
            cluster,
        }
    }

    /// One whose agents are at work.
    ///
    /// # Panics
    /// Where they are not.
    #[must_use]
    pub fn started(nodes: u8) -> Self {
        Self::new(nodes).start()
    }

    /// Starts its agents and waits until they are at work.
    ///
    /// # Panics
    /// Where they are not.
    #[must_use]
    pub fn start(mut self) -> Self {
        for node in &mut self.nodes {
            node.start();
        }
        self
    }

    /// Its own name for a policy or group.
    #[must_use]
    pub fn named(&self, name: &str) -> String {
        format!("{}-{name}", self.cluster.name)
    }

    /// A policy that drops UDP to this port, on nodes of the cluster with these labels too.
    #[must_use]
    pub fn drop_udp(&self, name: &str, port: u16, labels: &[(&str, &str)]) -> Value {
        let mut policy = json!({
            "apiVersion": "headgate.dev/v1alpha1",
            "kind": "XdpPolicy",
            "metadata": {"name": self.named(name)},
            "spec": {
                "nodeSelector": {"matchLabels": {LABEL: self.cluster.name}},
                "interfaces": ["eth0"],
                "rules": [{
                    "name": "udp", "action": "Drop",
                    "protocols": [{"udp": {"ports": [{"port": port}]}}],
                }],
            },
        });
        for (key, value) in labels {
            policy["spec"]["nodeSelector"]["matchLabels"][key] = json!(value);
        }
        policy
    }

    /// Applies an object.
    ///
    /// # Panics
    /// Where the API server refuses.
    pub fn apply(&self, object: &Value) {
        self.cluster.kubectl().apply(&object.to_string());
    }

    /// Deletes an object by the name that [`Self::named`] made of this one.
    ///
    /// # Panics
    /// Where it is not there.
    pub fn delete(&self, kind: &str, name: &str) {
        self.cluster
            .kubectl()
            .run(&["delete", kind, &self.named(name)]);
    }

    /// How many of 20 datagrams to this port of the node arrive.
    ///
    /// # Panics
    /// Where they cannot be sent.
    #[must_use]
    pub fn arrivals(&self, node: usize, port: u16) -> u64 {
        const COUNT: u64 = 20;
        let member = &self.cluster.nodes[node].member;
        let mut receivers = self.receivers.borrow_mut();
        let receiver = receivers
            .entry((node, port))
            .or_insert_with(|| Receiver::open(&member.namespace, &[port]));
        let to = SocketAddr::new(member.end.v4.into(), port);
        let source: IpAddr = self.cluster.client.end.v4.into();
        let flow = Flow::start(&self.cluster.client.namespace, &[source], to, 2_000, COUNT);
        wait_for(SOON, "all are sent", || flow.sent() == COUNT);
        std::thread::sleep(Duration::from_millis(50));
        let received = receiver.received(flow.id);
        let _sent = flow.stop();
        received
    }

    /// Waits until datagrams to this port of the node are dropped, or are not.
    ///
    /// # Panics
    /// Where that does not come.
    pub fn wait_until(&self, node: usize, port: u16, is_dropped: bool) {
        let what = format!("port {port} of node {node} dropped: {is_dropped}");
        let expected = if is_dropped { 0 } else { 20 };
        wait_for(SOON, &what, || self.arrivals(node, port) == expected);
    }

    /// What the API knows of this node's datapath, or null.
    #[must_use]
    pub fn datapath(&self, node: usize) -> Value {
        let name = &self.cluster.nodes[node].name;
        let said = self
            .cluster
            .kubectl()
            .said(&["get", "nodedatapath", name, "-o", "json"]);
        serde_json::from_str(&said.output).unwrap_or(Value::Null)
    }

    /// Waits for a NodeDatapath that is as `is_so` wants it.
    /// Gives its status.
    ///
    /// # Panics
    /// Where there is none.
    pub fn wait_for_datapath(
        &self,
        node: usize,
        what: &str,
        is_so: impl Fn(&Value) -> bool,
    ) -> Value {
        let mut last = Value::Null;
        let what = format!("the NodeDatapath of node {node} {what}");
        wait_for(SOON, &what, || {
            last = self.datapath(node)["status"].clone();
            is_so(&last)
        });
        last
    }
}
