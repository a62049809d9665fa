//! Rules that never decide, by what their own policy shows.

use headgate_crds::{Action, PolicyRule, XdpPolicySpec};

use super::fleet_index::matches_all;

/// A rule that an earlier one leaves nothing to.
pub(super) struct Shadowed<'a> {
    /// Its place in the list.
    pub(super) index: usize,
    /// The earlier rule.
    pub(super) by: &'a str,
    /// Whether that one matches every packet.
    pub(super) by_all: bool,
    /// How many rules behind this one are hidden for the same reason.
    pub(super) more: usize,
}

/// Rules behind one without conditions, told once, and rules with the conditions of an earlier one.
/// What takes more to see is left out: whatever is told here is so.
pub(super) fn shadowed(spec: &XdpPolicySpec) -> Vec<Shadowed<'_>> {
    let mut found = Vec::new();
    for (index, rule) in spec.rules.iter().enumerate() {
        let mut before = spec.rules[..index].iter();
        let by = before.find(|earlier| matches_all(earlier) || has_same_conditions(earlier, rule));
        let Some(by) = by else { continue };
        let by_all = matches_all(by);
        found.push(Shadowed {
            index,
            by: &by.name,
            by_all,
            more: if by_all {
                spec.rules.len() - index - 1
            } else {
                0
            },
        });
        if by_all {
            break;
        }
    }
    found
}

fn has_same_conditions(one: &PolicyRule, other: &PolicyRule) -> bool {
    one.from == other.from
        && one.to == other.to
        && one.protocols == other.protocols
        && one.fragments == other.fragments
}

/// Where a policy says that everything is dropped, where it allows nothing: the path of it.
pub(super) fn drops_everything(spec: &XdpPolicySpec) -> Option<String> {
    for (index, rule) in spec.rules.iter().enumerate() {
        match rule.action {
            Action::Allow => return None,
            Action::Drop if matches_all(rule) => return Some(format!("spec.rules[{index}]")),
            Action::Drop => {}
        }
    }
    (spec.default_action == Action::Drop).then(|| "spec.defaultAction".to_owned())
}
