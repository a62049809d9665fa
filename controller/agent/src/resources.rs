//! From what a source read to what compile takes.

use std::{collections::BTreeSet, sync::Arc};

use headgate_compile::{
    finding::{Finding, FindingReason, Severity},
    memory::Memory,
    snapshot::{Content, ResourceName, Snapshot, Submitted, Unreadable},
};
use headgate_datapath::state::Digest;
use headgate_source::{Document, Listing, Reading, Warning};

use crate::endpoints;

/// A reading in the terms of compile.
pub struct Resources {
    /// The resources.
    pub snapshot: Snapshot,
    /// Why the source could not be read, where it could not: then everything that was in effect
    /// stays. Of a source that watches, why what it last heard may be old.
    pub unavailable: Option<String>,
    /// What the source left aside.
    pub left_aside: Vec<Finding>,
}

impl Resources {
    /// Converts `reading`.
    #[must_use]
    pub fn new(reading: &Reading<Content>, memory: &Memory) -> Self {
        match reading {
            Reading::Complete(listing) => Self {
                snapshot: of_listing(listing, memory),
                unavailable: listing.stale.clone(),
                left_aside: listing.warnings.iter().map(left_aside).collect(),
            },
            Reading::Unavailable { reason } => Self {
                snapshot: everything_stays(memory, reason),
                unavailable: Some(reason.clone()),
                left_aside: Vec::new(),
            },
        }
    }
}

fn of_listing(listing: &Listing<Content>, memory: &Memory) -> Snapshot {
    let unreadable = listing.unreadable.iter().map(|file| Unreadable {
        list: file.file.clone(),
        line: file.line,
        reason: file.reason.clone(),
    });
    let documents = listing.documents.iter();
    Snapshot {
        submitted: documents.map(|document| submitted(document)).collect(),
        unreadable: unreadable.collect(),
        endpoints: endpoints::referred(listing, memory).map(Arc::new),
    }
}

fn submitted(document: &Document<Content>) -> Submitted {
    Submitted {
        name: ResourceName::new(document.kind, &document.name),
        uid: document.uid.clone(),
        written: Digest::from_bytes(document.written),
        generation: document.generation,
        list: document.origin.list.clone(),
        line: document.origin.line,
        content: document.content.clone(),
        warnings: document.warnings.clone(),
    }
}

fn left_aside(warning: &Warning) -> Finding {
    Finding {
        severity: Severity::Warning,
        reason: FindingReason::Suspicious,
        resource: None,
        place: warning.origin.to_string(),
        path: String::new(),
        message: warning.message.clone(),
    }
}

/// As if every file or list that a resource in effect was read from were unreadable.
fn everything_stays(memory: &Memory, reason: &str) -> Snapshot {
    let lists = memory.last_good.values().map(|good| good.list.clone());
    let mut lists: BTreeSet<String> = lists.collect();
    if lists.is_empty() {
        // Nothing known is not the same as nothing there.
        lists.insert("the source".to_owned());
    }
    let unreadable = lists.into_iter().map(|list| Unreadable {
        list,
        line: None,
        reason: reason.to_owned(),
    });
    Snapshot {
        submitted: Vec::new(),
        unreadable: unreadable.collect(),
        endpoints: None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use headgate_compile::{compile, memory::Seconds, node::NodeFacts};

    use super::*;

    #[test]
    fn a_source_that_says_nothing_deletes_nothing() {
        let reading = Reading::Unavailable {
            reason: "the API has not answered yet".to_owned(),
        };
        let lost = Memory::lost(BTreeMap::new(), &BTreeSet::new(), Seconds(1));
        let resources = Resources::new(&reading, &lost);
        let node = NodeFacts::default();
        let compilation = compile(&resources.snapshot, &node, &lost, Seconds(2));
        assert!(compilation.state.is_none(), "{:?}", compilation.state);
        assert!(compilation.memory.lost);
    }
}
