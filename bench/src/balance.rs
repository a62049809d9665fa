//! What the load balancer costs a packet, and how long its tables take.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Instant,
};

use anyhow::ensure;
use headgate_compile::{
    classifier::{self, BlockWriter, RuleList},
    endpoints::Member,
    node::NextHop,
    services::{self, Arrival, Frontend, Rings, UDP},
};
use headgate_crds::Forwarding;
use headgate_datapath::state::{Block, Ifindex};
use headgate_layout::verdict::Action;

use crate::{
    driver::Driver,
    lists::{Family, hosts},
    node::Node,
    statistics::Median,
    table::Table,
};

/// The port that the driver's packets go to.
const PORT: u16 = 12345;
const RING: u32 = 16_381;
/// Flows at a time; targets in nanoseconds, by DirectReturn.
const FLOWS: [(usize, Option<f64>); 4] = [
    (1, Some(40.0)),
    (1_000, None),
    (100_000, None),
    (250_000, Some(60.0)),
];

/// Adds the rows.
pub fn measure(table: &mut Table) -> anyhow::Result<()> {
    let mut node = Node::new()?;
    let (ways, mut rings) = (ways(), Rings::default());
    for (family, name) in [(Family::V4, "IPv4"), (Family::V6, "IPv6")] {
        let mut driver = Driver::load(family)?;
        for (label, services) in [
            ("no services", vec![]),
            (
                "a packet for none of 1,000 services",
                many(family, 1_000, 10, false),
            ),
        ] {
            node.enforce(&block(&services, &ways, &mut rings)?)?;
            driver.test(node.program_id()?)?;
            let keys = driver.sources(&hosts(family, 1_000).keys)?;
            let cost = driver.cost(keys, false)?;
            table.median(&format!("{name}, {label}"), cost, None, "ns");
        }
        node.enforce(&block(&many(family, 1_000, 100, true), &ways, &mut rings)?)?;
        driver.test(node.program_id()?)?;
        for (flows, target) in FLOWS {
            let keys = driver.sources(&hosts(family, flows).keys)?;
            let before = node.packets(0)?;
            let cost = driver.cost(keys, flows == 1)?;
            ensure!(node.packets(0)? > before, "no packet was sent on");
            let label = format!(
                "{name} by DirectReturn, {flows} flows to one of 1,000 services x 100 backends"
            );
            table.median(&label, cost, target, "ns");
        }
    }
    translate(&mut node, table)?;
    neighbour(table)?;
    times(&mut node, table)
}

/// By Nat: UDP without a checksum. Beyond [`headgate_layout::flows::FLOWS`] every packet begins a flow, and
/// takes the place of another.
fn translate(node: &mut Node, table: &mut Table) -> anyhow::Result<()> {
    let (ways, mut rings) = (ways(), Rings::default());
    for (family, name) in [(Family::V4, "IPv4"), (Family::V6, "IPv6")] {
        let mut driver = Driver::load(family)?;
        let mut services = many(family, 1_000, 100, true);
        for service in &mut services {
            service.forwarding = Forwarding::Nat;
        }
        // A table of flows of its own: no flow of the other family is in it.
        node.enforce(&block(&[], &ways, &mut rings)?)?;
        node.translate(&block(&services, &ways, &mut rings)?)?;
        driver.test(node.program_id()?)?;
        for (flows, label, target) in [
            (1, "1 flow", 40.0),
            (1_000, "1,000 flows", 40.0),
            (100_000, "100,000 flows", 170.0),
            (1_000_000, "all packets of new flows", 150.0),
        ] {
            let keys = driver.sources(&hosts(family, flows).keys)?;
            let before = node.packets(0)?;
            let cost = driver.cost(keys, flows == 1)?;
            ensure!(node.packets(0)? > before, "no packet was sent on");
            let label = format!("{name} by Nat, {label}");
            table.median(&label, cost, Some(target), "ns");
        }
    }
    Ok(())
}

/// What a neighbour takes that remembers each flow, as [`crate::driver::Driver::test_neighbour`] says: of 262,144
/// flows; beyond, each packet takes the place of another.
fn neighbour(table: &mut Table) -> anyhow::Result<()> {
    let mut driver = Driver::load(Family::V4)?;
    let addresses: Vec<Ipv4Addr> = (0..1_000)
        .map(|number| Ipv4Addr::from_bits(0x0a00_0001 + number))
        .collect();
    driver.test_neighbour(&addresses, PORT)?;
    for (flows, label) in [
        (1, "1 flow"),
        (1_000, "1,000 flows"),
        (100_000, "100,000 flows"),
        (1_000_000, "all packets of new flows"),
    ] {
        let keys = driver.sources(&hosts(Family::V4, flows).keys)?;
        let before = driver.neighbours_packets()?;
        let cost = driver.cost(keys, flows == 1)?;
        ensure!(
            driver.neighbours_packets()? > before,
            "no packet was sent on"
        );
        table.median(
            &format!("an LRU hash of flows instead, {label}"),
            cost,
            None,
            "ns",
        );
    }
    Ok(())
}

/// From services to tables in force: all new, and after one backend's change.
fn times(node: &mut Node, table: &mut Table) -> anyhow::Result<()> {
    let mut services = many(Family::V4, 1_000, 100, true);
    let (ways, mut rings) = (ways(), Rings::default());
    let began = Instant::now();
    let first = block(&services, &ways, &mut rings)?;
    let compiled = began.elapsed();
    let live = node.enforce(&first)? - began;
    table.figure(
        "compile 1,000 services x 100 backends",
        compiled.as_secs_f64() * 1e3,
        None,
        "ms",
    );
    table.figure("  and live", live.as_secs_f64() * 1e3, Some(1_000.0), "ms");
    table.figure(
        "  their tables",
        f64::from(first.length_with_ring_blocks()) / f64::from(1 << 20),
        None,
        "MiB",
    );
    let mut changes = Vec::new();
    for service in (0..1_000).step_by(32) {
        services[service].backends.pop();
        let began = Instant::now();
        let live = node.enforce(&block(&services, &ways, &mut rings)?)?;
        changes.push((live - began).as_secs_f64() * 1e3);
    }
    table.median(
        "  one backend less, compiled anew and live",
        Median::of(&mut changes),
        Some(50.0),
        "ms",
    );
    Ok(())
}

fn block(
    services: &[Frontend],
    ways: &BTreeMap<IpAddr, NextHop>,
    rings: &mut Rings,
) -> anyhow::Result<Block> {
    let list = RuleList {
        rules: Vec::new(),
        default: Action::Allow,
    };
    let mut writer = BlockWriter::new();
    classifier::write(&list, &mut writer)?;
    let arrival = Arrival {
        mtu: 1_500,
        reflects: true,
    };
    services::write(services, arrival, ways, rings, &mut writer)?;
    Ok(writer.finish()?)
}

/// Services at different addresses; the first is the one that the driver's packets go to, if they meet.
fn many(family: Family, count: u16, backends: u16, meets: bool) -> Vec<Frontend> {
    let address = |number: u16| -> IpAddr {
        match family {
            Family::V4 => Ipv4Addr::from_bits(0x0a00_0001 + u32::from(number)).into(),
            Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1 + number).into(),
        }
    };
    let frontends = (0..count).map(|number| Frontend {
        address: address(number),
        protocol: UDP,
        port: if meets { PORT } else { PORT + 1 },
        counter: u32::from(number),
        forwarding: Forwarding::DirectReturn,
        rejects: false,
        ring_size: RING,
        // Each service has another hundred of them.
        backends: (0..backends)
            .map(|backend| Member {
                address: backend_address(number.wrapping_mul(7).wrapping_add(backend)),
                port: PORT,
                weight: 1,
                here: false,
            })
            .collect(),
        history: None,
    });
    frontends.collect()
}

fn backend_address(number: u16) -> IpAddr {
    Ipv4Addr::from_bits(0xc0a8_0000 | u32::from(number)).into()
}

fn ways() -> BTreeMap<IpAddr, NextHop> {
    let way = |number: u16| {
        let [high, low] = number.to_be_bytes();
        let hop = NextHop {
            ifindex: Ifindex(1),
            mtu: 65_535,
            reflects: true,
            destination: [2, 0, 0, 0, high, low],
            source: [2, 0, 0, 0, 0, 0],
            local: Some(Ipv4Addr::new(192, 0, 2, 1).into()),
            overlay: false,
        };
        (backend_address(number), hop)
    };
    (0..=u16::MAX).map(way).collect()
}
