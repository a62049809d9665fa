//! How resources stand, as a fleet's nodes show it.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use headgate_compile::{
    inputs::{Labels, labels_digest, of_node},
    snapshot::Content,
};
use headgate_crds::{Kind, ResourceStatus, check};
use headgate_operator::{
    fleet::{Exception, Fleet, Heartbeat, Node, Resource, Shown},
    rollup::{History, Rollup, Standing},
    status::{About, status},
};
use headgate_source::{Document, Origin};
use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

const LEASE: Duration = Duration::from_secs(40);

/// A fleet, and what its agents were told of it.
struct Scene {
    fleet: Fleet,
    history: History,
    now: Instant,
}

impl Scene {
    /// Nodes n0, n1, ..., each with the label `zone`: even or odd; all agents alive.
    fn new(nodes: usize) -> Self {
        let now = Instant::now();
        let mut fleet = Fleet::default();
        for number in 0..nodes {
            let name = format!("n{number}");
            let zone = ["even", "odd"][number % 2];
            let labels = [("zone", zone), ("host", &name)];
            let labels: Labels = labels
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect();
            let node = Node::with_labels(format!("uid-{name}"), labels);
            fleet.nodes.insert(name.clone(), Arc::new(node));
            fleet.heartbeats.insert(
                name,
                Heartbeat {
                    renewed: String::new(),
                    seen: now,
                    lasts: LEASE,
                },
            );
        }
        Self {
            fleet,
            history: History::default(),
            now,
        }
    }

    fn put(&mut self, name: &str, generation: u64, spec: &Value) {
        let resource = policy(name, generation, spec);
        self.fleet
            .resources
            .insert(resource.uid.clone(), Arc::new(resource));
        self.history.remember(self.fleet.catalog());
    }

    fn put_group(&mut self, name: &str) {
        let object = json!({
            "apiVersion": "headgate.dev/v1alpha1", "kind": "CidrGroup",
            "metadata": {"name": name, "labels": {"team": "partners"}},
            "spec": {"cidrs": ["192.0.2.0/24"]},
        });
        let group = resource(Kind::CidrGroup, name, 1, &object);
        self.fleet
            .resources
            .insert(group.uid.clone(), Arc::new(group));
    }

    /// The node's agent catches up with all resources as they are.
    fn catch_up(&mut self, node: &str, exceptions: Vec<Exception>) {
        let catalog = self.fleet.catalog();
        let labels = &self.fleet.nodes[node].labels;
        let resources = catalog.digest(&catalog.select(labels));
        let shown = Shown {
            owner: self.fleet.nodes[node].uid.clone(),
            inputs: Some(of_node(resources, labels_digest(labels))),
            exceptions,
            ..Shown::default()
        };
        self.fleet
            .datapaths
            .insert(node.to_owned(), Arc::new(shown));
    }

    fn change_node(&mut self, node: &str, change: impl FnOnce(&mut Node)) {
        let node = self.fleet.nodes.get_mut(node).expect("a node of the scene");
        change(Arc::make_mut(node));
    }

    fn standing(&mut self, name: &str) -> Standing {
        let resource = Arc::clone(&self.fleet.resources[&format!("uid-{name}")]);
        Rollup::new(&mut self.history, &self.fleet, self.now).of(&resource)
    }

    /// Status and reason of Ready, Reconciling and Stalled.
    fn ready(&mut self, name: &str) -> [String; 3] {
        let standing = self.standing(name);
        let about = About {
            generation: 1,
            problems: &[],
            is_deleting: false,
            is_referred_to: false,
        };
        let former = ResourceStatus::default();
        let conditions = status(&about, &standing, &former, &Timestamp::now()).conditions;
        [0, 1, 2].map(|of| format!("{}/{}", conditions[of].status, conditions[of].reason))
    }
}

fn policy(name: &str, generation: u64, spec: &Value) -> Resource {
    let object = json!({
        "apiVersion": "headgate.dev/v1alpha1", "kind": "XdpPolicy",
        "metadata": {"name": name}, "spec": spec,
    });
    resource(Kind::XdpPolicy, name, generation, &object)
}

fn resource(kind: Kind, name: &str, generation: u64, object: &Value) -> Resource {
    Document {
        origin: Origin {
            list: kind.to_string(),
            line: None,
        },
        kind,
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        generation: Some(generation),
        written: [u8::try_from(generation).expect("small"); 32],
        content: check(object).map(|checked| Content::from(checked.resource)),
        warnings: Vec::new(),
    }
}

fn odd_zone() -> Value {
    json!({"nodeSelector": {"matchLabels": {"zone": "odd"}}})
}

fn exception(name: &str, is_stalled: bool) -> Exception {
    Exception {
        kind: "XdpPolicy".to_owned(),
        name: name.to_owned(),
        is_stalled,
        is_of_interface: false,
        reason: "AttachModeRefused".to_owned(),
        message: "the driver says no".to_owned(),
    }
}

#[test]
fn a_policy_is_live_where_its_nodes_show_it() {
    let mut scene = Scene::new(4);
    scene.put("drop", 1, &odd_zone());
    assert_eq!(scene.ready("drop")[0], "False/Pending");
    assert_eq!(scene.standing("drop").pending, ["n1", "n3"]);
    scene.catch_up("n1", vec![]);
    let standing = scene.standing("drop");
    assert_eq!((standing.counts.live, standing.counts.pending), (1, 1));
    scene.catch_up("n3", vec![]);
    assert_eq!(
        scene.ready("drop"),
        ["True/Live", "False/Settled", "False/NotStalled"]
    );
}

#[test]
fn the_change_of_another_policy_takes_nothing_back() {
    let mut scene = Scene::new(2);
    scene.put("drop", 1, &json!({}));
    scene.catch_up("n0", vec![]);
    scene.catch_up("n1", vec![]);
    scene.put("other", 1, &json!({}));
    scene.put("other", 2, &json!({"priority": 3}));
    assert_eq!(scene.ready("drop")[0], "True/Live");
    assert_eq!(scene.ready("other")[0], "False/Pending");
    scene.put("drop", 2, &json!({"priority": 4}));
    assert_eq!(scene.standing("drop").counts.live, 0);
}

#[test]
fn a_node_whose_labels_changed_has_to_show_it_anew() {
    let mut scene = Scene::new(2);
    scene.put("drop", 1, &odd_zone());
    scene.catch_up("n1", vec![]);
    scene.change_node("n0", |node| {
        let mut labels = node.labels.clone();
        labels.insert("zone".to_owned(), "odd".to_owned());
        *node = Node::with_labels(node.uid.clone(), labels);
    });
    assert_eq!(scene.standing("drop").pending, ["n0"]);
    scene.catch_up("n0", vec![]);
    assert_eq!(scene.standing("drop").counts.live, 2);
}

#[test]
fn an_exception_is_told_with_its_node_and_reason() {
    let mut scene = Scene::new(2);
    scene.put("drop", 1, &json!({}));
    scene.catch_up("n0", vec![exception("drop", true)]);
    scene.catch_up("n1", vec![exception("drop", false)]);
    let standing = scene.standing("drop");
    assert_eq!(standing.failing[0].node, "n0");
    assert_eq!(standing.failing[0].reason, "AttachModeRefused");
    assert_eq!(standing.pending, ["n1"]);
    assert_eq!(scene.ready("drop")[2], "True/NotInEffect");

    // What was said of the former generation is not taken for this one's.
    scene.put("drop", 2, &json!({"priority": 4}));
    let counts = scene.standing("drop").counts;
    assert_eq!((counts.failing, counts.pending), (0, 2));
}

#[test]
fn an_agent_that_is_missed_is_named_and_a_dead_node_holds_nothing() {
    let mut scene = Scene::new(3);
    scene.put("drop", 1, &json!({}));
    for node in ["n0", "n1", "n2"] {
        scene.catch_up(node, vec![]);
    }
    scene.fleet.heartbeats.remove("n1");
    scene.fleet.heartbeats.remove("n2");
    scene.change_node("n2", |node| node.is_down = true);
    let standing = scene.standing("drop");
    assert_eq!(standing.unreachable, ["n2"]);
    assert_eq!(standing.failing[0].reason, "AgentMissing");
    assert_eq!(scene.ready("drop")[0], "False/AgentMissing");
    scene.change_node("n1", |node| node.is_covered = Some(false));
    assert_eq!(scene.ready("drop")[0], "True/Live");
}

#[test]
fn nothing_selected_is_well_and_nobody_alive_is_not() {
    let mut scene = Scene::new(1);
    scene.put("drop", 1, &odd_zone());
    assert_eq!(scene.ready("drop")[0], "True/NoNodesSelected");
    let mut scene = Scene::new(2);
    scene.put("drop", 1, &json!({}));
    scene.catch_up("n0", vec![]);
    scene.now += LEASE;
    assert_eq!(scene.ready("drop")[0], "False/NoAgents");
}

#[test]
fn names_are_bounded_and_numbers_are_not() {
    let mut scene = Scene::new(30);
    scene.put("drop", 1, &json!({}));
    for node in scene.fleet.nodes.keys().cloned().collect::<Vec<_>>() {
        if node.ends_with('3') {
            scene.catch_up(&node, vec![exception("drop", true)]);
        }
    }
    let standing = scene.standing("drop");
    assert_eq!((standing.counts.pending, standing.pending.len()), (27, 10));
    assert_eq!((standing.counts.failing, standing.failing.len()), (3, 3));
}

#[test]
fn a_set_that_was_never_seen_takes_nothing_back_that_did_not_change() {
    let mut scene = Scene::new(1);
    scene.put("drop", 1, &json!({}));
    scene.catch_up("n0", vec![]);
    assert_eq!(scene.ready("drop")[0], "True/Live");
    // The agent compiles amid a burst: with the one, and not yet the other.
    let unseen = policy("first", 1, &json!({}));
    let unseen_uid = unseen.uid.clone();
    scene.fleet.resources.insert(unseen_uid, Arc::new(unseen));
    scene.catch_up("n0", vec![]);
    scene.put("second", 1, &json!({}));
    assert_eq!(scene.ready("drop")[0], "True/Live");
    assert_eq!(scene.ready("first")[0], "False/Pending");
    scene.put("drop", 2, &json!({"priority": 4}));
    assert_eq!(scene.ready("drop")[0], "False/Pending");
}

#[test]
fn another_set_of_groups_has_to_be_shown_although_the_policy_is_the_same() {
    let mut scene = Scene::new(1);
    let partners = json!({"selector": {"matchLabels": {"team": "partners"}}});
    let rule = json!({"name": "partners", "action": "Allow", "from": {"cidrGroups": partners}});
    scene.put_group("one");
    scene.put_group("two");
    scene.put("allow", 1, &json!({"rules": [rule]}));
    scene.catch_up("n0", vec![]);
    assert_eq!(scene.ready("allow")[0], "True/Live");
    scene.fleet.resources.remove("uid-two");
    scene.history.remember(scene.fleet.catalog());
    assert_eq!(scene.ready("allow")[0], "False/Pending");
    scene.catch_up("n0", vec![]);
    assert_eq!(scene.ready("allow")[0], "True/Live");
}

#[test]
fn an_interface_that_does_not_enforce_fails_its_policies_whatever_the_digest() {
    let mut scene = Scene::new(1);
    scene.put("drop", 1, &json!({}));
    let mut amiss = exception("drop", true);
    amiss.is_of_interface = true;
    scene.catch_up("n0", vec![amiss]);
    assert_eq!(scene.ready("drop")[0], "False/NotInEffect");
    scene.put("drop", 2, &json!({"priority": 4}));
    assert_eq!(scene.ready("drop")[0], "False/NotInEffect");
}

#[test]
fn what_another_machine_of_the_same_name_showed_does_not_count() {
    let mut scene = Scene::new(1);
    scene.put("drop", 1, &json!({}));
    scene.catch_up("n0", vec![]);
    scene.change_node("n0", |node| node.uid = "another".to_owned());
    assert_eq!(scene.ready("drop")[0], "False/Pending");
}

#[derive(Clone, Debug)]
enum Happens {
    Put(usize, u64, bool),
    CatchUp(usize),
    Dies(usize),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        4 => (0..4_usize, 1..40_u64, any::<bool>()).prop_map(|(p, g, odd)| Happens::Put(p, g, odd)),
        4 => (0..6_usize).prop_map(Happens::CatchUp),
        1 => (0..6_usize).prop_map(Happens::Dies),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A model that remembers for each node what its agent was told, held against what the digests
    /// alone give away.
    #[test]
    fn digests_tell_what_each_node_was_told(events in prop::collection::vec(happens(), 1..60)) {
        let mut scene = Scene::new(6);
        let mut told: BTreeMap<usize, BTreeMap<usize, u64>> = BTreeMap::new();
        let mut policies: BTreeMap<usize, (u64, bool)> = BTreeMap::new();
        for event in events {
            match event {
                Happens::Put(number, generation, odd) => {
                    let (former, _) = policies.get(&number).copied().unwrap_or_default();
                    let generation = former + generation;
                    if generation > 250 {
                        continue;
                    }
                    policies.insert(number, (generation, odd));
                    let spec = if odd { odd_zone() } else { json!({}) };
                    scene.put(&format!("p{number}"), generation, &spec);
                }
                Happens::CatchUp(node) => {
                    scene.catch_up(&format!("n{node}"), vec![]);
                    let concerns = |(number, (generation, odd)): (&usize, &(u64, bool))| {
                        (!odd || node % 2 == 1).then_some((*number, *generation))
                    };
                    told.insert(node, policies.iter().filter_map(concerns).collect());
                }
                Happens::Dies(node) => {
                    scene.fleet.heartbeats.remove(&format!("n{node}"));
                }
            }
            for (number, (generation, odd)) in &policies {
                let counts = scene.standing(&format!("p{number}")).counts;
                let selected = (0..6).filter(|node| !odd || node % 2 == 1);
                let alive = |node: &usize| scene.fleet.heartbeats.contains_key(&format!("n{node}"));
                let shows = |node: &usize| {
                    told.get(node).and_then(|told| told.get(number)) == Some(generation)
                };
                let live = selected.clone().filter(|node| alive(node) && shows(node)).count();
                let pending = selected.clone().filter(|node| alive(node) && !shows(node)).count();
                prop_assert_eq!(counts.selected as usize, selected.count());
                prop_assert_eq!(counts.live as usize, live);
                prop_assert_eq!(counts.pending as usize, pending);
            }
        }
    }
}
