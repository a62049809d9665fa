//! `headgate status`.

mod cluster;
mod table;
mod view;

use clap::Args;
use headgate_datapath::kernel::KernelError;

use self::view::{ReasonCounts, Status};
use crate::{
    arguments::InstanceArguments,
    cluster::ClusterArguments,
    live::Live,
    outcome::{CliError, Outcome},
    output::OutputArguments,
};

/// Show what this node enforces, as read from the kernel now, or what all nodes of a cluster do.
///
/// Of this node it needs no agent: what is live, on which interface and in which mode is the kernel's word; what is
/// wanted, and what is wrong with resources, is what the agent said last. With the state folder
/// lost, the kernel's word is shown alone. Packets that a rule decided are counted by
/// `headgate policy counters`.
#[derive(Args, Debug)]
#[command(after_help = "\
State of an interface:
  Enforced     the wanted tables are live in an attached program of ours
  Outdated     something else than is wanted is enforced; the reason is given
  NotEnforced  nothing is enforced; the reason is given
  Unknown      something is enforced, and no agent has left word of what is wanted

Exit codes:
  0  all that is selected is enforced, whether the agent runs or not
  1  the status cannot be read
  2  bad usage
  3  something selected is not enforced as wanted, or nowhere for want of an interface that it
     names, a resource is stalled, the source cannot be read, a step failed, packets passed unjudged, or no agent has said what is wanted")]
pub(crate) struct StatusArguments {
    #[command(flatten)]
    output: OutputArguments,

    #[command(flatten)]
    place: InstanceArguments,

    #[command(flatten)]
    cluster: ClusterArguments,
}

pub(crate) fn run(arguments: &StatusArguments) -> Result<Outcome, CliError> {
    if arguments.cluster.is_wanted() {
        return cluster::run(&arguments.cluster, arguments.output);
    }
    let live = Live::read(&arguments.place)?;
    let counts = reason_counts(&live)?;
    let status = Status::new(&arguments.place.state.instance, &live.reading, &counts);
    arguments.output.show(&status, table::table)?;
    Ok(Outcome::fine_if(status.all_enforced))
}

fn reason_counts(live: &Live) -> Result<ReasonCounts, KernelError> {
    let observed = &live.reading.observed;
    if !observed.prepared {
        return Ok(ReasonCounts::new());
    }
    let ports = observed.links.keys().copied().collect();
    live.kernel.reason_counters(&ports)
}
