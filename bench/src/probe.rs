//! When a node begins or ends to drop, and what its agent weighs.

use std::{
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use headgate_e2e_tests::namespace::Namespace;

/// A datagram that has not arrived by then was dropped.
const LOST: Duration = Duration::from_millis(2);
const GIVE_UP: Duration = Duration::from_secs(10);

/// One datagram at a time, from a client to a node.
pub struct Probe {
    from: UdpSocket,
    to: SocketAddr,
    at: UdpSocket,
}

impl Probe {
    /// From a client's namespace and address to a node's.
    pub fn new(from: (&Namespace, IpAddr), to: (&Namespace, SocketAddr)) -> anyhow::Result<Self> {
        let (namespace, address) = from;
        let from = namespace.enter(|| UdpSocket::bind(SocketAddr::new(address, 0)))?;
        let (namespace, to) = to;
        let at = namespace.enter(|| UdpSocket::bind(to))?;
        at.set_read_timeout(Some(LOST))?;
        Ok(Self { from, to, at })
    }

    /// Time from `since` to the sending of the first datagram that arrives, or does not.
    pub fn first(&self, since: Instant, arrives: bool) -> anyhow::Result<Duration> {
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

/// Resident megabytes of a process.
pub fn resident(pid: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes: f64 = line
        .and_then(|rest| rest.split_whitespace().next())
        .context("no VmRSS")?
        .parse()?;
    Ok(kilobytes / 1024.0)
}

/// For people.
pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
