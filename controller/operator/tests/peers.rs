//! Which TunnelPeers Nodes get.

use std::{collections::BTreeMap, sync::Arc};

use headgate_compile::snapshot::Content;
use headgate_crds::{Kind, check};
use headgate_operator::{
    fleet::{Fleet, Node, Resource, Told},
    peers::{Network, Step, plan},
};
use headgate_source::{Document, Origin};
use serde_json::{Value, json};

const NETWORK: Option<Network> = Some(Network { vni: 7, port: 8472 });

/// A cluster of two nodes.
fn fleet() -> Fleet {
    let mut fleet = Fleet {
        is_known: true,
        ..Fleet::default()
    };
    for number in 1..=2 {
        let mut node = Node::with_labels(format!("uid-{number}"), BTreeMap::new());
        node.internal_ip = Some([192, 0, 2, number].into());
        let cidrs = [
            format!("10.244.{number}.0/24"),
            format!("fd24:{number}::/64"),
        ];
        node.pod_cidrs = cidrs
            .iter()
            .map(|cidr| cidr.parse().expect("a network"))
            .collect();
        fleet.nodes.insert(format!("node-{number}"), Arc::new(node));
    }
    fleet
}

fn add(fleet: &mut Fleet, name: &str, spec: &Value, owner: Option<&str>) {
    let object = json!({
        "apiVersion": "headgate.dev/v1alpha1", "kind": "TunnelPeer",
        "metadata": {"name": name}, "spec": spec,
    });
    let checked = check(&object).expect("a good resource");
    let resource: Resource = Document {
        origin: Origin {
            list: String::new(),
            line: None,
        },
        kind: Kind::TunnelPeer,
        name: name.to_owned(),
        uid: format!("uid-of-{name}"),
        generation: Some(1),
        written: [0; 32],
        content: Ok(Content::from(checked.resource)),
        warnings: Vec::new(),
    };
    let told = Told {
        owner: owner.map(str::to_owned),
        ..Told::default()
    };
    let uid = resource.uid.clone();
    fleet.told.insert(uid.clone(), Arc::new(told));
    fleet.resources.insert(uid, Arc::new(resource));
}

/// Plans, and lets the API hold what is applied.
fn turn(fleet: &mut Fleet) -> BTreeMap<String, Step> {
    let steps = plan(fleet, NETWORK);
    for (name, step) in &steps {
        match step {
            Step::Apply(spec) => {
                let owner = fleet.nodes[name].uid.clone();
                let spec = serde_json::to_value(spec).expect("JSON");
                add(fleet, name, &spec, Some(&owner));
            }
            Step::Delete(uid) => drop(fleet.resources.remove(uid)),
            Step::Refuse => {}
        }
    }
    steps
}

#[test]
fn each_node_gets_a_peer_of_its_networks_and_then_nothing_is_left_to_do() {
    let mut fleet = fleet();
    let steps = turn(&mut fleet);
    let Step::Apply(second) = &steps["node-2"] else {
        panic!("{steps:?}");
    };
    assert_eq!(steps.len(), 2);
    assert_eq!(second.pod_cidrs, ["10.244.2.0/24", "fd24:2::/64"]);
    assert_eq!(
        (second.endpoint.as_str(), second.vni),
        ("192.0.2.2", Some(7))
    );
    assert_eq!(turn(&mut fleet), BTreeMap::new());
}

#[test]
fn a_node_without_networks_or_address_gets_none_and_loses_its_own() {
    let mut fleet = fleet();
    turn(&mut fleet);
    let mut bare = Node::clone(&fleet.nodes["node-1"]);
    bare.internal_ip = None;
    fleet.nodes.insert("node-1".to_owned(), Arc::new(bare));
    let mut bare = Node::clone(&fleet.nodes["node-2"]);
    bare.pod_cidrs.clear();
    fleet.nodes.insert("node-2".to_owned(), Arc::new(bare));
    let deleted = |name: &str| Step::Delete(format!("uid-of-{name}"));
    let expected = ["node-1", "node-2"].map(|name| (name.to_owned(), deleted(name)));
    assert_eq!(turn(&mut fleet), BTreeMap::from(expected));
    assert_eq!(turn(&mut fleet), BTreeMap::new());
}

#[test]
fn a_node_that_moves_or_comes_again_takes_its_peer_along() {
    let mut fleet = fleet();
    turn(&mut fleet);
    let mut moved = Node::clone(&fleet.nodes["node-1"]);
    moved.internal_ip = Some([192, 0, 2, 77].into());
    fleet.nodes.insert("node-1".to_owned(), Arc::new(moved));
    let mut again = Node::clone(&fleet.nodes["node-2"]);
    again.uid = "another".to_owned();
    fleet.nodes.insert("node-2".to_owned(), Arc::new(again));
    let steps = turn(&mut fleet);
    let Step::Apply(first) = &steps["node-1"] else {
        panic!("{steps:?}");
    };
    assert_eq!(first.endpoint, "192.0.2.77");
    assert!(matches!(steps["node-2"], Step::Apply(_)), "{steps:?}");
    assert_eq!(turn(&mut fleet), BTreeMap::new());
}

#[test]
fn what_somebody_else_wrote_is_never_touched() {
    let mut fleet = fleet();
    let written = json!({"podCIDRs": ["10.9.0.0/16"], "endpoint": "198.51.100.9", "vni": 9});
    add(&mut fleet, "node-1", &written, None);
    add(&mut fleet, "site", &written, None);
    let steps = turn(&mut fleet);
    assert_eq!(steps["node-1"], Step::Refuse);
    assert!(matches!(steps["node-2"], Step::Apply(_)));
    assert_eq!(steps.len(), 2);
    // Also where none are to be kept any more.
    let left = plan(&fleet, None);
    let own = Step::Delete("uid-of-node-2".to_owned());
    assert_eq!(left, BTreeMap::from([("node-2".to_owned(), own)]));
}

#[test]
fn what_is_added_to_a_peer_stays() {
    let mut fleet = fleet();
    turn(&mut fleet);
    let spec = json!({
        "podCIDRs": ["10.244.1.0/24", "fd24:1::/64"], "endpoint": "192.0.2.1", "vni": 7,
        "mac": "02:00:00:00:00:01",
    });
    add(&mut fleet, "node-1", &spec, Some("uid-1"));
    assert_eq!(plan(&fleet, NETWORK), BTreeMap::new());
}
