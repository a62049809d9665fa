//! `headgate nat`.

mod list;

use clap::{Args, Subcommand};

use crate::outcome::{CliError, Outcome};

/// Show the flows of this node that go through Nat.
///
/// They are read from the kernel now.
#[derive(Args, Debug)]
pub(crate) struct NatArguments {
    #[command(subcommand)]
    command: NatCommand,
}

#[derive(Debug, Subcommand)]
enum NatCommand {
    List(list::ListArguments),
}

pub(crate) fn run(arguments: &NatArguments) -> Result<Outcome, CliError> {
    match &arguments.command {
        NatCommand::List(arguments) => list::run(arguments),
    }
}
