//! What holds in every state that a plan passes through.

use crate::observed::Observed;

/// What is wrong with `observed`, in words; empty where all holds.
///
/// - A program that is attached finds tables in every slot that a flip could make active.
/// - It is a program of ours, known by the object that it was loaded from.
/// - A program at an egress finds the table of flows.
#[must_use]
pub fn violations(observed: &Observed) -> Vec<String> {
    let mut found = Vec::new();
    for (port, link) in &observed.links {
        if link.ifindex.is_none() {
            continue;
        }
        if observed.enforced(*port).is_none() {
            found.push(format!(
                "{port} has a program but no tables in the active slot"
            ));
        }
        if !observed.prepared {
            found.push(format!(
                "{port} has a program but the shared maps are missing"
            ));
        }
    }
    for port in observed.egress.keys().filter(|_| !observed.flows) {
        found.push(format!(
            "{port} has a program at its egress but there is no table of flows"
        ));
    }
    found
}
