//! A large cluster: nodes whose agents are simulated, for the operator to roll up.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use headgate_compile::{
    inputs::{Catalog, Entry, Labels, labels_digest, of_node},
    snapshot::Content,
};
use headgate_crds::{API_VERSION, Kind, NodeDatapath, XdpPolicy};
use headgate_e2e_tests::{
    control_plane::ControlPlane,
    trials::{on_cluster, soak},
};
use headgate_source::kubernetes::{connect, list_once};
use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1::Node},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::{Value, json};

const NAMESPACE: &str = "headgate-system";
/// Writes under way at a time.
const CONCURRENCY: usize = 24;
/// Memory that the operator may have, in KiB.
const MEMORY: u64 = 200 * 1024;

pub(crate) fn trials() -> Vec<libtest_mimic::Trial> {
    vec![on_cluster("the_operator_rolls_up_hundreds_of_nodes", many)]
}

fn many() {
    let nodes = if soak() { 5_000 } else { 500 };
    let control_plane = ControlPlane::start();
    control_plane.install_crds();
    control_plane
        .kubectl()
        .run(&["apply", "-k", "manifests/base"]);
    let operator = control_plane.start_operator("first", &[]);
    control_plane.namespace.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.expect("a runtime can be made");
        runtime.block_on(async {
            let client = connect(Some(&control_plane.admin_kubeconfig())).await;
            let client = client.expect("the kubeconfig is good").client;
            roll_up(client, nodes)
                .await
                .expect("the API server answers");
        });
    });
    let resident = operator.resident();
    println!(
        "{nodes} nodes: the operator has {} MiB resident",
        resident / 1024
    );
    assert!(resident < MEMORY, "{resident} KiB");
}

async fn roll_up(client: Client, number: usize) -> Result<(), kube::Error> {
    let names: Vec<String> = (0..number)
        .map(|number| format!("simulated{number}"))
        .collect();
    let began = Instant::now();
    stream::iter(&names)
        .map(|name| register(&client, name))
        .buffer_unordered(CONCURRENCY)
        .try_collect::<()>()
        .await?;
    println!("{number} nodes registered in {:?}", began.elapsed());

    for generation in 1..=3 {
        apply(&client, generation).await?;
        let applied = Instant::now();
        let watch = tokio::spawn(count_until_ready(client.clone(), number, generation));
        show_all(&client, &names).await?;
        let shown = applied.elapsed();
        let writes = watch.await.expect("the watch does not panic");
        println!(
            "generation {generation}: {number} nodes showed it in {shown:?}; Ready {:?} after that, with {writes} writes of the status",
            applied.elapsed().saturating_sub(shown)
        );
        // One a second while nodes come, and a few for what is said first and last.
        let seconds = usize::try_from(applied.elapsed().as_secs()).unwrap_or(usize::MAX);
        assert!(writes <= seconds + 6, "{writes} writes in {seconds} s");
    }
    Ok(())
}

/// A node, its agent's Lease, and its NodeDatapath.
async fn register(client: &Client, name: &str) -> Result<(), kube::Error> {
    let create = PostParams::default();
    let node: Node = object(json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "simulated": "yes"}},
    }));
    Api::all(client.clone()).create(&create, &node).await?;
    let lease: Lease = object(json!({
        "metadata": {"name": name},
        "spec": {
            "holderIdentity": name,
            "leaseDurationSeconds": 3600,
            "renewTime": format!("{:.6}", Timestamp::now()),
        },
    }));
    Api::namespaced(client.clone(), NAMESPACE)
        .create(&create, &lease)
        .await?;
    let datapath = json!({
        "apiVersion": API_VERSION, "kind": "NodeDatapath", "metadata": {"name": name},
    });
    let api: Api<NodeDatapath> = Api::all(client.clone());
    let params = PatchParams::apply("test");
    api.patch(name, &params, &Patch::Apply(&datapath)).await?;
    Ok(())
}

fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("it is one")
}

async fn apply(client: &Client, generation: i64) -> Result<(), kube::Error> {
    let policy = json!({
        "apiVersion": API_VERSION, "kind": "XdpPolicy",
        "metadata": {"name": "everywhere"},
        "spec": {"nodeSelector": {"matchLabels": {"simulated": "yes"}}, "priority": generation},
    });
    let params = PatchParams::apply("test");
    let api: Api<XdpPolicy> = Api::all(client.clone());
    api.patch("everywhere", &params, &Patch::Apply(&policy))
        .await?;
    Ok(())
}

/// Each agent shows that it has all resources as they are.
async fn show_all(client: &Client, names: &[String]) -> Result<(), kube::Error> {
    let listing = list_once(client, Content::from).await?;
    let entries = listing.documents.iter().map(|document| Entry {
        kind: document.kind,
        name: &document.name,
        uid: &document.uid,
        generation: document.generation,
        written: headgate_datapath::state::Digest::from_bytes(document.written),
        content: document.content.as_ref().ok(),
    });
    assert!(
        listing
            .documents
            .iter()
            .any(|document| document.kind == Kind::XdpPolicy)
    );
    let catalog = Arc::new(Catalog::of(entries));
    let api: Api<NodeDatapath> = Api::all(client.clone());
    stream::iter(names)
        .map(|name| {
            let (api, catalog) = (api.clone(), Arc::clone(&catalog));
            async move {
                let labels: Labels = [
                    ("kubernetes.io/hostname", name.as_str()),
                    ("simulated", "yes"),
                ]
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect();
                let digest = catalog.digest(&catalog.select(&labels));
                let inputs = of_node(digest, labels_digest(&labels));
                let patch = json!({"status": {"inputsDigest": inputs.to_string()}});
                let params = PatchParams::default();
                let written = api.patch_status(name, &params, &Patch::Merge(&patch)).await;
                written.map(|_| ())
            }
        })
        .buffer_unordered(CONCURRENCY)
        .try_collect()
        .await
}

/// How often the policy's status was written until it is Ready on all nodes.
async fn count_until_ready(client: Client, nodes: usize, generation: i64) -> usize {
    let api: Api<XdpPolicy> = Api::all(client);
    let mut events = watcher(api, watcher::Config::default())
        .applied_objects()
        .boxed();
    let mut writes = 0;
    let ready = async {
        while let Some(event) = events.next().await {
            let policy = event.expect("the watch goes on");
            let status = policy.status.unwrap_or_default();
            let live = status.nodes.map_or(0, |nodes| nodes.live);
            writes += 1;
            let mut conditions = status.conditions.iter();
            if status.observed_generation == generation
                && live as usize == nodes
                && conditions.any(|c| c.type_ == "Ready" && c.status == "True")
            {
                return;
            }
        }
    };
    let limit = Duration::from_secs(120);
    let in_time = tokio::time::timeout(limit, ready).await;
    assert!(in_time.is_ok(), "not Ready within {limit:?}");
    writes
}
