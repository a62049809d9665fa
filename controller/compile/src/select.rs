//! Which resources concern this node, on which of its interfaces, and how programs attach.

mod nearest;

use headgate_crds::{AttachMode, DEFAULT_ROUTE, LabelSelector};
use headgate_datapath::state::WantedMode;
use wildmatch::WildMatch;

use self::nearest::nearest;
use crate::{
    finding::{FindingReason, Severity},
    node::{Interface, InterfaceKind, NodeFacts},
};

/// A finding whose resource and place the caller knows.
pub struct Remark {
    pub severity: Severity,
    pub reason: FindingReason,
    pub path: String,
    pub message: String,
}

/// Interfaces that a resource selects on this node.
pub struct Selection<'a> {
    pub interfaces: Vec<&'a Interface>,
    pub remarks: Vec<Remark>,
}

/// Whether a resource with this nodeSelector concerns the node at all.
pub fn concerns(selector: Option<&LabelSelector>, node: &NodeFacts) -> bool {
    selector.is_none_or(|selector| selector.matches(&node.labels))
}

/// The interfaces of `node` that a resource names by these patterns, to be attached in this mode.
pub fn interfaces<'a>(patterns: &[String], mode: AttachMode, node: &'a NodeFacts) -> Selection<'a> {
    let mut selection = Selection {
        interfaces: Vec::new(),
        remarks: Vec::new(),
    };
    for index in 0..patterns.len() {
        selection.add(patterns, index, mode, node);
    }
    if selection.interfaces.is_empty() {
        selection.tell_that_none_is_here();
    }
    selection
        .interfaces
        .sort_by_key(|interface| interface.ifindex);
    selection
        .interfaces
        .dedup_by_key(|interface| interface.ifindex);
    selection
}

impl<'a> Selection<'a> {
    fn add(&mut self, patterns: &[String], index: usize, mode: AttachMode, node: &'a NodeFacts) {
        let path = format!("spec.interfaces[{index}]");
        let matched = matching(&patterns[index], node);
        if matched.is_empty() {
            let what = unmatched(patterns, index, node);
            self.remark(
                Severity::Pending,
                FindingReason::InterfaceNotFound,
                path,
                format!("{what}; it is attached as soon as there is one, or correct the name"),
            );
            return;
        }
        for interface in matched {
            for place in places(interface, node) {
                self.take(place, &path, mode, node);
            }
            if interface.kind == InterfaceKind::Bridge && places(interface, node).is_empty() {
                self.remark(Severity::Pending, FindingReason::InterfaceNotFound, path.clone(), format!(
                    "bridge {} has no port that is not a veth; programs go on its ports, so add one or name another interface",
                    interface.name
                ));
            }
        }
    }

    fn take(&mut self, interface: &'a Interface, path: &str, mode: AttachMode, node: &NodeFacts) {
        if interface.kind == InterfaceKind::Vlan && mode == AttachMode::Native {
            let lower = interface.lower.and_then(|lower| by_ifindex(node, lower));
            let lower = lower.map_or("the device below it", |lower| &lower.name);
            let message = format!(
                "{} is a VLAN device and has no native mode; name {lower} instead, or use attachMode: Auto",
                interface.name
            );
            let reason = FindingReason::AttachModeRefused;
            self.remark(Severity::Stalled, reason, path.to_owned(), message);
            return;
        }
        self.interfaces.push(interface);
    }

    /// A typo would else take a policy off its interfaces in half a sentence.
    fn tell_that_none_is_here(&mut self) {
        let missing = |remark: &&mut Remark| remark.reason == FindingReason::InterfaceNotFound;
        for remark in self.remarks.iter_mut().filter(missing) {
            remark.message.push_str(
                "; none of its interfaces is here, so it is enforced nowhere on this node",
            );
        }
    }

    fn remark(&mut self, severity: Severity, reason: FindingReason, path: String, message: String) {
        self.remarks.push(Remark {
            severity,
            reason,
            path,
            message,
        });
    }
}

fn is_glob(pattern: &str) -> bool {
    pattern.contains(['*', '?'])
}

/// That a pattern names nothing, and which name was perhaps meant: one that none of the patterns is.
fn unmatched(patterns: &[String], index: usize, node: &NodeFacts) -> String {
    let pattern = &patterns[index];
    if pattern == DEFAULT_ROUTE {
        return "no interface has a default route".to_owned();
    }
    if is_glob(pattern) {
        return format!("no interface on this node is called like {pattern:?}");
    }
    let names = node.interfaces.iter().map(|interface| &interface.name);
    let others = names.filter(|name| !patterns.contains(name));
    let meant = match nearest(pattern, others.map(String::as_str)) {
        Some(name) => format!(" (did you mean {name:?}?)"),
        None => String::new(),
    };
    format!("no interface {pattern:?} on this node{meant}")
}

fn by_ifindex(node: &NodeFacts, ifindex: headgate_datapath::state::Ifindex) -> Option<&Interface> {
    node.interfaces
        .iter()
        .find(|interface| interface.ifindex == ifindex)
}

fn matching<'a>(pattern: &str, node: &'a NodeFacts) -> Vec<&'a Interface> {
    let interfaces = node.interfaces.iter();
    if pattern == DEFAULT_ROUTE {
        return interfaces
            .filter(|interface| interface.has_default_route)
            .collect();
    }
    if !is_glob(pattern) {
        return interfaces
            .filter(|interface| interface.name == pattern)
            .collect();
    }
    let glob = WildMatch::new(pattern);
    // A glob means the node's ways to the world; loopback is meant only by its name.
    interfaces
        .filter(|interface| interface.kind != InterfaceKind::Loopback)
        .filter(|interface| glob.matches(&interface.name))
        .collect()
}

/// Where the program of `interface` goes: a bond is itself, its ports are the bond; a bridge is its
/// ports that are no veth, for those lead to pods and would be judged twice.
fn places<'a>(interface: &'a Interface, node: &'a NodeFacts) -> Vec<&'a Interface> {
    if interface.kind == InterfaceKind::Bridge {
        return node
            .interfaces
            .iter()
            .filter(|port| port.master == Some(interface.ifindex))
            .filter(|port| port.kind != InterfaceKind::Veth)
            .collect();
    }
    let master = interface.master.and_then(|master| by_ifindex(node, master));
    match master {
        Some(bond) if bond.kind == InterfaceKind::Bond => vec![bond],
        _ => vec![interface],
    }
}

/// The mode for an interface of this sort by what its policies ask for, the first that does not
/// leave it to us deciding; the index of the first that asks for another.
pub fn mode(interface: &Interface, asked: &[AttachMode]) -> (WantedMode, Option<usize>) {
    let specific = |mode: &&AttachMode| **mode != AttachMode::Auto;
    let decided = asked
        .iter()
        .find(specific)
        .copied()
        .unwrap_or(AttachMode::Auto);
    let other = asked
        .iter()
        .position(|mode| *mode != AttachMode::Auto && *mode != decided);
    let mode = match decided {
        AttachMode::Auto if interface.kind == InterfaceKind::Vlan => WantedMode::Generic,
        AttachMode::Auto => WantedMode::Auto,
        AttachMode::Native => WantedMode::Native,
        AttachMode::Generic => WantedMode::Generic,
    };
    (mode, other)
}
