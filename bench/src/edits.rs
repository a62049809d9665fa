//! From a saved file to the first packet dropped, and what the agent weighs.

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use headgate_e2e_tests::lab::Lab;

use crate::{
    lists::{Family, hosts},
    statistics::quantile,
    table::Table,
};

const EDITS: usize = 200;
const PORT: u16 = 9;
/// A probe that has not arrived by then was dropped.
const LOST: Duration = Duration::from_millis(2);
const GIVE_UP: Duration = Duration::from_secs(5);

/// Adds the rows.
pub fn measure(table: &mut Table) -> anyhow::Result<()> {
    let mut lab = Lab::new();
    lab.node.write("policy.yaml", &policy(false));
    lab.node.start();
    let probe = Probe::new(&lab)?;

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

/// One datagram at a time, from the client to the node.
struct Probe {
    from: UdpSocket,
    to: SocketAddr,
    at: UdpSocket,
}

impl Probe {
    fn new(lab: &Lab) -> anyhow::Result<Self> {
        let to = SocketAddr::new(lab.client.cable.node.v4.into(), PORT);
        let from = SocketAddr::new(lab.client.cable.client.v4.into(), 0);
        let from = lab.client.namespace.enter(|| UdpSocket::bind(from))?;
        let at = lab.node.namespace.enter(|| UdpSocket::bind(to))?;
        at.set_read_timeout(Some(LOST))?;
        Ok(Self { from, to, at })
    }

    /// Time from `since` to the sending of the first datagram that arrives, or does not.
    fn first(&self, since: Instant, arrives: bool) -> anyhow::Result<Duration> {
        let mut number: u64 = 0;
        loop {
            number += 1;
            let sent = since.elapsed();
            self.from
                .send_to(&number.to_ne_bytes(), self.to)
                .context("sending")?;
            if self.has_arrived(number) == arrives {
                return Ok(sent);
            }
            ensure!(sent < GIVE_UP, "the edit is not enforced");
        }
    }

    fn has_arrived(&self, number: u64) -> bool {
        let mut bytes = [0; 8];
        while self.at.recv(&mut bytes).is_ok() {
            if u64::from_ne_bytes(bytes) == number {
                return true;
            }
        }
        false
    }
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

/// Resident megabytes of a process.
fn resident(pid: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes: f64 = line
        .and_then(|rest| rest.split_whitespace().next())
        .context("no VmRSS")?
        .parse()?;
    Ok(kilobytes / 1024.0)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
