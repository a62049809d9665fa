//! Classes of everything behind the addresses: kind, ports, and their crossing.

use headgate_layout::tables::{
    DETAILS, Detail, FRAGMENT_STATES, KINDS, kind_of_detail, kind_of_protocol,
};
use headgate_packet::parse::Fragment;

use super::{
    Rule, Term, TooLarge,
    classes::{BitSet, Classes},
    cross::{self, Budget, Crossing, Table},
    distinct, term,
};

const FRAGMENTS: [Fragment; FRAGMENT_STATES as usize] =
    [Fragment::Whole, Fragment::First, Fragment::Later];
const DETAIL_KINDS: [Detail; 3] = [Detail::Tcp, Detail::Icmp, Detail::Icmpv6];

/// The tables of the transport header.
pub struct Transport {
    /// The kind table, or `None` where no rule asks for anything here.
    pub kinds: Option<Vec<u16>>,
    /// Whether flags or types count.
    pub details: bool,
    /// Class of each destination port, or `None` where no rule asks for one.
    pub destination_ports: Option<Vec<u16>>,
    /// Class of each source port, or `None` where no rule asks for one.
    pub source_ports: Option<Vec<u16>>,
    /// Crossing of both ports.
    pub ports: Option<Table>,
    /// Crossing of kind and ports.
    pub table: Option<Table>,
    /// The resulting classes, known by the rules that they satisfy.
    pub rules: Crossing,
}

/// Cuts what is behind the addresses into classes.
pub fn classify(rules: &[Rule], budget: &mut Budget) -> Result<Transport, TooLarge> {
    let alternatives = rules.iter().enumerate().flat_map(|(index, rule)| {
        let any = rule.terms.is_empty().then(|| Term::any(None));
        let terms = rule.terms.iter().cloned().chain(any);
        terms.map(move |term| (index, term))
    });
    let terms = distinct(rules.len(), alternatives);
    let details = terms.iter().any(|(term, _)| term.asks_for_detail());

    let (kinds, kind_classes) = kinds(&terms, details)?;
    let (destination_ports, destination_classes) =
        ports(&terms, Term::destination_ports, "destination ports")?;
    let (source_ports, source_classes) = ports(&terms, Term::source_ports, "source ports")?;
    // All alternatives of a rule count, whichever comes first.
    let none = BitSet::empty(terms.len());
    let ports = cross::intersect(
        &destination_classes,
        &source_classes,
        "combinations of ports",
        &none,
        budget,
    )?;
    let crossing = cross::intersect(
        &kind_classes,
        &ports.classes,
        "transport headers",
        &none,
        budget,
    )?;

    let satisfied = |members: &BitSet| {
        let mut satisfied = BitSet::empty(rules.len());
        members
            .iter()
            .for_each(|term| satisfied.add_all(&terms[term].1));
        satisfied
    };
    let mut classes = crossing.classes.map(satisfied);
    classes.of = "transport headers";
    Ok(Transport {
        kinds,
        details,
        destination_ports,
        source_ports,
        ports: ports.table,
        table: crossing.table,
        rules: Crossing {
            table: None,
            classes,
        },
    })
}

type Terms = [(Term, BitSet)];

fn kinds(terms: &Terms, details: bool) -> Result<(Option<Vec<u16>>, Classes), TooLarge> {
    let mut classes = Classes::new("protocols");
    if !terms.iter().any(|(term, _)| term.asks_for_kind()) {
        classes.class_of(&BitSet::full(terms.len()))?;
        return Ok((None, classes));
    }
    let length = if details { KINDS } else { DETAILS };
    let mut table = vec![0; length as usize];
    let mut class_of = |takes: &dyn Fn(&Term) -> bool| {
        let mut members = BitSet::empty(terms.len());
        let taking = terms
            .iter()
            .enumerate()
            .filter(|(_, (term, _))| takes(term));
        taking.for_each(|(index, _)| members.insert(index));
        classes.class_of(&members)
    };
    for fragment in FRAGMENTS {
        for (family, is_v6) in [(0, false), (1, true)] {
            for protocol in 0..=u8::MAX {
                let index = kind_of_protocol(family, fragment as u32, protocol);
                table[index as usize] =
                    class_of(&|term| term.takes(is_v6, fragment, protocol, None))?;
            }
        }
        if !details || fragment == Fragment::Later {
            continue;
        }
        for detail in DETAIL_KINDS {
            let (protocol, is_v6) = term::protocol_of(detail);
            for value in 0..=u8::MAX {
                let index = kind_of_detail(detail, fragment as u32, value);
                table[index as usize] =
                    class_of(&|term| term.takes(is_v6, fragment, protocol, Some(value)))?;
            }
        }
    }
    Ok((Some(table), classes))
}

/// The class of each port by the ranges that `side` gives of each term.
fn ports(
    terms: &Terms,
    side: impl Fn(&Term) -> &[(u16, u16)],
    of: &'static str,
) -> Result<(Option<Vec<u16>>, Classes), TooLarge> {
    let mut members = BitSet::empty(terms.len());
    let mut changes: Vec<(u32, usize, bool)> = Vec::new();
    for (index, (term, _)) in terms.iter().enumerate() {
        let ranges = side(term);
        if ranges.is_empty() {
            members.insert(index);
        }
        for (first, last) in merged(ranges) {
            changes.push((first, index, true));
            changes.push((last + 1, index, false));
        }
    }
    let mut classes = Classes::new(of);
    if changes.is_empty() {
        classes.class_of(&members)?;
        return Ok((None, classes));
    }
    changes.sort_unstable();
    let mut table = Vec::with_capacity(1 << 16);
    for (at, term, _) in changes.into_iter().chain([(1 << 16, usize::MAX, false)]) {
        if table.len() < at as usize {
            let class = classes.class_of(&members)?;
            table.resize(at as usize, class);
        }
        if term != usize::MAX {
            members.toggle(term);
        }
    }
    Ok((Some(table), classes))
}

/// The union of port ranges, so that each port enters and leaves a term once.
fn merged(ranges: &[(u16, u16)]) -> Vec<(u32, u32)> {
    let mut sorted: Vec<_> = ranges
        .iter()
        .map(|(first, last)| (u32::from(*first), u32::from(*last)))
        .collect();
    sorted.sort_unstable();
    let mut merged: Vec<(u32, u32)> = Vec::new();
    for (first, last) in sorted {
        match merged.last_mut() {
            Some(open) if first <= open.1 + 1 => open.1 = open.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}
