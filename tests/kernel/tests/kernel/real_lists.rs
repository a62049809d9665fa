//! Real lists of addresses as CidrGroups: packets from inside and outside of them meet the verdict
//! that a naive model expects.

use std::{
    collections::HashMap,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use headgate_kernel_tests::{
    frames::{XDP_DROP, XDP_PASS, udp4, udp6},
    trials::in_kernel,
};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{captures, compiled::Compiled};

/// What a CidrGroup holds at most.
const GROUP: usize = 5_000;
/// Countries whose packets are dropped unless their source is on the list; all others pass.
const DROPPED: [&str; 8] = ["br", "cn", "de", "in", "nl", "ru", "us", "vn"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![in_kernel(
        "real_lists_decide_as_a_naive_model_does",
        real_lists,
    )]
}

fn real_lists() {
    let Some(data) = captures::data("real_lists_decide_as_a_naive_model_does") else {
        return;
    };
    let lists = Lists::read(&data);
    let compiled = Compiled::new(&lists.objects());
    let mut outcomes = HashMap::<(bool, u32), usize>::new();
    for probe in lists.probes() {
        let expected = match lists.drops(probe) {
            true => XDP_DROP,
            false => XDP_PASS,
        };
        let frame = match probe {
            IpAddr::V4(source) => udp4(source),
            IpAddr::V6(source) => udp6(source),
        };
        assert_eq!(compiled.in_kernel(&frame), expected, "from {probe}");
        *outcomes.entry((probe.is_ipv4(), expected)).or_default() += 1;
    }
    for ((is_ipv4, verdict), count) in &outcomes {
        let family = if *is_ipv4 { "IPv4" } else { "IPv6" };
        println!("compared {count} {family} packets whose verdict is {verdict}");
        assert!(*count > 5_000, "too few packets of one outcome");
    }
    assert_eq!(outcomes.len(), 4);
}

/// The lists, in the form of a naive look-up: a table of whole prefixes for each length.
struct Lists {
    attackers: Vec<Ipv4Addr>,
    countries: Vec<(IpAddr, u8, String)>,
    is_attacker: HashMap<IpAddr, ()>,
    country_of: HashMap<(IpAddr, u8), bool>,
}

impl Lists {
    fn read(data: &Path) -> Self {
        let attackers: Vec<Ipv4Addr> = text(&data.join("ipsum.txt.xz"))
            .lines()
            .map(|line| line.parse().expect("an address"))
            .collect();
        let mut countries = Vec::new();
        for file in ["country-v4.txt.xz", "country-v6.txt.xz"] {
            for line in text(&data.join(file)).lines() {
                let (prefix, country) = line.split_once(' ').expect("prefix and country");
                let (address, length) = prefix.split_once('/').expect("a prefix");
                let address: IpAddr = address.parse().expect("an address");
                let length = length.parse().expect("a length");
                countries.push((address, length, country.to_owned()));
            }
        }
        assert!(attackers.len() > 120_000 && countries.len() > 240_000);
        let mut country_of = HashMap::new();
        for (address, length, country) in &countries {
            // A prefix of two countries is dropped if one of them is.
            let drops = country_of.entry((*address, *length)).or_default();
            *drops |= DROPPED.contains(&country.as_str());
        }
        Self {
            is_attacker: attackers.iter().map(|a| (IpAddr::V4(*a), ())).collect(),
            attackers,
            countries,
            country_of,
        }
    }

    /// The list as labelled groups, a country's prefixes likewise, and the policy.
    fn objects(&self) -> Vec<Value> {
        let mut lists: Vec<(String, Vec<String>)> = Vec::new();
        let attackers = self.attackers.iter().map(|a| format!("{a}/32"));
        lists.push(("attackers".to_owned(), attackers.collect()));
        for country in DROPPED {
            let prefixes = self.countries.iter().filter(|(_, _, c)| c == country);
            let prefixes = prefixes.map(|(address, length, _)| format!("{address}/{length}"));
            lists.push((country.to_owned(), prefixes.collect()));
        }
        let mut objects: Vec<Value> = lists.iter().flat_map(groups).collect();
        let drop_country =
            |country: &&str| json!({"name": country, "action": "Drop", "from": selecting(country)});
        let mut rules = vec![json!({
            "name": "attackers", "action": "Allow", "from": selecting("attackers"),
        })];
        rules.extend(DROPPED.iter().map(drop_country));
        objects.push(json!({
            "apiVersion": "headgate.dev/v1alpha1",
            "kind": "XdpPolicy",
            "metadata": {"name": "lists"},
            "spec": {"interfaces": ["v0"], "rules": rules},
        }));
        objects
    }

    /// Every listed address, neighbours of some; of prefixes the first and last address and those
    /// beside.
    fn probes(&self) -> Vec<IpAddr> {
        let mut probes: Vec<IpAddr> = self.attackers.iter().map(|a| IpAddr::V4(*a)).collect();
        for address in self.attackers.iter().step_by(5) {
            let bits = address.to_bits();
            probes.push(Ipv4Addr::from_bits(bits.wrapping_add(1)).into());
            probes.push(Ipv4Addr::from_bits(bits.wrapping_sub(1)).into());
        }
        for (address, length, _) in self.countries.iter().step_by(5) {
            match address {
                IpAddr::V4(address) => {
                    let first = address.to_bits();
                    let last = first | (u32::MAX.checked_shr((*length).into()).unwrap_or(0));
                    let probe = |bits| IpAddr::V4(Ipv4Addr::from_bits(bits));
                    let edges = [first, last, first.wrapping_sub(1), last.wrapping_add(1)];
                    probes.extend(edges.map(probe));
                }
                IpAddr::V6(address) => {
                    let first = address.to_bits();
                    let last = first | (u128::MAX.checked_shr((*length).into()).unwrap_or(0));
                    let probe = |bits| IpAddr::V6(Ipv6Addr::from_bits(bits));
                    let edges = [first, last, first.wrapping_sub(1), last.wrapping_add(1)];
                    probes.extend(edges.map(probe));
                }
            }
        }
        probes
    }

    fn drops(&self, source: IpAddr) -> bool {
        if self.is_attacker.contains_key(&source) {
            return false;
        }
        let within = |length: u8| -> IpAddr {
            match source {
                IpAddr::V4(a) => {
                    let mask = !u32::MAX.checked_shr(length.into()).unwrap_or(0);
                    Ipv4Addr::from_bits(a.to_bits() & mask).into()
                }
                IpAddr::V6(a) => {
                    let mask = !u128::MAX.checked_shr(length.into()).unwrap_or(0);
                    Ipv6Addr::from_bits(a.to_bits() & mask).into()
                }
            }
        };
        let longest = if source.is_ipv4() { 32 } else { 128 };
        (0..=longest).any(|length| self.country_of.get(&(within(length), length)) == Some(&true))
    }
}

fn selecting(list: &str) -> Value {
    json!({"cidrGroups": {"selector": {"matchLabels": {"list": list}}}})
}

fn groups((list, cidrs): &(String, Vec<String>)) -> Vec<Value> {
    let group = |(index, cidrs): (usize, &[String])| {
        json!({
            "apiVersion": "headgate.dev/v1alpha1",
            "kind": "CidrGroup",
            "metadata": {"name": format!("{list}-{index}"), "labels": {"list": list}},
            "spec": {"cidrs": cidrs},
        })
    };
    cidrs.chunks(GROUP).enumerate().map(group).collect()
}

fn text(path: &Path) -> String {
    let packed = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut text = Vec::new();
    lzma_rs::xz_decompress(&mut &packed[..], &mut text).expect("xz");
    String::from_utf8(text).expect("text")
}
