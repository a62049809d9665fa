//! A service that settles, over turns, restarts and the end.

use std::collections::BTreeMap;

use headgate_compile::{
    compile,
    memory::{Memory, Seconds},
    node::{NextHop, NodeFacts},
};
use headgate_datapath::state::Ifindex;
use serde_json::{Value, json};

use crate::scene::{NOW, plain_node, snapshot};

fn objects(backends: &Value, forwarding: &str) -> [Value; 2] {
    let pool = json!({
        "apiVersion": "headgate.dev/v1alpha1", "kind": "AddressPool",
        "metadata": {"name": "all"}, "spec": {"cidrs": ["192.0.2.0/24"]},
    });
    let service = json!({
        "apiVersion": "headgate.dev/v1alpha1", "kind": "LoadBalancerService",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "interfaces": ["eth0"],
            "addresses": ["192.0.2.1"],
            "ports": [{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}],
            "backends": {"static": backends},
            "forwarding": forwarding,
            "ringSize": 4093,
        },
    });
    [pool, service]
}

fn node() -> NodeFacts {
    let hop = |last: u8| NextHop {
        ifindex: Ifindex(2),
        mtu: 1_500,
        reflects: true,
        destination: [2, 0, 0, 0, 0, last],
        source: [2, 0, 0, 0, 0, 0],
        local: Some([10, 0, 0, 200].into()),
        overlay: false,
    };
    let hops = (1..=2).map(|last| ([10, 0, 0, last].into(), hop(last)));
    NodeFacts {
        next_hops: hops.collect::<BTreeMap<_, _>>(),
        ..plain_node()
    }
}

/// A node's turns, with what the agent keeps on its disk.
#[derive(Default)]
struct Turns {
    memory: Memory,
}

impl Turns {
    /// The revision, and for each port until when it settles.
    fn turn(&mut self, objects: &[Value], now: u64) -> (String, Vec<Option<u64>>) {
        let now = Seconds(NOW.0 + now);
        let compilation = compile(&snapshot(objects), &node(), &self.memory, now);
        assert_eq!(compilation.findings, []);
        let kept = serde_json::to_string(&compilation.memory).unwrap();
        let last_good = compilation.memory.last_good;
        self.memory = serde_json::from_str(&kept).unwrap();
        self.memory.last_good = last_good;
        let frontends = compilation.services[0].frontends.iter();
        let until = frontends.map(|frontend| {
            let at = frontend.settling.as_ref()?.settles_at()?;
            Some(at.0 - NOW.0)
        });
        let revision = compilation.state.unwrap().revision().to_string();
        (revision, until.collect())
    }
}

#[test]
fn a_drained_backend_keeps_connections_for_an_hour() {
    let both = objects(
        &json!([{"address": "10.0.0.1"}, {"address": "10.0.0.2"}]),
        "DirectReturn",
    );
    let drained = objects(
        &json!([{"address": "10.0.0.1"}, {"address": "10.0.0.2", "weight": 0}]),
        "DirectReturn",
    );
    let mut turns = Turns::default();
    let (before, until) = turns.turn(&both, 0);
    assert_eq!(until, [None, None]);
    assert_eq!(turns.turn(&both, 5).0, before);
    let (settling, until) = turns.turn(&drained, 10);
    assert_eq!(until, [Some(3_610), None]);
    assert_eq!(turns.turn(&drained, 3_600).0, settling);
    let (after, until) = turns.turn(&drained, 3_610);
    assert_eq!(until, [None, None]);
    assert_ne!(after, settling);
    // As on a node that knows nothing of the past.
    assert_eq!(Turns::default().turn(&drained, 0).0, after);
}

#[test]
fn nat_settles_at_once() {
    let mut turns = Turns::default();
    turns.turn(
        &objects(
            &json!([{"address": "10.0.0.1"}, {"address": "10.0.0.2"}]),
            "Nat",
        ),
        0,
    );
    let one = objects(
        &json!([{"address": "10.0.0.1"}, {"address": "10.0.0.2", "weight": 0}]),
        "Nat",
    );
    let (after, until) = turns.turn(&one, 10);
    assert_eq!(until, [None, None]);
    assert_eq!(Turns::default().turn(&one, 0).0, after);
}
