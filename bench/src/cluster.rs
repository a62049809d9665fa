//! From `kubectl apply` to the first packet dropped on each of three nodes, and an agent with much to
//! read, on a real API server.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use headgate_e2e_tests::{
    assets,
    cluster::{Cluster, LABEL},
    control_plane::shut_down,
    node::Node,
    wait::wait_for,
};
use serde_json::{Value, json};

use crate::{
    lists::Random,
    probe::{Probe, milliseconds, resident},
    statistics::quantile,
    table::Table,
};

const APPLIES: usize = 200;
const PORT: u16 = 9;
const POLICIES: usize = 100;
const CIDRS: usize = 5_000;
/// An agent that needs longer has failed.
const LONGEST_START: Duration = Duration::from_secs(60);

/// Adds the rows.
pub fn measure(table: &mut Table) -> anyhow::Result<()> {
    if let Err(reason) = assets::CONTROL_PLANE.folder() {
        println!("SKIPPED cluster: {reason}");
        return Ok(());
    }
    let cluster = Cluster::new(3);
    cluster.kubectl().run(&["apply", "-k", "manifests/base"]);
    let measured = applies(table, &cluster).and_then(|()| much(table, &cluster));
    drop(cluster);
    shut_down();
    measured
}

fn applies(table: &mut Table, cluster: &Cluster) -> anyhow::Result<()> {
    let mut nodes: Vec<Node> = cluster.nodes.iter().map(Node::of_cluster).collect();
    for node in &mut nodes {
        node.start();
    }
    let client = &cluster.client;
    let probes = cluster.nodes.iter().map(|node| {
        let to = SocketAddr::new(node.member.end.v4.into(), PORT);
        let from = (&*client.namespace, client.end.v4.into());
        Probe::new(from, (&node.member.namespace, to))
    });
    let probes: Vec<Probe> = probes.collect::<anyhow::Result<_>>()?;
    let mut took = Vec::with_capacity(3 * APPLIES);
    for _ in 0..APPLIES {
        cluster.kubectl().apply(&policy(cluster, true).to_string());
        took.extend(until(&probes, false)?);
        cluster.kubectl().apply(&policy(cluster, false).to_string());
        until(&probes, true)?;
    }
    let name = format!("{}-probe", cluster.name);
    cluster.kubectl().run(&["delete", "xdppolicy", &name]);
    let what = "kubectl apply returned to first packet dropped, 3 nodes";
    for (quartile, name, target) in [
        (0.5, "p50", Some(100.0)),
        (0.95, "p95", Some(300.0)),
        (1.0, "maximum", None),
    ] {
        let value = quantile(&mut took, quartile);
        table.figure(&format!("{what}, {name}"), value, target, "ms");
    }
    table.figure(
        "agent of a cluster, resident memory, one policy",
        resident(nodes[0].pid())?,
        Some(50.0),
        "MB",
    );
    Ok(())
}

/// Milliseconds until each probe's datagrams arrive, or do not.
fn until(probes: &[Probe], arrives: bool) -> anyhow::Result<Vec<f64>> {
    let since = Instant::now();
    thread::scope(|scope| {
        let waiting: Vec<_> = probes
            .iter()
            .map(|probe| scope.spawn(move || probe.first(since, arrives)))
            .collect();
        let ended = waiting.into_iter().map(|thread| match thread.join() {
            Ok(took) => took.map(milliseconds),
            Err(_) => bail!("a probe panicked"),
        });
        ended.collect()
    })
}

fn much(table: &mut Table, cluster: &Cluster) -> anyhow::Result<()> {
    let folder = tempfile::tempdir().context("a folder for manifests")?;
    let mut random = Random(7);
    let mut text = String::new();
    for number in 0..POLICIES {
        writeln!(text, "---\n{}", group(cluster, number, &mut random))?;
        writeln!(text, "---\n{}", blocking(cluster, number))?;
    }
    let file = folder.path().join("much.yaml");
    std::fs::write(&file, text)?;
    let file = file.display().to_string();
    // Client-side apply would keep each object twice.
    cluster.kubectl().run(&["create", "-f", &file]);
    let mut node = Node::of_cluster(&cluster.nodes[0]);
    let since = Instant::now();
    node.start_unsettled();
    // An agent that has not heard from the API yet reports that, too.
    wait_for(LONGEST_START, "the policies are enforced", || {
        let report = node.report();
        let mut ports = report["ports"].as_object().into_iter().flatten();
        report["source_unavailable"].is_null()
            && ports.any(|(_, port)| port["status"] == "Enforced")
    });
    let took = since.elapsed();
    let what = format!("agent's start with {POLICIES} policies and as many groups of {CIDRS}");
    table.figure(
        &format!("{what}, to enforced"),
        milliseconds(took),
        Some(3_000.0),
        "ms",
    );
    table.figure(
        &format!("{what}, resident"),
        resident(node.pid())?,
        Some(50.0),
        "MB",
    );
    drop(node);
    cluster
        .kubectl()
        .run(&["delete", "--wait=false", "-f", &file]);
    Ok(())
}

fn policy(cluster: &Cluster, drops: bool) -> Value {
    let port = if drops { PORT } else { PORT + 1 };
    let rule = json!({
        "name": "probe", "action": "Drop", "protocols": [{"udp": {"ports": [{"port": port}]}}],
    });
    xdp_policy(cluster, "probe", &rule)
}

fn blocking(cluster: &Cluster, number: usize) -> Value {
    let group = format!("{}-{number}", cluster.name);
    let rule = json!({
        "name": "listed", "action": "Drop", "from": {"cidrGroups": {"names": [group]}},
    });
    xdp_policy(cluster, &number.to_string(), &rule)
}

fn xdp_policy(cluster: &Cluster, name: &str, rule: &Value) -> Value {
    json!({
        "apiVersion": "headgate.dev/v1alpha1",
        "kind": "XdpPolicy",
        "metadata": {"name": format!("{}-{name}", cluster.name)},
        "spec": {
            "nodeSelector": {"matchLabels": {LABEL: cluster.name}},
            "interfaces": ["eth0"],
            "rules": [rule],
        },
    })
}

fn group(cluster: &Cluster, number: usize, random: &mut Random) -> Value {
    // Below 224.0.0.0, and apart from the addresses of the cluster itself.
    let host = |bits: u64| std::net::Ipv4Addr::from_bits(0x2000_0000 + (bits as u32 >> 1));
    let cidrs: std::collections::BTreeSet<String> = (0..CIDRS)
        .map(|_| format!("{}/32", host(random.next())))
        .collect();
    json!({
        "apiVersion": "headgate.dev/v1alpha1",
        "kind": "CidrGroup",
        "metadata": {"name": format!("{}-{number}", cluster.name)},
        "spec": {"cidrs": cidrs},
    })
}
