//! Pods of two hosts through the tunnel, beside the same through plain VXLAN devices of the kernel with
//! routes: the time that the one takes of the other's, in turn.

use std::{
    net::{IpAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use headgate_e2e_tests::{
    node::Node,
    paths::example,
    tunnel::{EXAMPLE, Host, POD_PORT, Underlay, ask_for_much, connect},
};

use crate::{statistics::Median, table::Table};

const ROUNDS: usize = 41;
/// Answers of 4 MiB in one round.
const ANSWERS: usize = 32;
/// Questions of 64 bytes in one round.
const QUESTIONS: usize = 4_000;
/// What is a twentieth slower than the other takes so much of its time, in percent.
const AIM: f64 = 100.0 / 0.95;

/// Two hosts, and what keeps them joined.
struct Pair {
    hosts: [Host; 2],
    _nodes: Vec<Node>,
    _link: Underlay,
}

impl Pair {
    fn joined(by_us: bool) -> Self {
        let link = Underlay::new();
        let hosts = [1, 2].map(|number| Host::on(&link, number));
        let mut nodes = Vec::new();
        if by_us {
            nodes.extend(hosts.iter().map(|host| host.node(&example(EXAMPLE))));
        } else {
            hosts[0].join_plainly(&hosts[1], 7);
            hosts[1].join_plainly(&hosts[0], 7);
        }
        Self {
            hosts,
            _nodes: nodes,
            _link: link,
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

/// Adds the rows.
pub fn measure(table: &mut Table) -> anyhow::Result<()> {
    let (ours, plain) = (Pair::joined(true), Pair::joined(false));
    let stream = "TCP through the tunnel, time over plain VXLAN devices'";
    let questions = "64 bytes by UDP and back, the same";
    compare(table, stream, || ours.stream(), || plain.stream())?;
    compare(table, questions, || ours.questions(), || plain.questions())
}

fn compare(
    table: &mut Table,
    what: &str,
    ours: impl Fn() -> anyhow::Result<Duration>,
    plain: impl Fn() -> anyhow::Result<Duration>,
) -> anyhow::Result<()> {
    ours()?;
    plain()?;
    let mut shares = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS {
        // Whoever comes first has the other's caches.
        let (ours, plain) = if round % 2 == 0 {
            let ours = ours()?;
            (ours, plain()?)
        } else {
            let plain = plain()?;
            (ours()?, plain)
        };
        shares.push(ours.as_secs_f64() / plain.as_secs_f64() * 100.0);
    }
    table.median(what, Median::of(&mut shares), Some(AIM), "%");
    Ok(())
}
