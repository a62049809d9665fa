//! `headgate agent`.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use headgate_agent::config::{Config, SourceConfig};

use crate::{
    arguments::{InstanceArguments, NodeArguments},
    log::{LogArguments, log_as},
    outcome::{CliError, Outcome},
};

/// Keep this node's interfaces as the resources of a cluster or a directory say.
///
/// Watches the Kubernetes API, or reads every *.yaml and *.yml file of the directory, again whenever
/// one changes, and brings the kernel to what they say in one atomic step. A resource that is refused
/// is reported, and its last good content stays in effect; so does everything while the API does not
/// answer. Enforcement does not depend on the agent: when
/// it is stopped or killed, programs and tables stay in the kernel, and the next agent takes them
/// over. `headgate detach` removes them.
#[derive(Args, Debug)]
#[command(after_help = "\
Logs go to standard error; HEADGATE_LOG sets what is logged (info; headgate_agent=debug; ...).")]
pub(crate) struct AgentArguments {
    /// Where resources are read: the word kubernetes, for its API, or a directory of resources
    /// of every kind, subfolders included, as YAML files of one or more documents. A directory that is
    /// not there is waited for where this instance has read it before, and is an error where not.
    #[arg(long, value_name = "DIR|kubernetes")]
    source: String,

    /// With --source kubernetes: how to reach the API; in a pod its service account where absent.
    #[arg(long, value_name = "FILE", env = "KUBECONFIG")]
    kubeconfig: Option<PathBuf>,

    /// With --source kubernetes: namespace of the Lease by which the agent shows that it is alive.
    #[arg(long, value_name = "NAME", default_value = "headgate-system")]
    namespace: String,

    #[command(flatten)]
    instance: InstanceArguments,

    #[command(flatten)]
    node: NodeArguments,

    /// Where to answer for /metrics, /healthz and /readyz [default: nowhere].
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics_address: Option<SocketAddr>,

    #[command(flatten)]
    log: LogArguments,
}

pub(crate) fn run(arguments: AgentArguments) -> Result<Outcome, CliError> {
    log_as(&arguments.log)?;
    let config = Config {
        node_name: arguments.node.name()?,
        failsafe: arguments.node.failsafe(),
        node_labels: arguments.node.node_labels.0,
        instance: arguments.instance.state.instance,
        bpffs: arguments.instance.bpffs,
        state: arguments.instance.state.state_dir,
        source: match arguments.source.as_str() {
            "kubernetes" => SourceConfig::Kubernetes {
                kubeconfig: arguments.kubeconfig,
            },
            directory => SourceConfig::Directory(directory.into()),
        },
        namespace: arguments.namespace,
        metrics: arguments.metrics_address,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?;
    runtime.block_on(headgate_agent::run(config))?;
    Ok(Outcome::Fine)
}
