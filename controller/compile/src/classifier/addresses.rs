//! Classes of sources, or of destinations.

use std::sync::Arc;

use super::{
    Rule, TooLarge,
    classes::{BitSet, Classes},
    distinct,
};
use crate::{
    addresses::{Address, AddressSet, Ranges},
    trie::Boundary,
};

/// One address field of all rules.
pub struct AddressField {
    /// Its classes, each known by the rules that it satisfies.
    pub rules: Classes,
    /// Where in the IPv4 addresses the class changes.
    pub v4: Vec<Boundary<u32>>,
    /// Where in the IPv6 addresses the class changes.
    pub v6: Vec<Boundary<u128>>,
}

/// Cuts the addresses into classes by the sets that `side` gives of each rule.
pub fn classify<'a>(
    rules: &'a [Rule],
    side: impl Fn(&'a Rule) -> Option<&'a Arc<AddressSet>>,
    of: &'static str,
) -> Result<AddressField, TooLarge> {
    let mut any = BitSet::empty(rules.len());
    let mut sets: Vec<&AddressSet> = Vec::new();
    let keyed = rules.iter().enumerate().filter_map(|(index, rule)| {
        match side(rule) {
            // One set is shared by all rules that say the same: its place in memory names it.
            Some(set) => Some((index, Arc::as_ptr(set))),
            None => {
                any.insert(index);
                None
            }
        }
    });
    let owners = distinct(rules.len(), keyed);
    for (_, rules_of_set) in &owners {
        let first = rules_of_set
            .iter()
            .next()
            .and_then(|rule| side(&rules[rule]));
        sets.push(first.expect("each distinct set was taken from a rule"));
    }

    let mut classes = Classes::new(of);
    let v4: Vec<_> = sets.iter().map(|set| &set.v4).collect();
    let v6: Vec<_> = sets.iter().map(|set| &set.v6).collect();
    let v4 = sweep(&v4, 0, &mut classes)?;
    let v6 = sweep(&v6, 0, &mut classes)?;
    let satisfied = |members: &BitSet| {
        let mut satisfied = any.clone();
        members
            .iter()
            .for_each(|set| satisfied.add_all(&owners[set].1));
        satisfied
    };
    Ok(AddressField {
        rules: classes.map(satisfied),
        v4,
        v6,
    })
}

/// Runs along all addresses and notes where membership in the `sets` changes.
fn sweep<A: Address>(
    sets: &[&Ranges<A>],
    zero: A,
    classes: &mut Classes,
) -> Result<Vec<Boundary<A>>, TooLarge> {
    let mut changes: Vec<(A, usize)> = Vec::new();
    for (index, ranges) in sets.iter().enumerate() {
        for (first, last) in ranges.as_slice() {
            changes.push((*first, index));
            changes.extend(last.behind().map(|behind| (behind, index)));
        }
    }
    // Stable: one sorted run for each set is merged, not sorted.
    changes.sort_by_key(|(address, _)| *address);

    let mut members = BitSet::empty(sets.len());
    let mut boundaries: Vec<Boundary<A>> = Vec::with_capacity(changes.len() + 1);
    let mut start = zero;
    let mut changes = changes.into_iter().peekable();
    loop {
        while let Some((_, set)) = changes.next_if(|(address, _)| *address == start) {
            members.toggle(set);
        }
        let class = classes.class_of(&members)?;
        if boundaries.last().is_none_or(|last| last.class != class) {
            boundaries.push(Boundary { start, class });
        }
        match changes.peek() {
            Some((address, _)) => start = *address,
            None => return Ok(boundaries),
        }
    }
}
