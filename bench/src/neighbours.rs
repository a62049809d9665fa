//! kube-proxy's way beside ours: the same frames through Nat and through rules as kube-proxy writes them with
//! nftables, each in a node of its own between a sender and the backends' link, in turn.
//!
//! Sender, node and link are namespaces joined by veth pairs, in which a burst is dealt with to its end on the
//! processor that sends it: what sending takes is what all of it takes. The node gets frames as from a driver that
//! has native XDP. Backends' frames go to a link-layer address that nobody has, and end at the far end of their
//! cable, where they are counted.

use std::{
    io::Write as _,
    net::Ipv4Addr,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use headgate_e2e_tests::{
    cable::Cable, lab::arrived, namespace::Namespace, node::Node, wait::wait_for,
};
use serde_json::Value;

use crate::{generator::Generator, kube_proxy, statistics::Median, table::Table};

const SERVICE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const PORT: u16 = 53;
const BACKENDS: u8 = 100;
const TARGET_PORT: u16 = 8080;
const ROUNDS: usize = 101;
/// Frames of a round.
const FRAMES: u32 = 16_384;
/// How many of a hundred must arrive for a round to count.
const LEAST: f64 = 99.0;
/// The first client, 10.0.0.1.
const CLIENTS: u32 = 0x0a00_0001;
/// Clients of new flows, more than are ever sent.
const MANY: u32 = 1 << 23;
/// Nobody's.
const NOBODY: [u8; 6] = [2, 0, 0, 0, 0xff, 0xff];

/// A node between a sender and the link of its backends.
struct Place {
    generator: Generator,
    sender: Namespace,
    ifindex: u32,
    link: Namespace,
    node: Arc<Namespace>,
    cable: Cable,
}

impl Place {
    fn new(name: &str) -> anyhow::Result<Self> {
        let sender = Namespace::new(&format!("{name}-sender"));
        let link = Namespace::new(&format!("{name}-link"));
        let node = Arc::new(Namespace::new(name));
        let cable = Cable::between(&sender, &node, 1);
        let _ends = Cable::between(&link, &node, 2);
        // Else what XDP sends there is lost.
        for (namespace, interface) in [(&link, "eth0"), (&*node, "eth1")] {
            let gro = ["-K", interface, "gro", "on"];
            succeed(namespace.command("ethtool").args(gro))?;
        }
        for setting in ["ip_forward=1", "conf.all.rp_filter=0"] {
            let setting = format!("net.ipv4.{setting}");
            succeed(node.command("sysctl").args(["-qw", &setting]))?;
        }
        node.ip(&format!("route add default via {}", cable.client.v4));
        for backend in backends() {
            node.ip(&format!(
                "neigh add {backend} lladdr {} dev eth2 nud permanent",
                NOBODY.map(|byte| format!("{byte:02x}")).join(":")
            ));
        }
        let links: Value = serde_json::from_str(&sender.ip("-j link show dev eth0"))?;
        let ifindex = links[0]["ifindex"]
            .as_u64()
            .context("an interface has one")?;
        Ok(Self {
            generator: Generator::load()?,
            sender,
            ifindex: ifindex.try_into()?,
            link,
            node,
            cable,
        })
    }

    /// Has it get frames from so many clients, from the `first` on.
    fn prepare(&mut self, to: [u8; 6], first: u32, flows: u32) -> anyhow::Result<()> {
        let mut frame = [0; 60];
        frame[..6].copy_from_slice(&to);
        frame[6..12].copy_from_slice(&self.cable.client.mac);
        frame[12..14].copy_from_slice(&[0x08, 0x00]);
        frame[14..24].copy_from_slice(&[0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17]);
        frame[30..34].copy_from_slice(&SERVICE.octets());
        frame[34..36].copy_from_slice(&40_000_u16.to_be_bytes());
        frame[36..38].copy_from_slice(&PORT.to_be_bytes());
        // Without a checksum of its own, as IPv4 allows.
        frame[38..40].copy_from_slice(&26_u16.to_be_bytes());
        let clients = (CLIENTS + first, flows);
        self.generator.prepare(&frame, clients, self.ifindex)
    }

    /// Nanoseconds that a frame takes, and how many of a hundred arrive at the far end.
    fn send(&self, frames: u32) -> anyhow::Result<(f64, f64)> {
        let before = arrived(&self.link, "eth0");
        let began = Instant::now();
        self.generator.send(&self.sender, frames)?;
        let took = began.elapsed();
        let sent = f64::from(frames);
        let count = (arrived(&self.link, "eth0") - before) as f64;
        Ok((took.as_nanos() as f64 / sent, count / sent * 100.0))
    }
}

/// Adds the rows.
pub fn measure(table: &mut Table) -> anyhow::Result<()> {
    let ours = Place::new("ours")?;
    let _agent = serve(&ours.node)?;
    let mut theirs = Place::new("theirs")?;
    serve_by_nftables(&theirs.node)?;
    theirs.prepare(NOBODY, 0, 1)?;
    let floor = (0..ROUNDS).map(|_| Ok(theirs.send(FRAMES)?.0));
    let mut floor = floor.collect::<anyhow::Result<Vec<f64>>>()?;
    let what = "live frames to nobody: sent, taken in, dropped";
    table.median(what, Median::of(&mut floor), None, "ns");
    let mut places = [ours, theirs];
    for (flows, label) in [
        (1, "1 flow"),
        (1_000, "1,000 flows"),
        (100_000, "100,000 flows"),
    ] {
        for place in &mut places {
            place.prepare(place.cable.node.mac, 0, flows)?;
            // It comes to know the flows.
            let (_, share) = place.send(flows.max(FRAMES))?;
            ensure!(share > LEAST, "{label}: {share:.1}% arrived");
        }
        compare(table, label, &places, |place, _| place.send(FRAMES))?;
    }
    for place in &mut places {
        place.prepare(place.cable.node.mac, 1 << 20, MANY)?;
    }
    compare(table, "all of new flows", &places, |place, index| {
        if index == 1 {
            // Its table would be full after sixteen rounds, and refuse more.
            succeed(place.node.command("conntrack").arg("-F"))?;
        }
        place.send(FRAMES)
    })
}

/// Ours first in one round, theirs in the next. Where the scheduler lets frames wait until a cable's queue is full,
/// they are lost, and what the others took says nothing: such rounds are left out of both, and counted.
fn compare(
    table: &mut Table,
    label: &str,
    places: &[Place; 2],
    send: impl Fn(&Place, usize) -> anyhow::Result<(f64, f64)>,
) -> anyhow::Result<()> {
    let (mut costs, mut ratios) = ([Vec::new(), Vec::new()], Vec::new());
    let mut lossy = [0; 2];
    for round in 0..ROUNDS {
        let (mut took, mut whole) = ([0.0; 2], true);
        for turn in 0..2 {
            let index = (round + turn) % 2;
            let (cost, share) = send(&places[index], index)?;
            took[index] = cost;
            if share < LEAST {
                lossy[index] += 1;
                whole = false;
            }
        }
        if whole {
            ratios.push(took[0] / took[1] * 100.0);
            costs[0].push(took[0]);
            costs[1].push(took[1]);
        }
    }
    ensure!(
        ratios.len() > ROUNDS / 2,
        "{label}: frames were lost in {lossy:?} of {ROUNDS} rounds, ours and theirs"
    );
    let [ours, theirs] = &mut costs;
    let what = |who: &str| format!("  {label}, {who}");
    table.median(&what("Nat"), Median::of(ours), None, "ns");
    table.median(&what("kube-proxy's rules"), Median::of(theirs), None, "ns");
    let ratio = what("Nat's time over theirs, sending included");
    table.median(&ratio, Median::of(&mut ratios), None, "%");
    for (who, count) in ["Nat", "kube-proxy's rules"].into_iter().zip(lossy) {
        let what = what(&format!("{who}: rounds left out for loss"));
        table.figure(&what, f64::from(count), None, "");
    }
    Ok(())
}

fn serve(namespace: &Arc<Namespace>) -> anyhow::Result<Node> {
    let listed: Vec<String> = backends()
        .map(|backend| format!("{{address: {backend}}}"))
        .collect();
    let resources = format!(
        "\
apiVersion: headgate.dev/v1alpha1
kind: AddressPool
metadata: {{name: shop}}
spec: {{cidrs: [{SERVICE}/32], namespaces: [shop]}}
---
apiVersion: headgate.dev/v1alpha1
kind: LoadBalancerService
metadata: {{name: web, namespace: shop}}
spec:
  interfaces: [eth1, eth2]
  addresses: [{SERVICE}]
  ports: [{{name: dns, protocol: UDP, port: {PORT}, targetPort: {TARGET_PORT}}}]
  backends: {{static: [{}]}}
",
        listed.join(", ")
    );
    let mut node = Node::new(namespace);
    node.write("service.yaml", &resources);
    node.start();
    wait_for(Duration::from_secs(20), "the service is enforced", || {
        let listed = node.headgate(&["lb", "list", "-o", "json"]).json();
        listed[0]["state"] == "Enforced"
    });
    Ok(node)
}

fn serve_by_nftables(node: &Namespace) -> anyhow::Result<()> {
    let rules = kube_proxy::rules((SERVICE, PORT), backends(), TARGET_PORT);
    let mut command = node.command("nft");
    command.args(["-f", "-"]).stdin(Stdio::piped());
    let mut nft = command.spawn().context("nft, of the package nftables")?;
    let mut input = nft.stdin.take().context("it reads from a pipe")?;
    input.write_all(rules.as_bytes())?;
    drop(input);
    ensure!(nft.wait()?.success(), "nft refuses kube-proxy's rules");
    Ok(())
}

fn backends() -> impl Iterator<Item = Ipv4Addr> {
    (101..=100 + BACKENDS).map(|host| Ipv4Addr::new(192, 168, 2, host))
}

fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {errors}");
    Ok(())
}
