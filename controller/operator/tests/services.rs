//! Which address a Service gets, and what it is told.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use headgate_compile::snapshot::Content;
use headgate_crds::{
    Kind, MAX_SOURCE_RANGES, NodeCounts, ServicePort, ServiceProtocol, TrafficPolicy, check,
};
use headgate_operator::{
    fleet::{Fleet, Node, Resource, Told},
    services::{Asked, Given, Plan, Step, plan},
};
use headgate_source::{Document, Origin};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};

/// A cluster with one node at 192.0.2.1.
struct Scene {
    fleet: Fleet,
    given: Given,
}

impl Scene {
    fn new() -> Self {
        let mut node = Node::with_labels("node-uid", BTreeMap::new());
        node.addresses = vec![[192, 0, 2, 1].into()];
        let mut fleet = Fleet {
            is_known: true,
            ..Fleet::default()
        };
        fleet.nodes.insert("node".to_owned(), Arc::new(node));
        Self {
            fleet,
            given: Given::new(),
        }
    }

    fn with_pool(mut self, name: &str, cidrs: &[&str]) -> Self {
        let spec = json!({"cidrs": cidrs, "namespaces": ["shop"]});
        self.add(Kind::AddressPool, None, name, &spec, None);
        self
    }

    fn add(
        &mut self,
        kind: Kind,
        namespace: Option<&str>,
        name: &str,
        spec: &Value,
        owner: Option<&str>,
    ) {
        let mut object = json!({
            "apiVersion": "headgate.dev/v1alpha1",
            "kind": kind.as_str(),
            "metadata": {"name": name},
            "spec": spec,
        });
        if let Some(namespace) = namespace {
            object["metadata"]["namespace"] = json!(namespace);
        }
        let checked = check(&object).expect("a good resource");
        let full = kind.full_name(namespace, name);
        let resource: Resource = Document {
            origin: Origin {
                list: String::new(),
                line: None,
            },
            kind,
            name: full.clone(),
            uid: format!("{kind:?}/{full}"),
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
        self.fleet.told.insert(uid.clone(), Arc::new(told));
        self.fleet.resources.insert(uid, Arc::new(resource));
    }

    fn ask(&mut self, name: &str, change: impl FnOnce(&mut Asked)) {
        let mut asked = Asked {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            generation: 0,
            families: [true, false],
            addresses: Ok(Vec::new()),
            ports: Ok(vec![ServicePort {
                name: "http".to_owned(),
                protocol: ServiceProtocol::Tcp,
                port: 80,
                target_port: None,
            }]),
            traffic_policy: TrafficPolicy::Cluster,
            source_ranges: None,
            told: [].into(),
            said: None,
        };
        change(&mut asked);
        let full = format!("shop/{name}");
        self.fleet.services.insert(full, Arc::new(asked));
    }

    fn plan(&mut self) -> Plan {
        plan(&self.fleet, &mut self.given)
    }

    /// Plans, and lets the API hold what is applied and tell what is told.
    fn turn(&mut self) -> Plan {
        let plan = self.plan();
        for (name, step) in &plan.steps {
            let (namespace, short) = Kind::split_name(name);
            match step {
                Step::Apply(spec) => {
                    let owner = self.fleet.services[name].uid.clone();
                    let spec = serde_json::to_value(spec).expect("JSON");
                    let kind = Kind::LoadBalancerService;
                    self.add(kind, namespace, short, &spec, Some(&owner));
                }
                Step::Delete(uid) => drop(self.fleet.resources.remove(uid)),
            }
        }
        for (name, word) in &plan.words {
            let mut asked = Asked::clone(&self.fleet.services[name]);
            asked.told.clone_from(&word.addresses);
            asked.said = Some(condition(
                if word.is_served { "True" } else { "False" },
                word.reason,
                &word.message,
            ));
            self.fleet.services.insert(name.clone(), Arc::new(asked));
        }
        plan
    }

    /// A node serves every LoadBalancerService.
    fn serve(&mut self) {
        for (uid, told) in &mut self.fleet.told {
            if uid.starts_with("LoadBalancerService/") {
                let mut now = Told::clone(told);
                now.status.nodes = Some(NodeCounts {
                    selected: 1,
                    live: 1,
                    ..NodeCounts::default()
                });
                now.status.observed_generation = 1;
                now.status.conditions = vec![condition("True", "Live", "")];
                *told = Arc::new(now);
            }
        }
    }
}

fn condition(status: &str, reason: &str, message: &str) -> Condition {
    let condition = json!({
        "type": "Ready", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    serde_json::from_value(condition).expect("a condition")
}

fn applied(plan: &Plan, name: &str) -> Vec<String> {
    match &plan.steps[name] {
        Step::Apply(spec) => spec.addresses.clone(),
        Step::Delete(uid) => panic!("{uid} is deleted"),
    }
}

#[test]
fn an_address_is_the_first_that_nobody_has_and_is_told_once_it_is_served() {
    let mut scene = Scene::new().with_pool("a", &["192.0.2.0/29", "2001:db8::/64"]);
    scene.ask("web", |asked| asked.families = [true, true]);
    let first = scene.turn();
    // 192.0.2.1 is the node's.
    assert_eq!(applied(&first, "shop/web"), ["192.0.2.2", "2001:db8::"]);
    assert_eq!(first.words["shop/web"].reason, "Waiting");
    assert!(first.words["shop/web"].addresses.is_empty());
    assert_eq!(scene.turn(), Plan::default(), "nothing is said twice");
    scene.serve();
    let word = scene.turn().words.remove("shop/web").expect("said");
    assert_eq!((word.reason, word.is_served), ("Served", true));
    let told: Vec<&str> = word.addresses.iter().map(String::as_str).collect();
    assert_eq!(told, ["192.0.2.2", "2001:db8::"]);
    assert_eq!(scene.turn(), Plan::default());
}

#[test]
fn an_address_stays_whoever_comes_and_is_not_given_twice_before_it_is_seen() {
    let mut scene = Scene::new().with_pool("a", &["192.0.2.8/30"]);
    scene.ask("web", |_| {});
    assert_eq!(applied(&scene.plan(), "shop/web"), ["192.0.2.9"]);
    // The API has not shown it yet when another comes, first by name.
    scene.ask("api", |_| {});
    let plan = scene.turn();
    assert_eq!(applied(&plan, "shop/web"), ["192.0.2.9"]);
    assert_eq!(applied(&plan, "shop/api"), ["192.0.2.10"]);
    // Another leader knows what the API holds.
    scene.given.clear();
    scene.ask("first", |_| {});
    let plan = scene.turn();
    assert!(plan.steps.is_empty(), "{plan:?}");
    assert_eq!(plan.words["shop/first"].reason, "NoAddress");
    // Who goes makes room.
    scene.fleet.services.remove("shop/api");
    let plan = scene.turn();
    let gone = Step::Delete("LoadBalancerService/shop/api".to_owned());
    assert_eq!(plan.steps["shop/api"], gone);
    assert_eq!(applied(&scene.turn(), "shop/first"), ["192.0.2.10"]);
}

#[test]
fn what_is_asked_for_by_name_must_be_admitted_and_free() {
    let mut scene = Scene::new().with_pool("a", &["192.0.2.0/24"]);
    let named = |address: &str| -> Result<Vec<IpAddr>, String> {
        Ok(vec![address.parse().expect("an address")])
    };
    scene.ask("web", |asked| asked.addresses = named("192.0.2.77"));
    scene.ask("other", |asked| asked.addresses = named("192.0.2.77"));
    scene.ask("outside", |asked| asked.addresses = named("203.0.113.1"));
    scene.ask("node", |asked| asked.addresses = named("192.0.2.1"));
    let plan = scene.turn();
    assert_eq!(applied(&plan, "shop/other"), ["192.0.2.77"]);
    assert_eq!(plan.steps.len(), 1);
    let said = |name: &str| plan.words[name].message.as_str();
    assert!(said("shop/web").contains("shop/other has 192.0.2.77"));
    assert!(said("shop/outside").contains("lies in no AddressPool"));
    assert!(said("shop/node").contains("the node node has 192.0.2.1"));
}

#[test]
fn what_somebody_else_made_is_left_alone() {
    let mut scene = Scene::new().with_pool("a", &["192.0.2.0/24"]);
    let own = json!({
        "addresses": ["192.0.2.2"],
        "ports": [{"name": "http", "port": 80}],
        "backends": {"static": [{"address": "198.51.100.1"}]},
    });
    scene.add(Kind::LoadBalancerService, Some("shop"), "web", &own, None);
    scene.ask("web", |_| {});
    scene.ask("api", |_| {});
    let plan = scene.turn();
    assert_eq!(plan.words["shop/web"].reason, "NameTaken");
    assert_eq!(applied(&plan, "shop/api"), ["192.0.2.3"]);
    assert_eq!(plan.steps.len(), 1);
}

#[test]
fn what_cannot_be_done_takes_nothing_away() {
    let mut scene = Scene::new().with_pool("a", &["192.0.2.0/24"]);
    scene.ask("web", |_| {});
    scene.turn();
    scene.serve();
    scene.turn();
    let served = Asked::clone(&scene.fleet.services["shop/web"]);
    scene.ask("web", |asked| {
        *asked = served;
        asked.ports = Err("SCTP is not balanced".to_owned());
    });
    let plan = scene.turn();
    assert!(plan.steps.is_empty(), "{plan:?}");
    let word = &plan.words["shop/web"];
    assert_eq!(word.reason, "Unsupported");
    assert!(word.addresses.contains("192.0.2.2"), "it is still served");
    assert!(word.message.contains("stays in effect"), "{}", word.message);
}

fn ranges_applied(plan: &Plan, name: &str) -> Option<Vec<String>> {
    match plan.steps.get(name) {
        Some(Step::Apply(spec)) => spec.source_ranges.clone(),
        other => panic!("{other:?}"),
    }
}

/// The Service with these ranges, served as it was before.
fn limited(scene: &mut Scene, ranges: &[&str], change: impl FnOnce(&mut Asked)) {
    let served = Asked::clone(&scene.fleet.services["shop/web"]);
    scene.ask("web", |asked| {
        *asked = served;
        asked.source_ranges = Some(ranges.iter().map(|&range| range.to_owned()).collect());
        change(asked);
    });
}

fn served() -> Scene {
    let mut scene = Scene::new().with_pool("a", &["192.0.2.0/24"]);
    scene.ask("web", |_| {});
    scene.turn();
    scene.serve();
    scene.turn();
    scene
}

#[test]
fn source_ranges_hold_at_once_and_the_address_stays_told() {
    let mut scene = served();
    limited(&mut scene, &["198.51.100.0/24", "2001:db8::/32"], |_| {});
    let plan = scene.turn();
    let ranges = ["198.51.100.0/24", "2001:db8::/32"].map(str::to_owned);
    assert_eq!(ranges_applied(&plan, "shop/web"), Some(ranges.into()));
    assert!(plan.words["shop/web"].addresses.contains("192.0.2.2"));
    scene.serve();
    assert_eq!(scene.turn().words["shop/web"].reason, "Served");
    // And go again.
    let asked = Asked::clone(&scene.fleet.services["shop/web"]);
    scene.ask("web", |open| {
        *open = asked;
        open.source_ranges = None;
    });
    assert_eq!(ranges_applied(&scene.turn(), "shop/web"), None);
}

#[test]
fn source_ranges_hold_whatever_else_is_wrong() {
    let mut scene = served();
    limited(&mut scene, &["198.51.100.0/24"], |asked| {
        asked.ports = Err("SCTP is not balanced".to_owned());
    });
    let plan = scene.turn();
    let ranges = vec!["198.51.100.0/24".to_owned()];
    assert_eq!(ranges_applied(&plan, "shop/web"), Some(ranges));
    assert_eq!(applied(&plan, "shop/web"), ["192.0.2.2"]);
    let word = &plan.words["shop/web"];
    assert_eq!(word.reason, "Unsupported");
    assert!(word.message.ends_with("but for the source ranges"));
    assert_eq!(scene.turn(), Plan::default(), "nothing is done twice");
}

#[test]
fn of_too_many_source_ranges_the_first_hold() {
    let many: Vec<String> = (0..=MAX_SOURCE_RANGES)
        .map(|number| format!("10.{}.{}.0/24", number / 256, number % 256))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut scene = served();
    limited(&mut scene, &many, |_| {});
    let plan = scene.turn();
    let ranges = ranges_applied(&plan, "shop/web").expect("some");
    assert_eq!(ranges, many[..MAX_SOURCE_RANGES]);
    let word = &plan.words["shop/web"];
    assert_eq!(word.reason, "Unsupported");
    assert!(word.message.contains("1025"), "{}", word.message);
    assert_eq!(scene.turn(), Plan::default());
}

#[test]
fn a_service_made_anew_is_another_one() {
    let mut scene = Scene::new().with_pool("a", &["192.0.2.0/24"]);
    scene.ask("web", |_| {});
    scene.turn();
    scene.ask("web", |asked| asked.uid = "another".to_owned());
    let plan = scene.plan();
    let former = Step::Delete("LoadBalancerService/shop/web".to_owned());
    assert_eq!(plan.steps["shop/web"], former);
}

#[test]
fn who_wants_an_address_that_a_service_has_does_not_move_it() {
    let mut scene = Scene::new().with_pool("a", &["192.0.2.0/24"]);
    scene.ask("web", |_| {});
    scene.turn();
    // Another leader, and somebody who names the address.
    scene.given.clear();
    let own = json!({
        "addresses": ["192.0.2.2"],
        "ports": [{"name": "http", "port": 80}],
        "backends": {"static": [{"address": "198.51.100.1"}]},
    });
    scene.add(Kind::LoadBalancerService, Some("zoo"), "zz", &own, None);
    assert!(scene.plan().steps.is_empty());
}

#[test]
fn addresses_that_are_not_used_are_told() {
    let mut scene = Scene::new().with_pool("a", &["192.0.2.0/24"]);
    let both = vec![[192, 0, 2, 7].into(), [192, 0, 2, 8].into()];
    scene.ask("web", |asked| asked.addresses = Ok(both));
    let plan = scene.plan();
    assert!(plan.steps.is_empty());
    let message = &plan.words["shop/web"].message;
    assert!(message.contains("192.0.2.8 is not used"), "{message}");
}
