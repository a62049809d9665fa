//! YAML in, state out: each folder of `tests/golden` holds resources as a user writes them and the
//! state that they are compiled into. `UPDATE_GOLDEN=1` writes the states anew.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod model;
mod scene;

use std::{collections::BTreeMap, fmt::Write as _, fs, net::IpAddr, path::Path};

use headgate_compile::{
    compilation::{PeerSummary, ServiceSummary},
    node::{Access, Interface, InterfaceKind, NextHop, NodeFacts, Underlay},
    snapshot::Snapshot,
};
use headgate_crds::{LocalDelivery, parse_cidr};
use headgate_datapath::{
    state::{FailsafePeer, Ifindex},
    tunnel::Tunnel,
};
use serde::Deserialize;
use serde_json::Value;

use scene::{Agent, Enforced, NOW, submitted};

/// The first document of an input: the node.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Node {
    node: Facts,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Facts {
    #[serde(default)]
    labels: BTreeMap<String, String>,
    interfaces: Vec<Card>,
    #[serde(default)]
    failsafe: Vec<String>,
    #[serde(default)]
    addresses: Vec<IpAddr>,
    /// Last byte of the next hop's MAC address, by backend.
    #[serde(default)]
    next_hops: BTreeMap<IpAddr, u8>,
    /// Backends behind an overlay, with the node's own address on the way there.
    #[serde(default)]
    overlays: BTreeMap<IpAddr, Option<IpAddr>>,
    /// Backends on the node itself.
    #[serde(default)]
    here: Vec<IpAddr>,
    /// The MTU of the way, by endpoint.
    #[serde(default)]
    underlays: BTreeMap<IpAddr, u32>,
    /// First hops, by endpoint; the others are on the link.
    #[serde(default)]
    gateways: BTreeMap<IpAddr, IpAddr>,
    #[serde(default)]
    pods_mtu: Option<u32>,
    #[serde(default)]
    vxlan_ports: BTreeMap<u16, String>,
    #[serde(default)]
    stack_in_use: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Card {
    name: String,
    ifindex: u32,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    master: Option<u32>,
    #[serde(default)]
    lower: Option<u32>,
    #[serde(default)]
    default_route: bool,
}

impl Card {
    fn interface(self) -> Interface {
        Interface {
            kind: match self.kind.as_deref() {
                None => InterfaceKind::Other,
                Some("Loopback") => InterfaceKind::Loopback,
                Some("Bond") => InterfaceKind::Bond,
                Some("Bridge") => InterfaceKind::Bridge,
                Some("Vlan") => InterfaceKind::Vlan,
                Some("Veth") => InterfaceKind::Veth,
                Some(other) => panic!("no such kind of interface: {other}"),
            },
            name: self.name,
            ifindex: Ifindex(self.ifindex),
            mtu: 1_500,
            master: self.master.map(Ifindex),
            lower: self.lower.map(Ifindex),
            has_default_route: self.default_route,
        }
    }
}

impl Facts {
    fn node(self) -> NodeFacts {
        let interfaces = self.interfaces.into_iter().map(Card::interface);
        let failsafe = self.failsafe.iter().map(|cidr| {
            let net = parse_cidr(cidr).unwrap();
            FailsafePeer::trusted(net.network(), net.prefix_len())
        });
        NodeFacts {
            name: "node-1".to_owned(),
            labels: self.labels,
            interfaces: interfaces.collect(),
            failsafe: failsafe.collect(),
            addresses: self.addresses.into_iter().collect(),
            next_hops: self
                .next_hops
                .into_iter()
                .map(next_hop)
                .chain(self.overlays.into_iter().map(over))
                .collect(),
            here: self.here.into_iter().collect(),
            no_balancer: None,
            underlays: self
                .underlays
                .into_iter()
                .map(|way| underlay(way, &self.gateways))
                .collect(),
            pods_mtu: self.pods_mtu,
            vxlan_ports: self.vxlan_ports,
            stack_in_use: self.stack_in_use,
        }
    }
}

fn next_hop((address, last): (IpAddr, u8)) -> (IpAddr, NextHop) {
    let hop = NextHop {
        ifindex: Ifindex(2),
        mtu: 1_500,
        reflects: true,
        destination: [2, 0, 0, 0, 0, last],
        source: [2, 0, 0, 0, 0, 0],
        local: Some(match address {
            IpAddr::V4(_) => [10, 0, 0, 200].into(),
            IpAddr::V6(_) => [0xfd00, 0, 0, 0, 0, 0, 0, 200].into(),
        }),
        overlay: false,
    };
    (address, hop)
}

/// By the device 7 of an overlay.
fn over((address, local): (IpAddr, Option<IpAddr>)) -> (IpAddr, NextHop) {
    let hop = NextHop {
        ifindex: Ifindex(7),
        mtu: 1_450,
        destination: [0; 6],
        source: [0; 6],
        local,
        overlay: true,
        ..next_hop((address, 0)).1
    };
    (address, hop)
}

fn underlay(
    (endpoint, mtu): (IpAddr, u32),
    gateways: &BTreeMap<IpAddr, IpAddr>,
) -> (IpAddr, Underlay) {
    let local = match endpoint {
        IpAddr::V4(_) => [192, 0, 2, 1].into(),
        IpAddr::V6(_) => [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into(),
    };
    let local = Some(local);
    let gateway = gateways.get(&endpoint);
    let way = Underlay {
        ifindex: Ifindex(2),
        access: gateway.map_or(Access::OnLink, |gateway| Access::ByGateway(*gateway)),
        local,
        mtu,
    };
    (endpoint, way)
}

/// A snapshot and what it is about: a document `step: WORDS` begins the next one.
struct Step {
    words: String,
    snapshot: Snapshot,
}

/// Documents with the line on which each begins.
fn documents(text: &str) -> impl Iterator<Item = (u32, &str)> {
    text.split("\n---\n").scan(1, |line, document| {
        let start = *line;
        *line += document.lines().count() as u32 + 1;
        Some((start, document))
    })
}

fn read(text: &str) -> (NodeFacts, Vec<Step>) {
    let mut documents = documents(text);
    let (_, first) = documents.next().unwrap();
    let node: Node = serde_saphyr::from_str(first).unwrap();
    let mut steps = Vec::new();
    for (line, document) in documents {
        let value: Value = serde_saphyr::from_str(document).unwrap();
        if let Some(words) = value["step"].as_str() {
            steps.push(Step {
                words: words.to_owned(),
                snapshot: Snapshot::default(),
            });
            continue;
        }
        let step = steps.last_mut().expect("a step before the first resource");
        let resource = submitted(&value, "input.yaml", line);
        step.snapshot.submitted.push(resource);
    }
    (node.node.node(), steps)
}

fn words(value: Option<impl ToString>) -> String {
    value.map_or("none".to_owned(), |value| value.to_string())
}

fn render(enforced: &Enforced) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    let compilation = &enforced.compilation;
    let Some(state) = &compilation.state else {
        return Ok("what is enforced stays\n".to_owned());
    };
    for (port, attachment) in &state.ports {
        writeln!(
            text,
            "{port}: {} (interface {}), {:?}, tables {}",
            attachment.interface,
            attachment.ifindex.0,
            attachment.mode,
            attachment.tables.short()
        )?;
    }
    for tables in &compilation.tables {
        let [sources, destinations, transports] = tables.classes;
        writeln!(
            text,
            "tables {}: {} bytes, {} rules of {}; {sources} classes of sources, {destinations} of destinations, {transports} of transport headers, {} bytes of crossings",
            tables.tables.short(),
            tables.bytes,
            tables.rules,
            tables.policies.join(", "),
            tables.crossings
        )?;
    }
    if state.flows {
        writeln!(text, "a table of flows")?;
    }
    for (ifindex, name) in &state.overlay {
        writeln!(text, "for overlays: {name} (interface {})", ifindex.0)?;
    }
    for peer in &state.failsafe {
        writeln!(text, "never dropped: {peer}")?;
    }
    for policy in &compilation.policies {
        writeln!(
            text,
            "policy {}: generation {}, in effect {}, priority {}, default {}, on {}",
            policy.name,
            policy.generation,
            words(policy.effective),
            policy.priority,
            policy.default_action,
            words((!policy.interfaces.is_empty()).then(|| policy.interfaces.join(" and "))),
        )?;
        for rule in &policy.rules {
            let fresh = match rule.counter {
                Some(counter) if state.fresh_counters.contains(&counter) => ", from zero",
                _ => "",
            };
            writeln!(
                text,
                "  {}: {}, counter {}{fresh}",
                rule.name,
                rule.action,
                words(rule.counter)
            )?;
        }
    }
    for service in &compilation.services {
        render_service(service, &mut text)?;
    }
    for peer in &compilation.peers {
        render_peer(peer, &mut text)?;
    }
    if let Some(tunnel) = &state.tunnel {
        render_tunnel(tunnel, &mut text)?;
    }
    for (network, route) in &state.native_routes {
        writeln!(
            text,
            "route {network} via {} by interface {} from {}",
            route.gateway,
            route.ifindex.0,
            words(route.source)
        )?;
    }
    for finding in &compilation.findings {
        writeln!(text, "finding: {finding}")?;
    }
    Ok(text)
}

fn render_service(service: &ServiceSummary, text: &mut String) -> std::fmt::Result {
    writeln!(
        text,
        "service {}: generation {}, in effect {}, on {}",
        service.name,
        service.generation,
        words(service.effective),
        words((!service.interfaces.is_empty()).then(|| service.interfaces.join(" and "))),
    )?;
    for frontend in &service.frontends {
        let backends = frontend.backends.iter();
        let backends: Vec<_> = backends
            .map(|member| {
                let place = if member.here { " here" } else { "" };
                format!(
                    "{} port {} x{}{place}",
                    member.address, member.port, member.weight
                )
            })
            .collect();
        let settles = frontend.settling.as_ref().and_then(|s| s.settles_at());
        let settling = settles.map_or_else(String::new, |at| {
            let draining = frontend.settling.iter();
            let draining = draining.flat_map(|s| s.draining(frontend.address.is_ipv4()));
            let draining: Vec<_> = draining.map(|address| address.to_string()).collect();
            format!(
                ", settling for {} s, draining {}",
                at.0 - NOW.0,
                words((!draining.is_empty()).then(|| draining.join(", ")))
            )
        });
        writeln!(
            text,
            "  {}: {} {} port {}, by {:?}, ring of {}, counter {}, to {}{settling}",
            frontend.name,
            frontend.address,
            frontend.protocol,
            frontend.port,
            frontend.forwarding,
            frontend.ring_size,
            frontend.counter,
            backends.join(", ")
        )?;
    }
    if let Some(ranges) = &service.source_ranges {
        writeln!(
            text,
            "  only from {}, else counter {}",
            ranges.ranges.join(", "),
            ranges.counter
        )?;
    }
    Ok(())
}

fn render_peer(peer: &PeerSummary, text: &mut String) -> std::fmt::Result {
    let own = if peer.is_own { ", the node itself" } else { "" };
    let direct = match peer.local_delivery {
        LocalDelivery::Stack => "",
        LocalDelivery::Direct => ", to pods directly",
    };
    writeln!(
        text,
        "peer {}: generation {}, in effect {}, {} behind {}, {}, from {}{own}{direct}",
        peer.name,
        peer.generation,
        words(peer.effective),
        peer.networks.join(" and "),
        peer.endpoint,
        match (peer.vni, &peer.mac) {
            (Some(vni), Some(mac)) => format!("VNI {vni}, {mac}"),
            _ => format!("{:?}", peer.mode),
        },
        words(peer.local)
    )
}

fn render_tunnel(tunnel: &Tunnel, text: &mut String) -> std::fmt::Result {
    let device = &tunnel.device;
    writeln!(
        text,
        "tunnel: port {}, MTU {}, {}, tables {}",
        device.port,
        device.mtu,
        device.mac,
        tunnel.tables.short()
    )?;
    for (address, mac) in &tunnel.neighbours {
        writeln!(text, "  neighbour {address} at {mac}")?;
    }
    for (prefix, route) in &tunnel.routes {
        writeln!(
            text,
            "  route {}/{} via {} from {}",
            prefix.address,
            prefix.length,
            route.gateway,
            words(route.source)
        )?;
    }
    Ok(())
}

fn check(name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    let (node, steps) = read(&fs::read_to_string(folder.join("input.yaml")).unwrap());
    let mut agent = Agent::new(node);
    let mut text = String::new();
    for step in &steps {
        let enforced = agent.run(&step.snapshot);
        write!(text, "# {}\n{}\n", step.words, render(&enforced).unwrap()).unwrap();
    }
    let deleted = agent.run(&Snapshot::default());
    write!(text, "# all is deleted\n{}", render(&deleted).unwrap()).unwrap();

    let golden = folder.join("state.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&golden, &text).unwrap();
    }
    let expected = fs::read_to_string(&golden).unwrap_or_default();
    assert!(
        text == expected,
        "{name} compiles to\n{text}\ninstead of\n{expected}\nUPDATE_GOLDEN=1 takes it over"
    );
    let state = deleted.compilation.state.unwrap();
    assert!(state.ports.is_empty() && state.blocks.is_empty());
    assert!(state.tunnel.is_none() && state.native_routes.is_empty());
    assert!(agent.memory.last_good.is_empty());
}

macro_rules! goldens {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                check(&stringify!($name).replace('_', "-"));
            }
        )*

        #[test]
        fn every_folder_is_checked() {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
            let mut found: Vec<_> = fs::read_dir(folder)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            found.sort();
            let mut checked = [$(stringify!($name).replace('_', "-")),*];
            checked.sort();
            assert_eq!(found, checked);
        }
    };
}

goldens! {
    one_drop_rule
    peers
    peers_refused
    peers_native
    peers_direct
    peers_by_the_stack
    pods_mtu
    two_interfaces
    group
    allow_list
    bridge_bond_vlan
    last_good
    services
    services_refused
    source_ranges
    overlay
}
