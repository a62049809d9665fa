//! `headgate pod`.

mod get;
mod list;
mod names;
mod view;

use clap::{Args, Subcommand};

use crate::outcome::{CliError, Outcome};

/// Show which interface of this node each pod is behind, and the programs there.
///
/// Places are read from the kernel now, from routes of the main table, neighbours and bridges' forwarding tables; no
/// agent is asked. A pod is at a veth of its own or behind a bridge. Names are what an agent that watches the API has
/// heard of this node's Pods; without one, a pod that has been silent for long may be missing. Pods in the node's
/// network namespace are.
#[derive(Args, Debug)]
pub(crate) struct PodArguments {
    #[command(subcommand)]
    command: PodCommand,
}

#[derive(Debug, Subcommand)]
enum PodCommand {
    List(list::ListArguments),
    Get(get::GetArguments),
}

pub(crate) fn run(arguments: &PodArguments) -> Result<Outcome, CliError> {
    match &arguments.command {
        PodCommand::List(arguments) => list::run(arguments),
        PodCommand::Get(arguments) => get::run(arguments),
    }
}
