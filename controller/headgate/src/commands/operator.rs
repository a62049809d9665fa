//! `headgate operator`.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use headgate_operator::Config;

use crate::{
    log::{LogArguments, log_as},
    outcome::{CliError, Outcome},
};

/// Say for the whole cluster what is in force where.
///
/// Rolls up what the nodes' agents show into the status of every XdpPolicy and CidrGroup, keeps the
/// reserved CidrGroups nodes, api-servers and pod-cidrs, and removes what agents said of nodes that
/// are no more. Of several replicas one leads. What nodes enforce does not depend on it.
#[derive(Args, Debug)]
#[command(after_help = "\
Logs go to standard error; HEADGATE_LOG sets what is logged (info; headgate_operator=debug; ...).")]
pub(crate) struct OperatorArguments {
    /// How to reach the API; in a pod its service account where absent.
    #[arg(long, value_name = "FILE", env = "KUBECONFIG")]
    kubeconfig: Option<PathBuf>,

    /// Namespace of the Leases, of the operator's own and of the agents'.
    #[arg(long, value_name = "NAME", default_value = "headgate-system")]
    namespace: String,

    /// What this replica is called among the others [default: the host's name].
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    identity: Option<String>,

    /// Namespace of Argo CD's Applications, which tell the commit that a resource came from.
    #[arg(long, value_name = "NAME", default_value = "argocd")]
    argocd_namespace: String,

    /// Where to answer for /metrics, /healthz and /readyz [default: nowhere].
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics_address: Option<SocketAddr>,

    #[command(flatten)]
    log: LogArguments,
}

pub(crate) fn run(arguments: OperatorArguments) -> Result<Outcome, CliError> {
    log_as(&arguments.log)?;
    let config = Config {
        kubeconfig: arguments.kubeconfig,
        namespace: arguments.namespace,
        identity: arguments.identity.unwrap_or_else(host_and_process),
        argocd_namespace: arguments.argocd_namespace,
        metrics: arguments.metrics_address,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?;
    runtime.block_on(headgate_operator::run(config))?;
    Ok(Outcome::Fine)
}

/// Two replicas on one host are two.
fn host_and_process() -> String {
    let host = rustix::system::uname();
    format!(
        "{}-{}",
        host.nodename().to_string_lossy(),
        std::process::id()
    )
}
