//! One policy set's rules, compiled into a block of tables by recursive flow classification; the
//! tables and their use are described in `headgate_layout::tables`.
//!
//! Each field is cut into classes of values that no rule tells apart. A class is known by the set
//! of what it satisfies: of *terms* (distinct combinations of protocol qualifiers) in the fields of
//! the transport header, of rules behind them. Two crossed classes satisfy what both satisfy; equal
//! results are one class again.

mod addresses;
mod block;
mod classes;
mod cross;

mod term;
mod transport;

use std::{collections::HashMap, sync::Arc};

use headgate_datapath::state::Block;
use headgate_layout::{
    tables::{Decision, NO_RULE},
    verdict::Action,
};

use crate::{addresses::AddressSet, trie::TrieError};

pub use block::BlockWriter;
use classes::BitSet;
use cross::Budget;
pub use term::{L4Protocol, Term};

/// Most bytes that the crossings of one policy set may take.
pub const CROSS_BUDGET: u64 = 8 << 20;

/// A rule with everything looked up.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What to do.
    pub action: Action,
    /// Index of its counter.
    pub counter: u32,
    /// Sources, or `None` for any.
    pub source: Option<Arc<AddressSet>>,
    /// Destinations, or `None` for any.
    pub destination: Option<Arc<AddressSet>>,
    /// Alternatives of protocol qualifiers; none: any packet.
    pub terms: Vec<Term>,
}

/// Rules in the order in which they are tried, and what holds where none matches.
#[derive(Clone, Debug)]
pub struct RuleList {
    /// First match wins.
    pub rules: Vec<Rule>,
    /// No match.
    pub default: Action,
}

/// Sizes of what was built, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Classes of sources.
    pub sources: usize,
    /// Classes of destinations.
    pub destinations: usize,
    /// Classes of everything behind the IP header.
    pub transports: usize,
    /// Bytes of all crossings.
    pub crossings: u64,
}

/// Why no tables were built; the numbers are for the person who must make the policy smaller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooLarge {
    /// A crossing beyond what is left of [`CROSS_BUDGET`].
    #[error(
        "crossing {rows} classes of {of_rows} with {columns} of {of_columns} takes {bytes} bytes, {budget} bytes are allowed for all crossings together"
    )]
    Crossing {
        /// What the rows are.
        of_rows: &'static str,
        /// Number of rows.
        rows: usize,
        /// What the columns are.
        of_columns: &'static str,
        /// Number of columns.
        columns: usize,
        /// Bytes of all crossings so far and this one.
        bytes: u64,
        /// [`CROSS_BUDGET`].
        budget: u64,
    },
    /// More classes than fit into 16 bits.
    #[error("the {of} fall into more than {limit} classes")]
    Classes {
        /// Of which field or crossing.
        of: &'static str,
        /// The limit.
        limit: usize,
    },
    /// An address table.
    #[error(transparent)]
    Trie(#[from] TrieError),
    /// Two services that no hash tells apart; among a million of them this is 1 in 37 million.
    #[error("two addresses and ports of services have one hash; change one of the ports")]
    Collision,
    /// The whole block.
    #[error("the tables take {bytes} bytes, {limit} is the most that a program can read")]
    Block {
        /// Bytes of all tables.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
}

/// Compiles `list` into tables.
///
/// # Errors
/// See [`TooLarge`].
pub fn build(list: &RuleList) -> Result<(Block, Sizes), TooLarge> {
    let mut writer = BlockWriter::new();
    let sizes = write(list, &mut writer)?;
    Ok((writer.finish()?, sizes))
}

/// Compiles `list` into the classifier's part of a block.
///
/// # Errors
/// See [`TooLarge`].
pub fn write(list: &RuleList, writer: &mut BlockWriter) -> Result<Sizes, TooLarge> {
    let mut budget = Budget::new(CROSS_BUDGET);

    let sources = addresses::classify(&list.rules, |rule| rule.source.as_ref(), "sources")?;
    let destinations = addresses::classify(
        &list.rules,
        |rule| rule.destination.as_ref(),
        "destinations",
    )?;
    writer.source_tries(&sources)?;
    writer.destination_tries(&destinations)?;
    let addresses = cross::intersect(
        &sources.rules,
        &destinations.rules,
        "combinations of sources and destinations",
        &decided_by_addresses(&list.rules),
        &mut budget,
    )?;
    writer.addresses(&addresses);

    let transport = transport::classify(&list.rules, &mut budget)?;
    writer.transport(&transport);

    let matches = cross::first_match(&addresses.classes, &transport.rules.classes, &mut budget)?;
    writer.matches(&matches);
    let decisions: Vec<Decision> = matches
        .firsts
        .iter()
        .map(|first| decision(list, *first))
        .collect();
    writer.decisions(&decisions);

    Ok(Sizes {
        sources: sources.rules.sets.len(),
        destinations: destinations.rules.sets.len(),
        transports: transport.rules.classes.sets.len(),
        crossings: budget.used(),
    })
}

/// Rules that ask for nothing but addresses: where these match, none behind is ever tried.
fn decided_by_addresses(rules: &[Rule]) -> BitSet {
    let mut decided = BitSet::empty(rules.len());
    for (index, rule) in rules.iter().enumerate() {
        if rule.terms.is_empty() || rule.terms.iter().any(|term| !term.asks_for_kind()) {
            decided.insert(index);
        }
    }
    decided
}

fn decision(list: &RuleList, first: Option<usize>) -> Decision {
    match first.map(|index| &list.rules[index]) {
        Some(rule) => Decision {
            action: rule.action as u32,
            counter: rule.counter,
        },
        None => Decision {
            action: list.default as u32,
            counter: NO_RULE,
        },
    }
}

/// Distinct values with the rules that have each, in order of first appearance.
fn distinct<'a, K: std::hash::Hash + Eq + Clone + 'a>(
    rules: usize,
    keyed: impl Iterator<Item = (usize, K)>,
) -> Vec<(K, BitSet)> {
    let mut places: HashMap<K, usize> = HashMap::new();
    let mut found: Vec<(K, BitSet)> = Vec::new();
    for (rule, key) in keyed {
        let place = *places.entry(key.clone()).or_insert_with(|| {
            found.push((key, BitSet::empty(rules)));
            found.len() - 1
        });
        found[place].1.insert(rule);
    }
    found
}
