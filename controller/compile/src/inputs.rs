//! What a node's revision is compiled from, in a form that compares across nodes: who knows the
//! cluster's resources and a node's labels can reckon it as well.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use headgate_crds::{CidrGroupReference, Kind, XdpPolicySpec};
use headgate_datapath::state::Digest;

use crate::snapshot::{Content, Snapshot, Submitted, Uid};

/// Labels of a node.
pub type Labels = BTreeMap<String, String>;

/// Whether `policy`, on a node with these labels, names or selects CidrGroups.
#[must_use]
pub fn uses_groups(policy: &XdpPolicySpec, labels: &Labels) -> bool {
    is_selected(policy, labels) && references(policy).next().is_some()
}

/// Digest over uid and generation of each resource that concerns a node with these labels, the uids
/// that its references resolve to, and the labels; `None` where part of the resources is not known.
///
/// A resource that is refused counts as any other, with the generation that was refused: whether it
/// is in effect is told beside the digest.
#[must_use]
pub fn inputs_digest(snapshot: &Snapshot, labels: &Labels) -> Option<Digest> {
    if !snapshot.unreadable.is_empty() {
        return None;
    }
    let groups: Vec<&Submitted> = of_kind(snapshot, Kind::CidrGroup).collect();
    let mut lines = BTreeSet::new();
    for policy in of_kind(snapshot, Kind::XdpPolicy) {
        let references = match &policy.content {
            Ok(Content::Policy(spec)) if is_selected(spec, labels) => resolved(spec, &groups),
            Ok(_) => continue,
            Err(_) => BTreeSet::new(),
        };
        let used = groups
            .iter()
            .filter(|group| references.contains(&group.uid));
        lines.extend(used.map(|group| line(group, &BTreeSet::new())));
        lines.insert(line(policy, &references));
    }
    lines.extend(
        labels
            .iter()
            .map(|(key, value)| format!("label {key}={value}\n")),
    );
    let text: String = lines.into_iter().collect();
    Some(Digest::of(text.as_bytes()))
}

fn of_kind(snapshot: &Snapshot, kind: Kind) -> impl Iterator<Item = &Submitted> {
    let of_kind = move |submitted: &&Submitted| submitted.name.kind == kind.as_str();
    snapshot.submitted.iter().filter(of_kind)
}

fn is_selected(policy: &XdpPolicySpec, labels: &Labels) -> bool {
    let selector = policy.node_selector.as_ref();
    selector.is_none_or(|selector| selector.matches(labels))
}

fn references(policy: &XdpPolicySpec) -> impl Iterator<Item = &CidrGroupReference> {
    let sides = policy.rules.iter().flat_map(|rule| [&rule.from, &rule.to]);
    sides.flatten().filter_map(|side| side.cidr_groups.as_ref())
}

fn resolved(policy: &XdpPolicySpec, groups: &[&Submitted]) -> BTreeSet<Uid> {
    let mut uids = BTreeSet::new();
    for reference in references(policy) {
        let is_meant = |group: &&&Submitted| {
            let selects = |labels| {
                let selector = reference.selector.as_ref();
                selector.is_some_and(|selector| selector.matches(labels))
            };
            let labels = match &group.content {
                Ok(Content::Group(group)) => Some(&group.labels),
                _ => None,
            };
            reference.names.contains(&group.name.name) || labels.is_some_and(selects)
        };
        uids.extend(
            groups
                .iter()
                .filter(is_meant)
                .map(|group| group.uid.clone()),
        );
    }
    uids
}

fn line(submitted: &Submitted, references: &BTreeSet<Uid>) -> String {
    let generation = match submitted.generation {
        Some(number) => number.to_string(),
        None => submitted.written.to_string(),
    };
    let mut line = format!("{} {generation}", submitted.uid);
    for uid in references {
        let _ = write!(line, " {uid}");
    }
    line.push('\n');
    line
}
