//! How long a large policy set takes from addresses and rules to live.

use std::{sync::Arc, time::Instant};

use headgate_compile::classifier::{self, Rule, RuleList};
use headgate_layout::verdict::Action;

use crate::{
    lists::{Family, hosts, to_port},
    node::Node,
    statistics::Median,
    table::Table,
};

const ADDRESSES: usize = 100_000;
const RULES: usize = 500;
const ROUNDS: usize = 11;

/// Adds the rows.
pub fn measure(table: &mut Table) -> anyhow::Result<()> {
    for (family, name) in [(Family::V4, "IPv4"), (Family::V6, "IPv6")] {
        let hosts = hosts(family, ADDRESSES);
        let (mut compile, mut load, mut replace) = (Vec::new(), Vec::new(), Vec::new());
        let mut bytes = 0;
        for round in 0..ROUNDS {
            let mut node = Node::new()?;
            for (first, samples) in [(true, &mut load), (false, &mut replace)] {
                let list = rules(&hosts.set, round * 2 + usize::from(first));
                let started = Instant::now();
                let (block, _) = classifier::build(&list)?;
                compile.push(milliseconds(started));
                bytes = block.length();
                let started = Instant::now();
                node.enforce(&block)?;
                samples.push(milliseconds(started));
            }
        }
        let what = format!("{ADDRESSES} {name} addresses and {RULES} rules");
        let whole = [&compile, &load].map(|samples| Median::of(&mut samples.clone()).value);
        table.median(
            &format!("{what}: compile"),
            Median::of(&mut compile),
            None,
            "ms",
        );
        table.median(
            &format!("{what}: first load"),
            Median::of(&mut load),
            None,
            "ms",
        );
        table.median(
            &format!("{what}: replacement"),
            Median::of(&mut replace),
            None,
            "ms",
        );
        table.figure(
            &format!("{what}: compile and load"),
            whole[0] + whole[1],
            Some(500.0),
            "ms",
        );
        let each = f64::from(bytes) / ADDRESSES as f64;
        table.figure(&format!("{what}: bytes an address"), each, None, "B");
    }
    Ok(())
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn rules(sources: &Arc<headgate_compile::addresses::AddressSet>, salt: usize) -> RuleList {
    let rule = |index: usize| Rule {
        action: if index.is_multiple_of(3) {
            Action::Allow
        } else {
            Action::Drop
        },
        counter: index as u32,
        source: (!index.is_multiple_of(5)).then(|| Arc::clone(sources)),
        destination: None,
        terms: vec![to_port(
            index.is_multiple_of(2),
            (1_000 + index * 7 + salt) as u16,
        )],
    };
    RuleList {
        rules: (0..RULES).map(rule).collect(),
        default: Action::Drop,
    }
}
