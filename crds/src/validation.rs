//! What neither the schema nor CEL can say, behind [`garde::Validate`].
//!
//! The checks stand with the types they are about. Here is how they word a refusal,
//! and the one place where garde's report becomes problems.

use std::fmt;

use garde::{Error, Path, Report, Validate};

use crate::{Resource, check::Problem, remedy, selector::MATCH_LABELS};

/// Between reason and remedy in garde's message, which is one text. Neither holds a line
/// break: what they quote of the user's text has gone through [`remedy::shown`].
const SEPARATOR: char = '\n';

/// A refusal for garde's report, of two lines: the reason and the remedy.
pub(crate) fn refusal(reason: impl fmt::Display, remedy: impl fmt::Display) -> Error {
    let message = format!("{reason}{SEPARATOR}{remedy}");
    debug_assert_eq!(message.matches(SEPARATOR).count(), 1, "{message:?}");
    Error::new(message)
}

/// What a report says, in its order.
pub(crate) fn problems(report: Report) -> Vec<Problem> {
    let errors = report.into_inner().into_iter();
    errors
        .map(|(path, error)| {
            let message = error.message();
            let (reason, remedy) = message.split_once(SEPARATOR).unwrap_or((message, ""));
            remedy::problem(yaml_path(&path), reason, remedy)
        })
        .collect()
}

/// The path as users write it: garde's derive spells fields as Rust does, and CIDR is an acronym. A label's key is
/// the user's own word; it ends the path and stays as it is.
fn yaml_path(path: &Path) -> String {
    let path = path.to_string();
    let (fields, label) = path.split_at(path.find(MATCH_LABELS).unwrap_or(path.len()));
    let mut words = fields.split('_');
    let mut spelt = words.next().unwrap_or_default().to_owned();
    for word in words {
        let initials = if word.starts_with("cidrs") { 4 } else { 1 };
        let (initials, rest) = word.split_at(initials.min(word.len()));
        spelt.push_str(&initials.to_ascii_uppercase());
        spelt.push_str(rest);
    }
    spelt + label
}

// By hand, for the types that kube derives know nothing of garde.
impl Validate for Resource {
    type Context = ();

    fn validate_into(&self, ctx: &(), _: &mut dyn FnMut() -> Path, report: &mut Report) {
        let spec = &mut || Path::new("spec");
        match self {
            Self::AddressPool(pool) => pool.spec.validate_into(ctx, spec, report),
            Self::CidrGroup(group) => group.spec.validate_into(ctx, spec, report),
            Self::LoadBalancerService(service) => service.spec.validate_into(ctx, spec, report),
            Self::TunnelPeer(peer) => peer.spec.validate_into(ctx, spec, report),
            Self::XdpPolicy(policy) => policy.spec.validate_into(ctx, spec, report),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LabelSelector;

    /// A selector of this label, as garde reports it below `cidr_groups`, and as problems.
    fn selecting(key: &str) -> (Report, Vec<Problem>) {
        let mut selector = LabelSelector::default();
        selector.match_labels.insert(key.into(), "value".into());
        let mut report = Report::new();
        let mut path = || Path::new("rules").join(7).join("cidr_groups");
        selector.validate_into(&(), &mut path, &mut report);
        (report.clone(), problems(report))
    }

    #[test]
    fn the_users_words_cannot_shift_the_parts() {
        for (key, shown) in [
            ("a; b_c", "a; b_c"),
            ("a\nb_c", "a\\nb_c"),
            ("0].a_b", "0].a_b"),
            ("matchLabels[a_b", "matchLabels[a_b"),
        ] {
            let (report, problems) = selecting(key);
            let messages: Vec<&str> = report.iter().map(|(_, error)| error.message()).collect();
            let [message] = messages.as_slice() else {
                panic!("{key:?} gave {report}");
            };
            assert_eq!(message.matches(SEPARATOR).count(), 1, "{message:?}");
            assert_eq!(
                problems,
                [remedy::problem(
                    format!("rules[7].cidrGroups.matchLabels[{shown}]"),
                    format!("\"{shown}\" is not a label key"),
                    "write NAME or PREFIX/NAME, such as topology.kubernetes.io/zone",
                )]
            );
        }
    }

    #[test]
    fn what_is_well_formed_is_not_reported() {
        let (report, problems) = selecting("topology.kubernetes.io/zone_a");
        assert!(report.is_empty() && problems.is_empty(), "{report}");
    }
}
