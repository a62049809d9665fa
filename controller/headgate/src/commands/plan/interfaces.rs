//! What changes at interfaces.

use std::collections::BTreeMap;

use headgate_datapath::state::{DatapathState, Ifindex};
use serde::Serialize;

use super::{against::Before, resources::Change};

/// One interface that is attached to, left, or enforces something else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct InterfaceChange {
    pub(super) interface: String,
    pub(super) change: Change,
    pub(super) details: Vec<String>,
}

/// All changes, by name.
pub(super) fn changes(before: &Before, after: &DatapathState) -> Vec<InterfaceChange> {
    let mut changes: Vec<_> = after
        .ports
        .values()
        .filter_map(|attachment| {
            let (change, details) = change_of(before, attachment)?;
            Some(InterfaceChange {
                interface: attachment.interface.clone(),
                change,
                details,
            })
        })
        .collect();
    let wanted: Vec<Ifindex> = after.ports.values().map(|a| a.ifindex).collect();
    let links = before.observed.links.values();
    let left = links.filter_map(|link| link.ifindex.filter(|ifindex| !wanted.contains(ifindex)));
    changes.extend(left.map(|ifindex| InterfaceChange {
        interface: name(&before.interfaces, ifindex),
        change: Change::Removed,
        details: vec!["detached, nothing is enforced there any more".to_owned()],
    }));
    changes.sort_by(|a, b| a.interface.cmp(&b.interface));
    changes
}

fn change_of(
    before: &Before,
    attachment: &headgate_datapath::state::Attachment,
) -> Option<(Change, Vec<String>)> {
    let mut links = before.observed.links.iter();
    let held = links.find(|(_, link)| link.ifindex == Some(attachment.ifindex));
    let Some((port, link)) = held else {
        let attached = format!(
            "attached, mode {:?}, tables {}",
            attachment.mode,
            attachment.tables.short()
        );
        return Some((Change::Added, vec![attached]));
    };
    let mut details = Vec::new();
    match before.observed.enforced(*port) {
        Some(live) if live == attachment.tables => {}
        Some(live) => details.push(format!(
            "tables {} -> {}",
            live.short(),
            attachment.tables.short()
        )),
        None => details.push(format!("tables none -> {}", attachment.tables.short())),
    }
    if !attachment.mode.accepts(link.mode) {
        details.push(format!("mode {} -> {:?}", link.mode, attachment.mode));
    }
    (!details.is_empty()).then_some((Change::Changed, details))
}

fn name(interfaces: &BTreeMap<Ifindex, String>, ifindex: Ifindex) -> String {
    let name = interfaces.get(&ifindex).cloned();
    name.unwrap_or_else(|| format!("#{}", ifindex.0))
}
