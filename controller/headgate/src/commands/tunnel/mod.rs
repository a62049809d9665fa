//! `headgate tunnel`.

mod get;
mod list;
mod trace;
mod view;

use clap::{Args, Subcommand};

use crate::outcome::{CliError, Outcome};

/// Show the tunnel of this node: its device, its peers, and where a packet between pods goes.
///
/// Peers, their places and generations are what the agent said last; whether device, programs, tables,
/// neighbours and routes are as wanted, and the counters, are read from the kernel now.
#[derive(Args, Debug)]
pub(crate) struct TunnelArguments {
    #[command(subcommand)]
    command: TunnelCommand,
}

#[derive(Debug, Subcommand)]
enum TunnelCommand {
    List(list::ListArguments),
    Get(get::GetArguments),
    Trace(trace::TraceArguments),
}

pub(crate) fn run(arguments: &TunnelArguments) -> Result<Outcome, CliError> {
    match &arguments.command {
        TunnelCommand::List(arguments) => list::run(arguments),
        TunnelCommand::Get(arguments) => get::run(arguments),
        TunnelCommand::Trace(arguments) => trace::run(arguments),
    }
}
