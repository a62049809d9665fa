//! The command line as a whole.

use clap::{Parser, Subcommand};

use crate::commands::{
    agent::AgentArguments, completion::CompletionArguments, detach::DetachArguments,
    lb::LbArguments, monitor::MonitorArguments, nat::NatArguments, operator::OperatorArguments,
    plan::PlanArguments, pod::PodArguments, policy::PolicyArguments, status::StatusArguments,
    tunnel::TunnelArguments, version,
};

/// Puts a node's packet filtering, load balancing and tunnels under the hand of policies in a cluster or in files.
///
/// `headgate agent` compiles XdpPolicy, LoadBalancerService and TunnelPeer resources, attaches eBPF programs to this node's
/// interfaces and keeps them as the resources say; `headgate operator` says for a whole cluster what
/// is in force where. All other commands look at this node only: they
/// read what the kernel holds at that moment and what the agent left on disk, and work with the agent
/// dead. Those that read the kernel want root. With --cluster, or called as `kubectl headgate`,
/// `status`, `policy list` and `policy get` ask the cluster's API about all nodes.
#[derive(Debug, Parser)]
#[command(name = "headgate", version = version::text(), max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Agent(AgentArguments),
    Operator(OperatorArguments),
    Status(StatusArguments),
    Policy(PolicyArguments),
    Lb(LbArguments),
    Nat(NatArguments),
    Tunnel(TunnelArguments),
    Pod(PodArguments),
    Plan(PlanArguments),
    Monitor(MonitorArguments),
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
