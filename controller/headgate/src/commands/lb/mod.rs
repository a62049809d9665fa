//! `headgate lb`.

mod get;
mod list;
mod trace;
mod view;

use clap::{Args, Subcommand};

use crate::outcome::{CliError, Outcome};

/// Show the load balancer of this node: its services, their backends, and where a flow goes.
///
/// Services, their places and generations are what the agent said last; where they are in force, and
/// the counters, are read from the kernel now.
#[derive(Args, Debug)]
pub(crate) struct LbArguments {
    #[command(subcommand)]
    command: LbCommand,
}

#[derive(Debug, Subcommand)]
enum LbCommand {
    List(list::ListArguments),
    Get(get::GetArguments),
    Trace(trace::TraceArguments),
}

pub(crate) fn run(arguments: &LbArguments) -> Result<Outcome, CliError> {
    match &arguments.command {
        LbCommand::List(arguments) => list::run(arguments),
        LbCommand::Get(arguments) => get::run(arguments),
        LbCommand::Trace(arguments) => trace::run(arguments),
    }
}
