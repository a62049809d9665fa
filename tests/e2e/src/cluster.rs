//! Nodes that a control plane knows, on one switch with each other, the API server and a client.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    sync::Arc,
};

use serde_json::{Value, json};

use crate::{
    cable::End,
    control_plane::{ADDRESS, AGENT, AGENT_NAMESPACE, ControlPlane},
    kubectl::Kubectl,
    namespace::{Namespace, run},
};

/// The label of a node that names its cluster: policies that select by it stay out of the other
/// clusters on the same control plane.
pub const LABEL: &str = "headgate.dev/cluster";

/// The bridge, and its port to the API server.
const BRIDGE: &str = "switch";
pub(crate) const UPLINK: &str = "uplink";

/// Nodes and a client. All of it goes away with it, but for the control plane.
#[derive(Debug)]
pub struct Cluster {
    /// Its nodes; no agent is started on them.
    pub nodes: Vec<ClusterNode>,
    /// A neighbour of the nodes, which is none.
    pub client: Member,
    /// Its name, the value of [`LABEL`].
    pub name: String,
    /// What its nodes are registered with.
    pub control_plane: Arc<ControlPlane>,
    switch: Namespace,
    number: u8,
}

/// A network namespace on the switch.
#[derive(Debug)]
pub struct Member {
    /// Where it lives.
    pub namespace: Arc<Namespace>,
    /// Its interface, with a default route to the API server's end of the switch.
    pub end: End,
}

/// A node that the API knows.
#[derive(Debug)]
pub struct ClusterNode {
    /// Its name there.
    pub name: String,
    /// What stands for it here.
    pub member: Member,
    /// Of the agents' service account, by a token bound to this node.
    pub kubeconfig: PathBuf,
}

impl Cluster {
    /// So many nodes on the control plane that all tests share.
    ///
    /// # Panics
    /// Where something of it cannot be made.
    #[must_use]
    pub fn new(nodes: u8) -> Self {
        Self::on(&ControlPlane::shared(), nodes)
    }

    /// So many nodes on this control plane.
    ///
    /// # Panics
    /// Where something of it cannot be made.
    #[must_use]
    pub fn on(control_plane: &Arc<ControlPlane>, nodes: u8) -> Self {
        let number = control_plane.next_cluster();
        let switch = new_switch();
        let gateway = end(&format!("cluster{number}"), number, 1);
        plug(&switch, UPLINK, &control_plane.namespace, &gateway);
        let client = Member::join(&switch, "client", number, 2);
        let mut cluster = Self {
            nodes: Vec::new(),
            client,
            name: format!("cluster{number}"),
            control_plane: Arc::clone(control_plane),
            switch,
            number,
        };
        let names = (1..=nodes).map(|node| (node, format!("{}-node{node}", cluster.name)));
        let names: Vec<(u8, String)> = names.collect();
        cluster.register(names.iter().map(|(_, name)| name.as_str()));
        for (node, name) in names {
            let joined = cluster.join(number, node, name);
            cluster.nodes.push(joined);
        }
        cluster
    }

    /// kubectl with all rights.
    #[must_use]
    pub fn kubectl(&self) -> &Kubectl {
        self.control_plane.kubectl()
    }

    /// kubectl with the rights of a node's agent, on that node.
    #[must_use]
    pub fn kubectl_on(&self, node: &ClusterNode) -> Kubectl {
        let namespace = &node.member.namespace;
        self.control_plane.kubectl_of(namespace, &node.kubeconfig)
    }

    /// Pulls the plug between the switch and the API server; nodes and client still have each
    /// other.
    pub fn unplug_api_server(&self) {
        self.unplug(UPLINK);
    }

    /// Puts it back.
    pub fn plug_api_server(&self) {
        self.plug(UPLINK);
    }

    /// A neighbour of the nodes that is none, on a port of its own of the switch.
    ///
    /// # Panics
    /// Where it cannot be made.
    #[must_use]
    pub fn neighbour(&self, port: &str, host: u8) -> Member {
        Member::join(&self.switch, port, self.number, host)
    }

    /// Pulls the plug of one port of the switch.
    pub fn unplug(&self, port: &str) {
        self.switch.ip(&format!("link set {port} down"));
    }

    /// Puts it back.
    pub fn plug(&self, port: &str) {
        self.switch.ip(&format!("link set {port} up"));
    }

    /// Lets the first node's port of the switch take what XDP sends, and has the client and nodes sum up what
    /// they send, as a network card would. At other ports, merged frames would come without their sums.
    ///
    /// # Panics
    /// Where the kernel refuses.
    pub fn let_xdp_send(&self) {
        let nodes = self.nodes.iter().map(|node| &node.member);
        let members = nodes.chain([&self.client]);
        let_xdp_send(&self.switch, members.clone());
        // Neighbours are asked from a link-local address: ndisc_send_ns in net/ipv6/ndisc.c.
        for member in members {
            let [.., host] = member.end.mac;
            let interface = &member.end.interface;
            member.namespace.ip(&format!(
                "-6 address add fe80::{host:x}/64 dev {interface} nodad"
            ));
        }
    }

    fn register<'a>(&self, names: impl Iterator<Item = &'a str>) {
        let node = |name: &str| {
            let labels = json!({"kubernetes.io/hostname": name, LABEL: self.name});
            let metadata = json!({"name": name, "labels": labels});
            json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata})
        };
        let nodes: Vec<Value> = names.map(node).collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": nodes});
        self.kubectl().apply(&list.to_string());
    }

    fn join(&self, number: u8, node: u8, name: String) -> ClusterNode {
        let host = node.checked_add(10).expect("a switch has 255 addresses");
        let member = Member::join(&self.switch, &format!("node{node}"), number, host);
        let bound = ["--bound-object-kind=Node", "--bound-object-name", &name];
        let token = ["create", "token", AGENT, "-n", AGENT_NAMESPACE];
        let token = [token.as_slice(), &bound, &["--duration=24h"]].concat();
        let token = self.kubectl().run(&token);
        ClusterNode {
            kubeconfig: self.control_plane.kubeconfig(&name, token.trim_end()),
            member,
            name,
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let names = self.nodes.iter().map(|node| node.name.as_str());
        let arguments: Vec<&str> = ["delete", "nodes", "--wait=false", "--ignore-not-found"]
            .into_iter()
            .chain(names)
            .collect();
        let said = self.kubectl().said(&arguments);
        if said.code != 0 {
            eprintln!("taking down {}: {said:?}", self.name);
        }
    }
}

impl Member {
    /// One behind the port `role` of a cluster's switch, with the host part `host` of its
    /// addresses.
    pub(crate) fn join(switch: &Namespace, role: &str, cluster: u8, host: u8) -> Self {
        let namespace = Arc::new(Namespace::new(role));
        let end = end("eth0", cluster, host);
        plug(switch, role, &namespace, &end);
        let gateway = self::end("", cluster, 1);
        namespace.ip(&format!("route add default via {}", gateway.v4));
        namespace.ip(&format!("-6 route add default via {}", gateway.v6));
        Self { namespace, end }
    }
}

/// See [`Cluster::let_xdp_send`].
pub(crate) fn let_xdp_send<'a>(switch: &Namespace, members: impl Iterator<Item = &'a Member>) {
    let gro = ["-K", "node1", "gro", "on"];
    run(switch.command("ethtool").args(gro));
    for member in members {
        let tx = ["-K", &member.end.interface, "tx", "off"];
        run(member.namespace.command("ethtool").args(tx));
    }
}

pub(crate) fn new_switch() -> Namespace {
    let switch = Namespace::new("switch");
    // It says nothing of its own: packets are counted here.
    switch.ip(&format!("link add {BRIDGE} type bridge mcast_snooping 0"));
    switch.ip(&format!("link set {BRIDGE} addrgenmode none up"));
    switch
}

/// Lays a cable from `port` of the switch to an interface of `namespace`.
pub(crate) fn plug(switch: &Namespace, port: &str, namespace: &Namespace, end: &End) {
    end.lay(namespace, port, switch);
    switch.ip(&format!(
        "link set {port} master {BRIDGE} addrgenmode none up"
    ));
}

pub(crate) fn end(interface: &str, cluster: u8, host: u8) -> End {
    let [a, b, ..] = ADDRESS.octets();
    End {
        interface: interface.to_owned(),
        mac: [2, 0, 0, 1, cluster, host],
        v4: Ipv4Addr::new(a, b, cluster, host),
        v6: Ipv6Addr::new(0xfd63, 0, 0, cluster.into(), 0, 0, 0, host.into()),
    }
}
