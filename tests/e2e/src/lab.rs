//! The usual arrangement: a node, and a client at the other end of its cable.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use crate::{
    cable::Cable,
    flow::{Flow, Receiver},
    judged::{self, Judged},
    namespace::Namespace,
    node::Node,
    tap::{Tap, Wire},
    wait::wait_for,
};

/// A node and a client.
#[derive(Debug)]
pub struct Lab {
    /// The node, with a default route over `eth0` to the client.
    pub node: Node,
    /// The client.
    pub client: Client,
}

impl Lab {
    /// Without policies, the agent not started.
    #[must_use]
    pub fn new() -> Self {
        let namespace = Arc::new(Namespace::new("node"));
        let client = Client::join(&namespace, 0);
        client.be_default_route(&namespace);
        Self {
            node: Node::new(&namespace),
            client,
        }
    }

    /// With these policies enforced: file names and texts.
    #[must_use]
    pub fn enforcing(policies: &[(&str, &str)]) -> Self {
        let mut lab = Self::new();
        for (file, text) in policies {
            lab.node.write(file, text);
        }
        lab.node.start();
        lab
    }

    /// Sends every frame several times from the client and compares what becomes of it with what
    /// should.
    pub fn check(&self, judged: impl IntoIterator<Item = Judged>) {
        self.client.check(&self.node, judged);
    }

    /// The same where nothing counts.
    pub fn check_arrivals(&self, judged: impl IntoIterator<Item = Judged>) {
        let judged: Vec<Judged> = judged.into_iter().collect();
        judged::check_arrivals(&self.client.wire, &self.client.tap, &judged);
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

/// A client with a cable to a node.
#[derive(Debug)]
pub struct Client {
    /// Where it lives.
    pub namespace: Namespace,
    /// Its cable.
    pub cable: Cable,
    /// Sends frames into the cable.
    pub wire: Wire,
    /// Counts what comes out at the node.
    pub tap: Tap,
}

impl Client {
    /// A client behind `eth{number}` of the node.
    #[must_use]
    pub fn join(node: &Namespace, number: u8) -> Self {
        let namespace = Namespace::new(&format!("client{number}"));
        let cable = Cable::between(&namespace, node, number);
        // What the node answers to made-up addresses ends here: no ICMP error comes back.
        namespace.ip("route add blackhole default");
        namespace.ip("-6 route add blackhole default");
        Self {
            wire: Wire::open(&namespace, &cable.client, &cable.node),
            tap: Tap::open(node, &cable.node, &cable.client),
            namespace,
            cable,
        }
    }

    /// Routes all that the node has no nearer way to over this client.
    pub fn be_default_route(&self, node: &Namespace) {
        let (v4, v6) = (self.cable.client.v4, self.cable.client.v6);
        node.ip(&format!("route add default via {v4}"));
        node.ip(&format!("-6 route add default via {v6}"));
    }

    /// Lays the cable again after it was deleted, and opens both ends of it.
    pub fn lay_again(&mut self, node: &Namespace) {
        self.cable.lay(&self.namespace, node);
        self.wire = Wire::open(&self.namespace, &self.cable.client, &self.cable.node);
        self.tap = Tap::open(node, &self.cable.node, &self.cable.client);
    }

    /// Gives the client more addresses.
    pub fn add_addresses<'a>(&self, addresses: impl IntoIterator<Item = &'a IpAddr>) {
        for address in addresses {
            let (length, nodad) = if address.is_ipv4() {
                (32, "")
            } else {
                (128, "nodad")
            };
            let interface = &self.cable.client.interface;
            self.namespace.ip(&format!(
                "addr add {address}/{length} dev {interface} {nodad}"
            ));
        }
    }

    /// Begins a paced flow from these addresses of the client to a UDP port of the node.
    #[must_use]
    pub fn flow(&self, sources: &[IpAddr], port: u16, rate: u32) -> Flow {
        self.flow_of(sources, port, rate, u64::MAX)
    }

    /// Sends so many datagrams from these addresses of the client to a UDP port of the node; gives
    /// how many arrived.
    ///
    /// # Panics
    /// Where they cannot be sent.
    #[must_use]
    pub fn send(&self, count: u64, sources: &[IpAddr], port: u16, receiver: &Receiver) -> u64 {
        let flow = self.flow_of(sources, port, 4_000, count);
        wait_for(Duration::from_secs(30), "all are sent", || {
            flow.sent() == count
        });
        self.finish(flow, receiver).1
    }

    fn flow_of(&self, sources: &[IpAddr], port: u16, rate: u32, most: u64) -> Flow {
        let node: IpAddr = match sources {
            [IpAddr::V6(_), ..] => self.cable.node.v6.into(),
            _ => self.cable.node.v4.into(),
        };
        let to = SocketAddr::new(node, port);
        Flow::start(&self.namespace, sources, to, rate, most)
    }

    /// Sends every frame several times and compares what becomes of it with what should.
    pub fn check(&self, node: &Node, judged: impl IntoIterator<Item = Judged>) {
        let judged: Vec<Judged> = judged.into_iter().collect();
        judged::check(node, &self.wire, &self.tap, &judged);
    }

    /// Ends a flow when everything that it sent is received or lost; gives sent and received.
    #[must_use]
    pub fn finish(&self, flow: Flow, receiver: &Receiver) -> (u64, u64) {
        let id = flow.id;
        let sent = flow.stop();
        self.tap.catch_up(&self.wire);
        // What the tap has seen, the socket has: only its reader may be a moment behind.
        let mut received = receiver.received(id);
        loop {
            std::thread::sleep(Duration::from_millis(60));
            match receiver.received(id) {
                same if same == received => return (sent, received),
                more => received = more,
            }
        }
    }

    /// Waits until a flow has sent this many more.
    pub fn let_flow(&self, flow: &Flow, more: u64) {
        let goal = flow.sent() + more;
        wait_for(Duration::from_secs(30), "the flow goes on", || {
            flow.sent() >= goal
        });
    }

    /// Frames that the cable's devices lost by themselves, such as to a full queue.
    #[must_use]
    pub fn lost_by_devices(&self, node: &Namespace) -> u64 {
        let client = (&self.namespace, &self.cable.client.interface);
        let ends = [client, (node, &self.cable.node.interface)];
        ends.into_iter()
            .map(|(namespace, name)| dropped(namespace, name))
            .sum()
    }
}

/// Frames that a device has lost by itself, such as to a full queue.
pub(crate) fn dropped(namespace: &Namespace, interface: &str) -> u64 {
    let text = namespace.ip(&format!("-s -j link show dev {interface}"));
    let links: serde_json::Value = serde_json::from_str(&text).expect("ip prints JSON");
    let count = |way: &str| links[0]["stats64"][way]["dropped"].as_u64().unwrap_or(0);
    count("rx") + count("tx")
}

/// Frames that a device has taken in.
///
/// # Panics
/// Where there is no such device.
#[must_use]
pub fn arrived(namespace: &Namespace, interface: &str) -> u64 {
    let text = namespace.ip(&format!("-s -j link show dev {interface}"));
    let links: serde_json::Value = serde_json::from_str(&text).expect("ip prints JSON");
    let packets = links[0]["stats64"]["rx"]["packets"].as_u64();
    packets.expect("devices count packets")
}
