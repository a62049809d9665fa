//! Interfaces of the default route, over moments in which there is none.

use std::collections::BTreeMap;

use crate::{
    finding::{Finding, FindingReason, Severity},
    memory::Seconds,
    node::NodeFacts,
};

/// How long an interface counts as one of the default route after it has lost it to others: a lease that
/// is renewed, a routing daemon that restarts and a link that flaps take the route away for moments.
const HOLD: u64 = 300;

/// Interfaces that have or had a default route, and since when they have none.
pub type Uplinks = BTreeMap<String, Option<Seconds>>;

/// The node with those interfaces counted in that have lost their default route and keep their programs: for
/// a while where others have one, and as long as none has. What to remember, and what to say.
pub fn hold(
    node: &NodeFacts,
    known: &Uplinks,
    now: Seconds,
) -> (NodeFacts, Uplinks, Option<Finding>) {
    let is_none_left = !node
        .interfaces
        .iter()
        .any(|interface| interface.has_default_route);
    let mut node = node.clone();
    let mut uplinks = Uplinks::new();
    let mut held = Vec::new();
    for interface in &mut node.interfaces {
        if interface.has_default_route {
            uplinks.insert(interface.name.clone(), None);
            continue;
        }
        let Some(since) = known.get(&interface.name) else {
            continue;
        };
        let lost = since.unwrap_or(now);
        if is_none_left || now.0.saturating_sub(lost.0) < HOLD {
            uplinks.insert(interface.name.clone(), Some(lost));
            interface.has_default_route = true;
            held.push(interface.name.clone());
        }
    }
    let finding = (!held.is_empty()).then(|| Finding {
        severity: Severity::Warning,
        reason: FindingReason::InterfaceNotFound,
        resource: None,
        place: String::new(),
        path: String::new(),
        message: format!(
            "no default route leaves by {} any more; what is in effect by the word defaultRoute stays there {}",
            held.join(", "),
            if is_none_left { "until another interface has one" } else { "for five minutes" },
        ),
    });
    (node, uplinks, finding)
}

#[cfg(test)]
mod tests {
    use headgate_datapath::state::Ifindex;

    use super::*;
    use crate::node::{Interface, InterfaceKind};

    /// A node with eth0 and eth1, of which these have a default route.
    fn node(routes: [bool; 2]) -> NodeFacts {
        let interfaces = routes
            .into_iter()
            .enumerate()
            .map(|(number, has_default_route)| Interface {
                name: format!("eth{number}"),
                ifindex: Ifindex(number as u32 + 2),
                kind: InterfaceKind::Other,
                mtu: 1_500,
                master: None,
                lower: None,
                has_default_route,
            });
        NodeFacts {
            interfaces: interfaces.collect(),
            ..NodeFacts::default()
        }
    }

    fn uplinks(routes: [bool; 2], known: &Uplinks, now: u64) -> (Vec<String>, Uplinks, bool) {
        let (node, known, finding) = hold(&node(routes), known, Seconds(now));
        let kept = node
            .interfaces
            .into_iter()
            .filter(|interface| interface.has_default_route);
        (
            kept.map(|interface| interface.name).collect(),
            known,
            finding.is_some(),
        )
    }

    #[test]
    fn a_lost_default_route_takes_no_program_away() {
        let (names, known, said) = uplinks([true, false], &Uplinks::new(), 0);
        assert_eq!((names, said), (vec!["eth0".to_owned()], false));
        for now in [1, 1_000, 1_000_000] {
            let (names, _, said) = uplinks([false, false], &known, now);
            assert_eq!((names, said), (vec!["eth0".to_owned()], true));
        }
    }

    #[test]
    fn where_another_has_it_the_former_is_left_after_a_while() {
        let (_, known, _) = uplinks([true, false], &Uplinks::new(), 0);
        let (names, known, _) = uplinks([false, true], &known, 100);
        assert_eq!(names, ["eth0", "eth1"]);
        let (names, known, _) = uplinks([false, true], &known, 100 + HOLD - 1);
        assert_eq!(names, ["eth0", "eth1"]);
        let (names, known, said) = uplinks([false, true], &known, 100 + HOLD);
        assert_eq!((names, said), (vec!["eth1".to_owned()], false));
        assert!(!known.contains_key("eth0"));
    }
}
