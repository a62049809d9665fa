//! The command line as a whole.

use clap::{Parser, Subcommand};

use crate::commands::{
    agent::AgentArguments, completion::CompletionArguments, detach::DetachArguments,
    plan::PlanArguments, policy::PolicyArguments, status::StatusArguments, version,
};

/// Puts this node's packet filtering under the hand of policy files.
///
/// `headgate agent` compiles XdpPolicy and CidrGroup resources from a directory, attaches eBPF
/// programs to this node's interfaces and keeps them as the files say. All other commands look at
/// this node only: they read what the kernel holds at that moment and what the agent left on disk,
/// and work with the agent dead. Those that read the kernel want root.
#[derive(Debug, Parser)]
#[command(name = "headgate", version = version::text(), max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Agent(AgentArguments),
    Status(StatusArguments),
    Policy(PolicyArguments),
    Plan(PlanArguments),
    Detach(DetachArguments),
    Version(version::VersionArguments),
    Completion(CompletionArguments),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        super::Cli::command().debug_assert();
    }
}
