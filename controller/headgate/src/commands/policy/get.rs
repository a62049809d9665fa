//! `headgate policy get`.

use clap::Args;

use super::{
    cluster,
    counters::rule_rows,
    view::{self, PolicyView},
};
use crate::{
    arguments::InstanceArguments,
    cluster::ClusterArguments,
    outcome::{CliError, Outcome},
    output::{OutputArguments, columns, fields, section},
    resource_state::{InterfaceView, generation},
};

/// Show one policy of this node in full: generations, interfaces, rules with counters, findings; or
/// of a cluster: how it stands on each node that it selects.
#[derive(Args, Debug)]
pub(super) struct GetArguments {
    /// Name of the policy.
    name: String,

    #[command(flatten)]
    output: OutputArguments,

    #[command(flatten)]
    place: InstanceArguments,

    #[command(flatten)]
    cluster: ClusterArguments,
}

pub(super) fn run(arguments: &GetArguments) -> Result<Outcome, CliError> {
    if arguments.cluster.is_wanted() {
        return cluster::get(&arguments.cluster, &arguments.name, arguments.output);
    }
    let policy = view::named(view::read(&arguments.place)?, &arguments.name)?;
    arguments.output.show(&policy, table)?;
    Ok(Outcome::Fine)
}

fn table(policy: &PolicyView) -> String {
    let mut text = fields([
        ("Name", policy.name.clone()),
        ("File", policy.place.clone()),
        (
            "Generation",
            generation(policy.generation, policy.effective_generation),
        ),
        ("State", format!("{:?}", policy.state)),
        ("Priority", policy.priority.to_string()),
        ("Default", policy.default_action.clone()),
    ]);
    let interfaces = policy.interfaces.iter().map(InterfaceView::line);
    text.push_str(&section("Interfaces", interfaces));
    if !policy.rules.is_empty() {
        text.push('\n');
        text.push_str(&columns(
            ["RULE", "ACTION", "PACKETS", "BYTES"],
            rule_rows(policy),
        ));
    }
    let findings = policy.findings.iter().map(ToString::to_string);
    text.push_str(&section("Findings", findings));
    text
}

#[cfg(test)]
mod tests {
    use headgate_compile::finding::Severity;

    use super::*;
    use crate::commands::policy::view::tests::{finding, policy, view_of};

    #[test]
    fn a_policy_in_full() {
        let mut stale = policy("web");
        stale.effective = Some(1);
        let view = view_of(stale, vec![finding("web", Severity::Stalled)]);
        assert_eq!(
            table(&view),
            "\
Name:         web
File:         web.yaml:3
Generation:   2 (1 in effect)
State:        Stalled
Priority:     500
Default:      Allow

Interfaces:
  eth0: Enforced

RULE       ACTION   PACKETS   BYTES
from-ten   Drop     3         180
new        Drop     -         -

Findings:
  web.yaml:9: XdpPolicy/web: spec.priority: is above 1000; lower it (Stalled, Invalid)
"
        );
    }
}
