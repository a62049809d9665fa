//! `headgate policy`.

mod cluster;
mod counters;
mod get;
mod list;
mod view;

use clap::{Args, Subcommand};

use crate::outcome::{CliError, Outcome};

/// Show the policies of this node: what was read, what is in effect, what it counted; or, by the
/// cluster's API, on which nodes each policy is enforced (list and get).
///
/// Policies, their places and generations are what the agent said last; where they are enforced,
/// and the counters, are read from the kernel now. Policies that select other nodes only are
/// listed as NotSelected.
#[derive(Args, Debug)]
pub(crate) struct PolicyArguments {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    List(list::ListArguments),
    Get(get::GetArguments),
    Counters(counters::CountersArguments),
}

pub(crate) fn run(arguments: &PolicyArguments) -> Result<Outcome, CliError> {
    match &arguments.command {
        PolicyCommand::List(arguments) => list::run(arguments),
        PolicyCommand::Get(arguments) => get::run(arguments),
        PolicyCommand::Counters(arguments) => counters::run(arguments),
    }
}
