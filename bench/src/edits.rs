//! From a saved file to the first packet dropped, and what the agent weighs.

use std::{net::SocketAddr, time::Instant};

use headgate_e2e_tests::lab::Lab;

use crate::{
    lists::{Family, hosts},
    probe::{Probe, milliseconds, resident},
    statistics::quantile,
    table::Table,
};

const EDITS: usize = 200;
const PORT: u16 = 9;

/// Adds the rows.
pub fn measure(table: &mut Table) -> anyhow::Result<()> {
    let mut lab = Lab::new();
    lab.node.write("policy.yaml", &policy(false));
    lab.node.start();
    let (client, node) = (&lab.client.cable.client, &lab.client.cable.node);
    let probe = Probe::new(
        (&lab.client.namespace, client.v4.into()),
        (&lab.node.namespace, SocketAddr::new(node.v4.into(), PORT)),
    )?;

    let mut took = Vec::with_capacity(EDITS);
    for _ in 0..EDITS {
        let saved = Instant::now();
        lab.node.write("policy.yaml", &policy(true));
        took.push(milliseconds(probe.first(saved, false)?));
        let saved = Instant::now();
        lab.node.write("policy.yaml", &policy(false));
        probe.first(saved, true)?;
    }
    let what = "saved file to first packet dropped";
    table.figure(
        &format!("{what}, p50"),
        quantile(&mut took, 0.5),
        Some(100.0),
        "ms",
    );
    table.figure(
        &format!("{what}, p95"),
        quantile(&mut took, 0.95),
        Some(300.0),
        "ms",
    );
    table.figure(
        &format!("{what}, maximum"),
        quantile(&mut took, 1.0),
        None,
        "ms",
    );

    table.figure(
        "agent, resident memory, one policy",
        resident(lab.node.pid())?,
        Some(50.0),
        "MB",
    );
    for part in 0..20 {
        lab.node.write(&format!("group-{part}.yaml"), &group(part));
    }
    lab.node.apply("policy.yaml", &blocking());
    table.figure(
        "agent, resident memory, 100,000 addresses in 20 groups",
        resident(lab.node.pid())?,
        None,
        "MB",
    );
    Ok(())
}

fn policy(drops: bool) -> String {
    let port = if drops { PORT } else { PORT + 1 };
    format!(
        "apiVersion: headgate.dev/v1alpha1\nkind: XdpPolicy\nmetadata: {{name: probe}}\n\
         spec:\n  rules:\n  - name: probe\n    action: Drop\n    protocols:\n    - udp: {{ports: [{{port: {port}}}]}}\n"
    )
}

fn blocking() -> String {
    "apiVersion: headgate.dev/v1alpha1\nkind: XdpPolicy\nmetadata: {name: probe}\n\
     spec:\n  rules:\n  - name: listed\n    action: Drop\n    from: {cidrGroups: {selector: {}}}\n"
        .to_owned()
}

fn group(part: usize) -> String {
    let hosts = hosts(Family::V4, 100_000);
    let mut text = format!(
        "apiVersion: headgate.dev/v1alpha1\nkind: CidrGroup\nmetadata: {{name: part-{part}}}\nspec:\n  cidrs:\n"
    );
    for (address, _) in hosts
        .set
        .v4
        .as_slice()
        .iter()
        .skip(part * 5_000)
        .take(5_000)
    {
        text.push_str(&format!(
            "  - {}/32\n",
            std::net::Ipv4Addr::from_bits(*address)
        ));
    }
    text
}
