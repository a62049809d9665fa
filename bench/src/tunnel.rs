//! Pods of two hosts through the tunnel, beside the same through plain VXLAN devices of the kernel with
//! routes: the time that the one takes of the other's, in turn.

use std::{
    net::{IpAddr, Ipv4Addr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use headgate_e2e_tests::{
    node::{Node as Joined, SOON},
    paths::example,
    tunnel::{DIRECT, EXAMPLE, Host, POD_PORT, Underlay, ask_for_much, connect, count},
    wait::wait_for,
};
use headgate_kernel_tests::{
    network::ip,
    node::Node,
    tunnel::{PORT, tunnel},
};

use crate::{compare::compare, statistics::Median, table::Table};

/// Peers of a large tunnel.
const MANY: u32 = 5_000;
/// Of which so many are removed, one after the other.
const CHANGES: u32 = 31;
/// Answers of 4 MiB in one round.
const ANSWERS: usize = 32;
/// Questions of 64 bytes in one round.
const QUESTIONS: usize = 4_000;
/// What is a twentieth slower than the other takes so much of its time, in percent.
const AIM: f64 = 100.0 / 0.95;

/// Two hosts, and what keeps them joined.
struct Pair {
    hosts: [Host; 2],
    nodes: Vec<Joined>,
    _link: Underlay,
}

/// What joins two hosts.
#[derive(Clone, Copy)]
enum By {
    /// Headgate, with so many peers more.
    Us(u32),
    /// Headgate, to pods past the stacks of both.
    UsDirectly,
    /// A VXLAN device each, with routes.
    PlainDevices,
}

impl Pair {
    fn joined(by: By) -> Self {
        let link = Underlay::new();
        let hosts = [1, 2].map(|number| Host::on(&link, number));
        let mut nodes = Vec::new();
        match by {
            By::Us(more) => {
                let peers = example(EXAMPLE) + &others(more);
                for host in &hosts {
                    host.namespace.ip("route add 172.16.0.0/12 dev eth0");
                    nodes.push(host.node(&peers));
                }
            }
            By::UsDirectly => {
                nodes.extend(hosts.iter().map(|host| host.node(&example(DIRECT))));
            }
            By::PlainDevices => {
                hosts[0].join_plainly(&hosts[1], 7);
                hosts[1].join_plainly(&hosts[0], 7);
            }
        }
        Self {
            hosts,
            nodes,
            _link: link,
        }
    }

    /// From the first packets on it is known where pods are.
    fn await_direct_delivery(&self) {
        for node in &self.nodes {
            wait_for(SOON, "pods get packets directly", || {
                let is_asked = self.questions().is_ok();
                is_asked && count(node, "Delivered") > 0
            });
        }
    }

    fn far(&self) -> IpAddr {
        self.hosts[1].pod_addresses()[0]
    }

    fn stream(&self) -> anyhow::Result<Duration> {
        let mut stream = connect(&self.hosts[0].pod, self.far())?;
        let started = Instant::now();
        for _ in 0..ANSWERS {
            ask_for_much(&mut stream, 2);
        }
        Ok(started.elapsed())
    }

    fn questions(&self) -> anyhow::Result<Duration> {
        let socket = self.hosts[0].pod.enter(|| UdpSocket::bind("0.0.0.0:0"))?;
        socket.connect((self.far(), POD_PORT))?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        let started = Instant::now();
        for _ in 0..QUESTIONS {
            socket.send(&[0; 64])?;
            socket.recv(&mut [0; 64]).context("an answer is lost")?;
        }
        Ok(started.elapsed())
    }
}

/// So many peers that nothing is sent to.
fn others(count: u32) -> String {
    let peers = (0..count).map(|number| {
        let network = Ipv4Addr::from_bits(100 << 24 | 64 << 16 | number << 8);
        let endpoint = Ipv4Addr::from_bits(172 << 24 | 16 << 16 | number);
        format!(
            "---\napiVersion: headgate.dev/v1alpha1\nkind: TunnelPeer\nmetadata: {{name: other-{number}}}\nspec: {{podCIDRs: [{network}/24], endpoint: {endpoint}, vni: 7}}\n"
        )
    });
    peers.collect()
}

/// Adds the rows.
pub fn measure(table: &mut Table) -> anyhow::Result<()> {
    load(table)?;
    let (ours, plain) = (Pair::joined(By::Us(0)), Pair::joined(By::PlainDevices));
    let stream = "TCP through the tunnel, time over plain VXLAN devices'";
    let questions = "64 bytes by UDP and back, the same";
    let aim = Some(AIM);
    compare(table, stream, aim, || ours.stream(), || plain.stream())?;
    compare(
        table,
        questions,
        aim,
        || ours.questions(),
        || plain.questions(),
    )?;
    let direct = Pair::joined(By::UsDirectly);
    direct.await_direct_delivery();
    let stream = "TCP, with localDelivery: Direct over plain VXLAN devices'";
    let questions = "64 bytes by UDP and back, the same";
    let aim = Some(100.0);
    compare(table, stream, aim, || direct.stream(), || plain.stream())?;
    compare(
        table,
        questions,
        aim,
        || direct.questions(),
        || plain.questions(),
    )?;
    drop((plain, direct));
    let aim = Some(AIM);
    let many = Pair::joined(By::Us(MANY));
    let questions = "64 bytes by UDP and back, with 5,000 peers over with 3";
    compare(
        table,
        questions,
        aim,
        || many.questions(),
        || ours.questions(),
    )
}

/// How long 5,000 peers take to be in force, where there was one, and one of them to be gone.
fn load(table: &mut Table) -> anyhow::Result<()> {
    // Where it is down, the kernel knows no gateways.
    ip("link set lo up");
    let mut node = Node::new();
    node.converge(&tunnel(1, PORT));
    let started = Instant::now();
    node.converge(&tunnel(MANY, PORT));
    let loaded = started.elapsed().as_secs_f64() * 1e3;
    table.figure(
        "5,000 peers loaded and read back",
        loaded,
        Some(200.0),
        "ms",
    );
    let mut changes = Vec::new();
    for peers in (MANY - CHANGES..MANY).rev() {
        let started = Instant::now();
        node.converge(&tunnel(peers, PORT));
        changes.push(started.elapsed().as_secs_f64() * 1e3);
    }
    let change = Median::of(&mut changes);
    table.median(
        "one of 5,000 peers removed and read back",
        change,
        Some(100.0),
        "ms",
    );
    Ok(())
}
