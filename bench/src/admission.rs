//! The webhook's answers beside 1,000 policies, 1,000 groups and 5,000 nodes, from the bytes of the
//! request to those of the answer.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use headgate_compile::snapshot::Content;
use headgate_crds::check;
use headgate_operator::{
    admission::{FleetIndex, review},
    fleet::{Fleet, Node, Resource},
};
use headgate_source::{Document, Origin};
use serde_json::{Value, json};

use crate::{probe::milliseconds, statistics::quantile, table::Table};

const REVIEWS: usize = 300;
const INDICES: usize = 20;
/// Milliseconds that 95 of 100 answers may take at most.
const AIM: f64 = 20.0;

/// Adds the rows.
pub fn measure(table: &mut Table) -> anyhow::Result<()> {
    let fleet = fleet()?;
    let index = FleetIndex::of(&fleet);
    for (what, object) in [
        ("policy of 3 rules", policy("new", 3)),
        ("policy of 256 rules", policy("new", 256)),
        ("group of 5,000 ranges", group("new", 5_000)),
    ] {
        let body = request(&object);
        let mut took = Vec::with_capacity(REVIEWS);
        for _ in 0..REVIEWS {
            let started = Instant::now();
            let answer = review(&body, &index)?;
            took.push(milliseconds(started.elapsed()));
            ensure!(!answer.is_empty(), "a review without an answer");
        }
        let what = format!("admission, 1,000 policies: {what}");
        let median = quantile(&mut took, 0.5);
        table.figure(&format!("{what}, p50"), median, None, "ms");
        let p95 = quantile(&mut took, 0.95);
        table.figure(&format!("{what}, p95"), p95, Some(AIM), "ms");
    }
    let mut took: Vec<f64> = (0..INDICES)
        .map(|_| milliseconds(index_anew(&fleet)))
        .collect();
    let median = quantile(&mut took, 0.5);
    table.figure(
        "what warnings know, after a change of the cluster, p50",
        median,
        None,
        "ms",
    );
    Ok(())
}

fn index_anew(fleet: &Fleet) -> Duration {
    let started = Instant::now();
    let _ = FleetIndex::of(fleet);
    started.elapsed()
}

fn request(object: &Value) -> Vec<u8> {
    let request = json!({
        "uid": "u", "operation": "CREATE", "object": object,
        "kind": {"group": "headgate.dev", "version": "v1alpha1", "kind": object["kind"]},
    });
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request,
    });
    review.to_string().into_bytes()
}

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
    let spec = json!({"cidrs": cidrs.collect::<Vec<_>>()});
    object("CidrGroup", name, &spec)
}

fn fleet() -> anyhow::Result<Fleet> {
    let policies = (0..1_000).map(|i| policy(&format!("p{i}"), 3));
    let groups = (0..1_000).map(|i| group(&format!("g{i}"), 4));
    let resources = policies.chain(groups).map(|object| {
        let checked = check(&object).ok().context("a resource that is refused")?;
        let resource = checked.resource;
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
        Ok((document.uid.clone(), Arc::new(document)))
    });
    let node = |i: usize| {
        let name = format!("node{i}");
        let labels = BTreeMap::from([("kubernetes.io/hostname".to_owned(), name.clone())]);
        (name, Arc::new(Node::with_labels(format!("{i}"), labels)))
    };
    Ok(Fleet {
        resources: resources.collect::<anyhow::Result<_>>()?,
        nodes: (0..5_000).map(node).collect(),
        ..Fleet::default()
    })
}
