//! `headgate policy list`.

use clap::Args;

use super::{
    cluster,
    view::{self, PolicyView},
};
use crate::{
    arguments::InstanceArguments,
    cluster::ClusterArguments,
    outcome::{CliError, Outcome},
    output::{OutputArguments, columns},
    resource_state::generation,
};

/// List the policies that this node has read, in the order in which they are tried; or all of a
/// cluster, with the number of nodes that enforce each.
#[derive(Args, Debug)]
#[command(after_help = "\
State of a policy:
  Enforced     in force on every interface that it selects
  NotSelected  its nodeSelector does not select this node
  Pending      it waits for something, such as an interface
  Outdated     an interface enforces something else than is wanted
  NotEnforced  an interface enforces nothing
  Stalled      its present content is refused; the last good one, if any, stays in effect

State in a cluster, the worst of the nodes that it selects:
  Enforced     the agent has read this very generation back from the kernel
  Pending      a node has not shown it yet
  Excepted     a node's agent says why it is not in effect there (headgate policy get)
  Unknown      a node has no agent alive to say")]
pub(super) struct ListArguments {
    #[command(flatten)]
    output: OutputArguments,

    #[command(flatten)]
    place: InstanceArguments,

    #[command(flatten)]
    cluster: ClusterArguments,
}

pub(super) fn run(arguments: &ListArguments) -> Result<Outcome, CliError> {
    if arguments.cluster.is_wanted() {
        return cluster::list(&arguments.cluster, arguments.output);
    }
    let views = view::read(&arguments.place)?;
    arguments.output.show(&views, |views| table(views))?;
    Ok(Outcome::Fine)
}

fn table(views: &[PolicyView]) -> String {
    let rows = views.iter().map(|view| {
        let interfaces = view
            .interfaces
            .iter()
            .map(|interface| interface.interface.as_str());
        [
            view.name.clone(),
            view.priority.to_string(),
            view.default_action.clone(),
            view.rules.len().to_string(),
            interfaces.collect::<Vec<_>>().join(","),
            generation(view.generation, view.effective_generation),
            format!("{:?}", view.state),
            view.place.clone(),
        ]
    });
    let header = [
        "NAME",
        "PRIORITY",
        "DEFAULT",
        "RULES",
        "INTERFACES",
        "GENERATION",
        "STATE",
        "FILE",
    ];
    columns(header, rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::policy::view::tests::{policy, view_of};

    #[test]
    fn a_line_for_each_policy() {
        let mut stale = policy("web");
        stale.effective = Some(1);
        let views = [
            view_of(policy("dns"), Vec::new()),
            view_of(stale, Vec::new()),
        ];
        assert_eq!(
            table(&views),
            "\
NAME   PRIORITY   DEFAULT   RULES   INTERFACES   GENERATION        STATE      FILE
dns    500        Allow     2       eth0         2                 Enforced   web.yaml:3
web    500        Allow     2       eth0         2 (1 in effect)   Enforced   web.yaml:3
"
        );
    }
}
