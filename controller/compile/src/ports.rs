//! Stable port indices.

use std::collections::{BTreeMap, BTreeSet};

use headgate_datapath::state::PortIndex;

/// Gives each of `interfaces` a port index: the one that it had, else the lowest that nobody had.
/// Interfaces beyond the last index get none.
pub fn assign<'a>(
    remembered: &BTreeMap<String, PortIndex>,
    interfaces: impl Iterator<Item = &'a str> + Clone,
) -> BTreeMap<String, PortIndex> {
    let mut assigned: BTreeMap<String, PortIndex> = interfaces
        .clone()
        .filter_map(|name| Some((name.to_owned(), *remembered.get(name)?)))
        .collect();
    let mut taken: BTreeSet<PortIndex> = assigned.values().copied().collect();
    for name in interfaces {
        if assigned.contains_key(name) {
            continue;
        }
        // An index that another interface had may still have a program: prefer one without history.
        let free = |port: &PortIndex| !taken.contains(port);
        let unknown = |port: &PortIndex| free(port) && !remembered.values().any(|p| p == port);
        let port = PortIndex::all()
            .find(unknown)
            .or_else(|| PortIndex::all().find(free));
        if let Some(port) = port {
            taken.insert(port);
            assigned.insert(name.to_owned(), port);
        }
    }
    assigned
}
