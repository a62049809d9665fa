//! What a policy costs a packet: the whole program over a bare drop.

use std::sync::Arc;

use headgate_compile::{
    addresses::AddressSet,
    classifier::{self, Rule, RuleList},
};
use headgate_layout::verdict::Action;

use crate::{
    driver::Driver,
    lists::{Family, hosts, to_port},
    node::Node,
    table::Table,
};

/// Number of addresses; targets in nanoseconds, hot and random.
const ROWS: [(Family, usize, Option<[f64; 2]>); 6] = [
    (Family::V4, 10, Some([10.0, 12.0])),
    (Family::V4, 1_000, Some([11.0, 18.0])),
    (Family::V4, 100_000, Some([13.0, 60.0])),
    (Family::V6, 10, Some([10.0, 12.0])),
    (Family::V6, 1_000, Some([11.0, 18.0])),
    (Family::V6, 100_000, Some([13.0, 60.0])),
];

/// Rules on ports and protocols beside the list.
const RULES_BESIDE: usize = 1_000;

/// Adds the rows.
pub fn measure(table: &mut Table) -> anyhow::Result<()> {
    let mut node = Node::new()?;
    for (family, count, targets) in ROWS {
        let hosts = hosts(family, count);
        let mut driver = Driver::load(family)?;
        let name = match family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        let keys = driver.sources(&hosts.keys)?;
        for beside in [0, RULES_BESIDE] {
            let (block, _) = classifier::build(&deny(&hosts.set, beside))?;
            node.enforce(&block)?;
            driver.test(node.program_id()?)?;
            let label = match beside {
                0 => format!("deny {count} {name} addresses"),
                _ => format!("  and {beside} rules on ports beside it"),
            };
            for (hot, what) in [(true, "hot"), (false, "random")] {
                let before = node.packets(0)?;
                let cost = driver.cost(keys, hot)?;
                anyhow::ensure!(node.packets(0)? > before, "no packet met the rule");
                let target = targets.map(|targets| targets[usize::from(!hot)]);
                let target = target.map(|target| target + if beside > 0 { 5.0 } else { 0.0 });
                table.median(&format!("{label}, {what}"), cost, target, "ns");
            }
        }
    }
    Ok(())
}

/// Drop from `sources`, behind it `beside` rules on ports that these packets do not meet.
fn deny(sources: &Arc<AddressSet>, beside: usize) -> RuleList {
    let mut rules = vec![Rule {
        action: Action::Drop,
        counter: 0,
        source: Some(Arc::clone(sources)),
        destination: None,
        terms: Vec::new(),
    }];
    rules.extend((0..beside).map(|index| Rule {
        action: Action::Drop,
        counter: 1 + index as u32,
        source: None,
        destination: None,
        terms: vec![to_port(index.is_multiple_of(2), 20_000 + index as u16)],
    }));
    RuleList {
        rules,
        default: Action::Allow,
    }
}
