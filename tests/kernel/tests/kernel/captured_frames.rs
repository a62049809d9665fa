//! Captured frames, and random mutations of them, meet the same verdict in the kernel and on the
//! host, and are counted alike.

use std::collections::BTreeMap;

use headgate_kernel_tests::trials::in_kernel;
use headgate_layout::verdict::{Count, Reason};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{
    captures,
    compiled::{Compiled, returned},
};

/// What PROG_TEST_RUN takes at least.
const SHORTEST: usize = 14;
/// It takes 17 fragments of a page; a few captures hold frames that no device carries.
const LONGEST: usize = 1 << 16;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        in_kernel("captures_meet_one_verdict_in_kernel_and_on_host", replay),
        in_kernel(
            "mutations_of_captures_meet_one_verdict_in_kernel_and_on_host",
            mutate,
        ),
    ]
}

fn replay() {
    let Some(captures) = captures::ethernet("captures_meet_one_verdict_in_kernel_and_on_host")
    else {
        return;
    };
    let mut comparison = Comparison::new();
    for capture in &captures {
        for frame in &capture.frames {
            comparison.add(frame, &capture.name);
        }
    }
    comparison.assert_agreement("captured", 8_000);
}

fn mutate() {
    let name = "mutations_of_captures_meet_one_verdict_in_kernel_and_on_host";
    let Some(captures) = captures::ethernet(name) else {
        return;
    };
    let mut numbers = Numbers(7);
    let mut comparison = Comparison::new();
    for capture in &captures {
        for frame in capture.frames.iter().take(40) {
            let mutations = if frame.len() > SHORTEST { 16 } else { 0 };
            for _ in 0..mutations {
                comparison.add(&mutation(frame, &mut numbers), &capture.name);
            }
        }
    }
    comparison.assert_agreement("mutated", 50_000);
}

/// Up to three bytes of the headers changed, and one frame in four cut short.
fn mutation(frame: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let headers = frame.len().min(110);
    for _ in 0..=numbers.below(3) {
        frame[12 + numbers.below(headers - 12)] = numbers.below(256) as u8;
    }
    if numbers.below(4) == 0 {
        frame.truncate(SHORTEST + numbers.below(headers - SHORTEST + 1));
    }
    frame
}

/// Rules that tell apart as much as rules can, so that a frame read wrongly is counted elsewhere.
fn policy() -> Value {
    let rule = |name: &str, action: &str, fields: Value| {
        let mut rule = json!({"name": name, "action": action});
        for (field, value) in fields.as_object().expect("fields") {
            rule[field] = value.clone();
        }
        rule
    };
    json!({
        "apiVersion": "headgate.dev/v1alpha1",
        "kind": "XdpPolicy",
        "metadata": {"name": "everything"},
        "spec": {"interfaces": ["v0"], "defaultAction": "Drop", "rules": [
            rule("first-fragments", "Allow", json!({"fragments": "First"})),
            rule("later-udp-fragments", "Drop",
                json!({"protocols": [{"number": 17}], "fragments": "Later"})),
            rule("later-fragments", "Allow", json!({"fragments": "Later"})),
            rule("some-hosts", "Drop", json!({
                "from": {"cidrs": ["10.0.0.0/8", "2001::/16"], "except": ["10.0.0.0/9"]},
                "protocols": [{"tcp": {}}, {"udp": {}}, {"number": 89}]})),
            rule("syn", "Allow", json!({"protocols": [{"tcp": {"flags": {"set": ["Syn"], "unset": ["Ack"]}}}]})),
            rule("web", "Drop", json!({"protocols": [{"tcp": {"ports": [{"port": 80}, {"port": 443}]}}]})),
            rule("web-replies", "Allow",
                json!({"protocols": [{"tcp": {"sourcePorts": [{"port": 80}], "established": true}}]})),
            rule("established", "Drop", json!({"protocols": [{"tcp": {"established": true}}]})),
            rule("to-multicast", "Allow", json!({"to": {"cidrs": ["224.0.0.0/4", "ff00::/8"]}})),
            rule("dns", "Drop", json!({"protocols": [{"udp": {"ports": [{"port": 53}]}}]})),
            rule("udp-services", "Allow",
                json!({"protocols": [{"udp": {"ports": [{"port": 1, "endPort": 1023}]}}]})),
            rule("udp", "Drop", json!({"protocols": [{"udp": {}}]})),
            rule("ping", "Allow", json!({"protocols": [{"icmp": {"types": [0, 8]}}, {"icmpv6": {"types": [128]}}]})),
            rule("icmp", "Drop", json!({"protocols": [{"icmp": {}}, {"icmpv6": {}}]})),
            rule("sctp", "Allow", json!({"protocols": [{"sctp": {}}]})),
            rule("tunnels", "Drop", json!({"protocols": [{"number": 4}, {"number": 41}, {"number": 47}]})),
            rule("ipsec", "Allow", json!({"protocols": [{"number": 50}, {"number": 51}]})),
            rule("routing", "Allow", json!({"protocols": [{"number": 2}, {"number": 88}, {"number": 89}, {"number": 103}]})),
        ]},
    })
}

struct Comparison {
    compiled: Compiled,
    on_host: BTreeMap<String, Count>,
    out_of_range: usize,
}

impl Comparison {
    fn new() -> Self {
        Self {
            compiled: Compiled::new(&[policy()]),
            on_host: BTreeMap::new(),
            out_of_range: 0,
        }
    }

    fn add(&mut self, frame: &[u8], capture: &str) {
        if !(SHORTEST..=LONGEST).contains(&frame.len()) {
            self.out_of_range += 1;
            return;
        }
        let host = self.compiled.on_host(frame);
        let cause = self.compiled.name(host.cause);
        let bytes: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            self.compiled.in_kernel(frame),
            returned(host.action),
            "{capture}: the host says {cause}: {bytes}"
        );
        let count = self.on_host.entry(cause).or_default();
        count.packets += 1;
        count.bytes += u64::from(host.length);
    }

    fn assert_agreement(&self, what: &str, at_least: u64) {
        let frames: u64 = self.on_host.values().map(|count| count.packets).sum();
        println!(
            "compared {frames} {what} frames, {} are too short or too long for a test run",
            self.out_of_range
        );
        for (cause, count) in &self.on_host {
            println!("  {cause}: {} frames", count.packets);
        }
        let mut in_kernel = self.compiled.counted();
        let mut on_host = self.on_host.clone();
        for reason in Reason::ALL {
            // A frame without an IP packet counts with its first buffer, which the host has no idea of.
            let is_of_ip = matches!(
                reason,
                Reason::DefaultAllow | Reason::DefaultDrop | Reason::Failsafe
            );
            for counts in [&mut in_kernel, &mut on_host] {
                if let (false, Some(count)) = (is_of_ip, counts.get_mut(reason.name())) {
                    count.bytes = 0;
                }
            }
        }
        assert_eq!(in_kernel, on_host);
        assert!(frames >= at_least, "the data are not what they were");
        assert!(self.on_host.len() >= 20, "too few rules tell frames apart");
    }
}

/// Numbers that look random and are the same in every run (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 32) as usize % end
    }
}
