//! One module for each command.

pub(crate) mod agent;
pub(crate) mod completion;
pub(crate) mod detach;
pub(crate) mod lb;
pub(crate) mod monitor;
pub(crate) mod nat;
pub(crate) mod operator;
pub(crate) mod plan;
pub(crate) mod pod;
pub(crate) mod policy;
pub(crate) mod status;
pub(crate) mod tunnel;
pub(crate) mod version;

use crate::{
    cli::{Cli, Command},
    outcome::{CliError, Outcome},
};

/// Runs what was asked for.
pub(crate) fn run(cli: Cli) -> Result<Outcome, CliError> {
    match cli.command {
        Command::Agent(arguments) => agent::run(arguments),
        Command::Operator(arguments) => operator::run(arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Policy(arguments) => policy::run(&arguments),
        Command::Lb(arguments) => lb::run(&arguments),
        Command::Nat(arguments) => nat::run(&arguments),
        Command::Tunnel(arguments) => tunnel::run(&arguments),
        Command::Pod(arguments) => pod::run(&arguments),
        Command::Plan(arguments) => plan::run(&arguments),
        Command::Monitor(arguments) => monitor::run(&arguments),
        Command::Detach(arguments) => detach::run(&arguments),
        Command::Version(_) => version::run(),
        Command::Completion(arguments) => completion::run(&arguments),
    }
}
