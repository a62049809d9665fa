//! Prints how long it takes to compile large policies, and what comes out:
//! `cargo run --release -p headgate-compile --example compile_timing`.
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use headgate_compile::{
    addresses::AddressSet,
    compile,
    memory::{Memory, Seconds},
    node::{Interface, InterfaceKind, NodeFacts},
    snapshot::{Content, Group, ResourceName, Snapshot, Submitted},
};
use headgate_crds::{IpNet, Kind, XdpPolicySpec};
use headgate_datapath::state::{Digest, Ifindex};
use serde_json::{Value, json};

const GROUPS: usize = 20;
const CIDRS: usize = 5_000;
const ROUNDS: usize = 7;

fn main() {
    println!(
        "{:<34} {:>9} {:>9} {:>10} {:>22}",
        "what", "fastest", "median", "bytes", "classes s, d, t"
    );
    for family in [Family::V4, Family::V6] {
        let groups = groups(family);
        let name = |what: &str| format!("{family:?} {what}");
        time(&name("one rule per group"), &groups, &[block_lists()]);
        time(
            &name("and 480 rules on ports"),
            &groups,
            &[block_lists(), services(240), services(240)],
        );
        time(
            &name("500 rules on group and port"),
            &groups,
            &[crossed(250), crossed(250)],
        );
    }
}

#[derive(Clone, Copy, Debug)]
enum Family {
    V4,
    V6,
}

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn groups(family: Family) -> Vec<Submitted> {
    let mut numbers = Numbers(1);
    let mut network = || match family {
        Family::V4 => {
            let address = Ipv4Addr::from_bits(numbers.next() as u32);
            IpNet::new(address.into(), 20 + (numbers.next() % 13) as u8)
        }
        Family::V6 => {
            let bits = u128::from(numbers.next() >> 3 | 1 << 61) << 64 | u128::from(numbers.next());
            IpNet::new(
                Ipv6Addr::from_bits(bits).into(),
                32 + (numbers.next() % 97) as u8,
            )
        }
    };
    let groups = (0..GROUPS).map(|index| {
        let networks: Vec<IpNet> = (0..CIDRS)
            .map(|_| network().expect("a valid length"))
            .collect();
        let group = Group {
            labels: Default::default(),
            addresses: AddressSet::from_networks(networks),
        };
        let name = ResourceName::new(Kind::CidrGroup, format!("group-{index}"));
        submitted(name, Content::Group(Arc::new(group)))
    });
    groups.collect()
}

fn submitted(name: ResourceName, content: Content) -> Submitted {
    Submitted {
        uid: name.to_string(),
        written: Digest::of(name.to_string().as_bytes()),
        name,
        generation: None,
        list: "policies.yaml".to_owned(),
        line: Some(1),
        content: Ok(content),
        warnings: Vec::new(),
    }
}

fn from_group(index: usize) -> Value {
    json!({"cidrGroups": {"names": [format!("group-{}", index % GROUPS)]}})
}

/// A rule for each group.
fn block_lists() -> Vec<Value> {
    let rules = (0..GROUPS).map(|index| {
        json!({"name": format!("block-{index}"), "action": "Drop", "from": from_group(index)})
    });
    rules.collect()
}

/// Rules on destinations and ports.
fn services(count: usize) -> Vec<Value> {
    let rules = (0..count).map(|index| {
        let port = 1000 + index;
        json!({
            "name": format!("service-{index}"), "action": "Allow",
            "to": {"cidrs": [format!("192.0.2.{}/32", index % 16), format!("2001:db8::{}/128", index % 16)]},
            "protocols": [{"tcp": {"ports": [{"port": port, "endPort": port + 3}]}}, {"udp": {"ports": [{"port": port}]}}],
        })
    });
    rules.collect()
}

/// Rules on a group and a port each.
fn crossed(count: usize) -> Vec<Value> {
    let rules = (0..count).map(|index| {
        json!({
            "name": format!("crossed-{index}"), "action": "Drop", "from": from_group(index),
            "protocols": [{"tcp": {"ports": [{"port": 1000 + index}]}}],
        })
    });
    rules.collect()
}

fn time(what: &str, groups: &[Submitted], policies: &[Vec<Value>]) {
    let mut snapshot = Snapshot {
        submitted: groups.to_vec(),
        unreadable: Vec::new(),
        endpoints: None,
    };
    for (index, rules) in policies.iter().enumerate() {
        let spec = json!({"interfaces": ["eth0"], "rules": rules});
        let spec: XdpPolicySpec = serde_json::from_value(spec).expect("a policy");
        let name = ResourceName::new(Kind::XdpPolicy, format!("policy-{index}"));
        let content = Content::Policy(Arc::new(spec));
        snapshot.submitted.push(submitted(name, content));
    }
    let node = node();
    let mut times: Vec<Duration> = Vec::new();
    let mut last = None;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let compilation = compile(&snapshot, &node, &Memory::default(), Seconds(0));
        times.push(start.elapsed());
        last = Some(compilation);
    }
    times.sort();
    let compilation = last.expect("there are rounds");
    let (bytes, classes) = match compilation.tables.as_slice() {
        [tables] => (tables.bytes, tables.classes),
        _ => panic!("{:?}", compilation.findings),
    };
    println!(
        "{what:<34} {:>6.1} ms {:>6.1} ms {bytes:>10} {:>22}",
        times[0].as_secs_f64() * 1e3,
        times[ROUNDS / 2].as_secs_f64() * 1e3,
        format!("{classes:?}"),
    );
}

fn node() -> NodeFacts {
    let card = Interface {
        name: "eth0".to_owned(),
        ifindex: Ifindex(2),
        kind: InterfaceKind::Other,
        mtu: 1_500,
        master: None,
        lower: None,
        has_default_route: true,
    };
    NodeFacts {
        interfaces: vec![card],
        ..NodeFacts::default()
    }
}
