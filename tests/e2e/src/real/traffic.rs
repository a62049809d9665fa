//! Traffic from outside to every node, of which one half is to be dropped.

use std::{net::SocketAddr, thread, time::Duration};

use super::{cluster::RealCluster, node::RealNode};
use crate::{
    flow::{Flow, Receiver},
    lab::dropped,
    namespace::Namespace,
    wait::wait_for,
};

/// The port that `examples/policies/drop-udp-12345.yaml` names, and one that no policy does.
const DENIED: u16 = 12_345;
const ALLOWED: u16 = 12_346;
/// Datagrams a second in each flow; a cable takes many times as many without loss.
const RATE: u32 = 500;

/// Two flows to every node, at work until they are counted.
#[derive(Debug)]
pub struct Traffic<'a> {
    cluster: &'a RealCluster,
    nodes: Vec<Streams<'a>>,
}

#[derive(Debug)]
struct Streams<'a> {
    node: &'a RealNode,
    receiver: Receiver,
    denied: Flow,
    allowed: Flow,
    lost_before: u64,
}

/// What became of the datagrams to one node: sent, and arrived.
#[derive(Clone, Copy, Debug)]
pub struct Count {
    /// To the port that a policy drops.
    pub denied: (u64, u64),
    /// To the other one.
    pub allowed: (u64, u64),
    /// Lost by devices on the way, such as to a full queue.
    pub lost: u64,
}

impl<'a> Traffic<'a> {
    /// Begins to send from the client to every node of the cluster.
    #[must_use]
    pub fn start(cluster: &'a RealCluster) -> Self {
        let nodes = cluster.nodes.iter();
        Self {
            nodes: nodes.map(|node| Streams::start(cluster, node)).collect(),
            cluster,
        }
    }

    /// Waits until every flow has sent this many more.
    pub fn go_on(&self, more: u64) {
        for streams in &self.nodes {
            for flow in [&streams.denied, &streams.allowed] {
                let goal = flow.sent() + more;
                wait_for(Duration::from_secs(60), "the flow goes on", || {
                    flow.sent() >= goal
                });
            }
        }
    }

    /// Ends the flows when all that they sent has arrived or is lost, and says what became of it.
    #[must_use]
    pub fn stop(self) -> Vec<Count> {
        let client = &self.cluster.client.namespace;
        let nodes = self.nodes.into_iter();
        nodes.map(|streams| streams.stop(client)).collect()
    }

    /// The same where nothing that is denied may have leaked and nothing that is allowed have been
    /// lost.
    ///
    /// # Panics
    /// Where something did.
    pub fn stop_unbroken(self, what: &str) {
        for (number, count) in self.stop().into_iter().enumerate() {
            println!("{what}, node{}: {count:?}", number + 1);
            let (sent, arrived) = count.allowed;
            assert!(count.denied.0 > 0 && sent > 0, "nothing was sent");
            assert_eq!(count.denied.1, 0, "leaked: {count:?}");
            assert!(
                arrived <= sent && arrived + count.lost >= sent,
                "lost: {count:?}"
            );
        }
    }
}

impl<'a> Streams<'a> {
    fn start(cluster: &RealCluster, node: &'a RealNode) -> Self {
        let client = &cluster.client;
        let receiver = Receiver::open(&node.member.namespace, &[DENIED, ALLOWED]);
        let source = [client.end.v4.into()];
        let flow = |port| {
            let to = SocketAddr::new(node.address().into(), port);
            Flow::start(&client.namespace, &source, to, RATE, u64::MAX)
        };
        Self {
            lost_before: lost(&client.namespace, node),
            denied: flow(DENIED),
            allowed: flow(ALLOWED),
            receiver,
            node,
        }
    }

    fn stop(self, client: &Namespace) -> Count {
        let ids = [self.denied.id, self.allowed.id];
        let sent = [self.denied.stop(), self.allowed.stop()];
        let received = || ids.map(|id| self.receiver.received(id));
        let mut arrived = received();
        loop {
            thread::sleep(Duration::from_millis(200));
            match received() {
                same if same == arrived => break,
                more => arrived = more,
            }
        }
        Count {
            denied: (sent[0], arrived[0]),
            allowed: (sent[1], arrived[1]),
            lost: lost(client, self.node) - self.lost_before,
        }
    }
}

/// Frames that the devices between a client and a node have lost.
fn lost(client: &Namespace, node: &RealNode) -> u64 {
    [client, &*node.member.namespace]
        .into_iter()
        .map(|namespace| dropped(namespace, "eth0"))
        .sum()
}
