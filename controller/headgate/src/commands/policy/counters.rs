//! `headgate policy counters`.

use clap::Args;
use serde::Serialize;

use super::view::{self, PolicyView};
use crate::{
    arguments::InstanceArguments,
    outcome::{CliError, Outcome},
    output::{OutputArguments, columns, number},
};

/// Show how many packets and bytes each rule has decided on this node, read from the kernel now.
///
/// A counter belongs to a policy and the name of a rule: it goes on over edits of the rule, new
/// revisions, and restarts of the agent. It counts over all interfaces. Packets that no rule
/// decided are shown by `headgate status`.
#[derive(Args, Debug)]
pub(super) struct CountersArguments {
    /// Name of a policy [default: all].
    name: Option<String>,

    #[command(flatten)]
    output: OutputArguments,

    #[command(flatten)]
    place: InstanceArguments,
}

pub(super) fn run(arguments: &CountersArguments) -> Result<Outcome, CliError> {
    let mut policies = view::read(&arguments.place)?;
    if let Some(name) = &arguments.name {
        policies = vec![view::named(policies, name)?];
    }
    let counters: Vec<CounterView> = policies.iter().flat_map(counters).collect();
    arguments.output.show(&counters, |_| table(&policies))?;
    Ok(Outcome::Fine)
}

#[derive(Debug, Serialize)]
struct CounterView {
    policy: String,
    rule: String,
    action: String,
    /// Absent where the rule is not in effect.
    packets: Option<u64>,
    bytes: Option<u64>,
}

fn counters(policy: &PolicyView) -> impl Iterator<Item = CounterView> {
    policy.rules.iter().map(|rule| CounterView {
        policy: policy.name.clone(),
        rule: rule.name.clone(),
        action: rule.action.clone(),
        packets: rule.packets,
        bytes: rule.bytes,
    })
}

fn table(policies: &[PolicyView]) -> String {
    let rows = policies.iter().flat_map(|policy| {
        rule_rows(policy).map(|[rule, action, packets, bytes]| {
            [policy.name.clone(), rule, action, packets, bytes]
        })
    });
    columns(["POLICY", "RULE", "ACTION", "PACKETS", "BYTES"], rows)
}

/// Rule, action, packets, bytes.
pub(super) fn rule_rows(policy: &PolicyView) -> impl Iterator<Item = [String; 4]> {
    policy.rules.iter().map(|rule| {
        [
            rule.name.clone(),
            rule.action.clone(),
            number(rule.packets),
            number(rule.bytes),
        ]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::policy::view::tests::{policy, view_of};

    #[test]
    fn a_line_for_each_rule() {
        assert_eq!(
            table(&[view_of(policy("web"), Vec::new())]),
            "\
POLICY   RULE       ACTION   PACKETS   BYTES
web      from-ten   Drop     3         180
web      new        Drop     -         -
"
        );
    }
}
