//! What the programs at the tunnel's device cost a packet, by the number of peers, and how long peers take.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, ensure};
use aya::programs::{SchedClassifier, TcAttachType};
use headgate_compile::tunnel::{RemotePeer, tables};
use headgate_crds::IpNet;
use headgate_datapath::{
    diff::diff,
    failsafe::Prefix,
    kernel::{Kernel as _, carry_out},
    state::DatapathState,
    tunnel::{DEVICE, MacAddress, Neighbours, Routes, Tunnel, TunnelDevice, TunnelRoute},
};
use headgate_kernel::{DEFAULT_BPFFS, Instance, RunningKernel, object_digest};
use headgate_layout::tunnel::Event;

use crate::{driver::Driver, lists::Random, table::Table};

const PORT: u16 = 8472;
/// Of all peers; as in the driver.
const NETWORK: u32 = 7;
/// As in the driver: the peer of 10.A.B.0/24 has the endpoint 172.16.A.B.
const ENDPOINTS: u32 = 0xac10_0000;
/// Packets' addresses, of which each is another.
const KEYS: usize = 1 << 16;

/// A tunnel alone, in this process's network namespace.
struct Joined {
    kernel: RunningKernel,
    has: DatapathState,
}

impl Joined {
    fn new() -> anyhow::Result<Self> {
        let instance = Instance {
            name: format!("bench-tunnel-{}", std::process::id()),
        };
        let kernel = RunningKernel::open(&instance, Path::new(DEFAULT_BPFFS))?;
        let has = DatapathState::default();
        Ok(Self { kernel, has })
    }

    fn converge(&mut self, wanted: DatapathState) -> anyhow::Result<()> {
        let observed = self.kernel.observe()?;
        let plan = diff(&observed, &wanted, object_digest())?;
        for outcome in carry_out(&mut self.kernel, plan, &wanted.blocks) {
            outcome.result.with_context(|| outcome.step.to_string())?;
        }
        self.has = wanted;
        Ok(())
    }

    fn packets(&mut self, event: Event) -> anyhow::Result<u64> {
        let counters = self.kernel.tunnel_counters()?;
        Ok(counters.get(&event).map_or(0, |count| count.packets))
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        if let Err(error) = self.kernel.detach_all() {
            eprintln!("taking the bench's tunnel down: {error}");
        }
    }
}

/// The program at this side of the tunnel's device.
fn program(side: TcAttachType) -> anyhow::Result<u32> {
    let (_, programs) = SchedClassifier::query_tcx(DEVICE, side)?;
    let program = programs
        .first()
        .context("no program at the tunnel's device")?;
    Ok(program.id())
}

fn network(peer: u32) -> IpAddr {
    Ipv4Addr::from_bits(10 << 24 | peer << 8).into()
}

/// A tunnel to so many peers, each with a network of its own.
fn joined(peers: u32) -> anyhow::Result<DatapathState> {
    let remotes = (0..peers).map(|peer| {
        Ok(RemotePeer {
            networks: vec![IpNet::new(network(peer), 24)?],
            endpoint: Ipv4Addr::from_bits(ENDPOINTS | peer).into(),
            local: None,
            vni: NETWORK,
            accepted_vni: NETWORK,
            is_direct: false,
        })
    });
    let remotes = remotes.collect::<anyhow::Result<Vec<_>>>()?;
    let block = tables(&remotes, &[], PORT)?;
    let (mut neighbours, mut routes) = (Neighbours::new(), Routes::new());
    for gateway in (0..peers).map(network) {
        neighbours.insert(gateway, MacAddress([2, 0, 0, 0, 0, 9]));
        let prefix = Prefix {
            address: gateway,
            length: 24,
        };
        let source = None;
        routes.insert(prefix, TunnelRoute { gateway, source });
    }
    let tunnel = Tunnel {
        device: TunnelDevice {
            port: PORT,
            mtu: 1_450,
            mac: MacAddress([2, 0, 0, 0, 0, 1]),
        },
        tables: block.digest(),
        neighbours,
        routes,
        pods: std::collections::BTreeMap::new(),
    };
    Ok(DatapathState {
        tunnel: Some(tunnel),
        blocks: [(block.digest(), block)].into(),
        ..DatapathState::default()
    })
}

/// Addresses of random peers' pods, as the driver writes them.
fn pods(peers: u32) -> Vec<[u64; 2]> {
    let mut random = Random(u64::from(peers));
    let pod = |number: u64| {
        let peer = (number >> 32) as u32 % peers;
        let address = 10 << 24 | peer << 8 | (number as u32 & 0xff);
        [u64::from(u32::from_ne_bytes(address.to_be_bytes())), 0]
    };
    (0..KEYS).map(|_| pod(random.next())).collect()
}

/// Adds the rows.
pub fn measure(table: &mut Table) -> anyhow::Result<()> {
    // The kernel takes no route by way of others while this is down.
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status();
    ensure!(up.is_ok_and(|status| status.success()), "lo is not up");
    let mut node = Joined::new()?;
    node.converge(joined(1)?)?;
    load(&mut node, table)?;
    for peers in [10, 5_000] {
        node.converge(joined(peers)?)?;
        for (side, event, what, target) in [
            (TcAttachType::Egress, Event::Sent, "gives a key", Some(50.0)),
            (
                TcAttachType::Ingress,
                Event::Received,
                "judges the sender",
                None,
            ),
        ] {
            let mut driver = Driver::load_for_tunnel(side == TcAttachType::Ingress)?;
            driver.test(program(side)?)?;
            let keys = driver.sources(&pods(peers))?;
            for (label, hot) in [("one pod", true), ("random pods", false)] {
                let before = node.packets(event)?;
                let cost = driver.cost(keys, hot)?;
                ensure!(node.packets(event)? > before, "no packet was {event:?}");
                let label = format!("{what}, {peers} peers, {label}");
                table.median(&label, cost, target, "ns");
            }
        }
    }
    Ok(())
}

/// From peers to the tunnel as wanted: all but one new, then one less and one more.
fn load(node: &mut Joined, table: &mut Table) -> anyhow::Result<()> {
    let timed = |node: &mut Joined, peers: u32| -> anyhow::Result<f64> {
        let began = Instant::now();
        node.converge(joined(peers)?)?;
        Ok(began.elapsed().as_secs_f64() * 1e3)
    };
    let all = timed(node, 5_000)?;
    let less = timed(node, 4_999)?;
    let more = timed(node, 5_000)?;
    table.figure("5,000 peers loaded", all, Some(200.0), "ms");
    table.figure("  one less", less, Some(100.0), "ms");
    table.figure("  one more", more, Some(100.0), "ms");
    Ok(())
}
