//! How long an answer of the webhook takes beside 1,000 policies, 1,000 groups and 5,000 nodes, from
//! the bytes of the request to those of the answer.
//!
//! `cargo run --release -p headgate-operator --example review_timing`

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use headgate_compile::snapshot::Content;
use headgate_crds::check;
use headgate_operator::{
    admission::{FleetIndex, review},
    fleet::{Fleet, Node, Resource},
};
use headgate_source::{Document, Origin};
use serde_json::{Value, json};

const ROUNDS: usize = 300;

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "headgate.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// A policy of so many rules, each with ranges, ports and a group that is not there.
fn policy(name: &str, rules: usize) -> Value {
    let rules = (0..rules).map(|i| {
        json!({
            "name": format!("r{i}"), "action": "Allow",
            "from": {"cidrs": [format!("10.{}.{}.0/24", i / 256, i % 256)], "cidrGroups": {"names": [format!("none{i}")]}},
            "protocols": [{"tcp": {"ports": [{"port": i + 1}]}}],
        })
    });
    let none = json!({"matchLabels": {"role": "none"}});
    let spec = json!({"nodeSelector": none, "rules": rules.collect::<Vec<_>>()});
    object("XdpPolicy", name, &spec)
}

fn group(name: &str, ranges: usize) -> Value {
    let cidrs = (0..ranges).map(|i| format!("2001:db8:{:x}::/48", i % 65536));
    object(
        "CidrGroup",
        name,
        &json!({"cidrs": cidrs.collect::<Vec<_>>()}),
    )
}

fn fleet() -> Fleet {
    let policies = (0..1_000).map(|i| policy(&format!("p{i}"), 3));
    let groups = (0..1_000).map(|i| group(&format!("g{i}"), 4));
    let resources = policies.chain(groups).map(|object| {
        let resource = check(&object).expect("it is good").resource;
        let document: Resource = Document {
            origin: Origin {
                list: String::new(),
                line: None,
            },
            kind: resource.kind(),
            name: resource.name().to_owned(),
            uid: resource.name().to_owned(),
            generation: Some(1),
            written: [0; 32],
            content: Ok(Content::from(resource)),
            warnings: Vec::new(),
        };
        (document.uid.clone(), Arc::new(document))
    });
    let node = |i: usize| {
        let name = format!("node{i}");
        let labels = BTreeMap::from([("kubernetes.io/hostname".to_owned(), name.clone())]);
        (name, Arc::new(Node::with_labels(format!("{i}"), labels)))
    };
    Fleet {
        resources: resources.collect(),
        nodes: (0..5_000).map(node).collect(),
        ..Fleet::default()
    }
}

fn main() {
    let fleet = fleet();
    let started = Instant::now();
    let index = FleetIndex::of(&fleet);
    println!(
        "index of the fleet, at each change of it: {:?}",
        started.elapsed()
    );
    for (what, object) in [
        ("policy of 3 rules", policy("new", 3)),
        ("policy of 256 rules", policy("new", 256)),
        ("group of 5,000 ranges", group("new", 5_000)),
    ] {
        let request = json!({
            "uid": "u", "operation": "CREATE", "object": object,
            "kind": {"group": "headgate.dev", "version": "v1alpha1", "kind": object["kind"]},
        });
        let body = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request});
        let body = body.to_string().into_bytes();
        let mut taken: Vec<Duration> = (0..ROUNDS)
            .map(|_| {
                let started = Instant::now();
                let answer = review(&body, &index).expect("it is a review");
                assert!(!answer.is_empty());
                started.elapsed()
            })
            .collect();
        taken.sort();
        let (median, p95) = (taken[ROUNDS / 2], taken[ROUNDS * 95 / 100]);
        println!(
            "{what} ({} bytes): median {median:?}, p95 {p95:?}",
            body.len()
        );
    }
}
