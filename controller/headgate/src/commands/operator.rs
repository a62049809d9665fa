//! `headgate operator`.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use headgate_operator::{
    Config,
    admission::{self, Certificates, Lifetimes},
    peers::Network,
};

use crate::{
    log::{LogArguments, log_as},
    outcome::{CliError, Outcome},
};

/// Say for the whole cluster what is in force where.
///
/// Rolls up what the nodes' agents show into the status of every resource, keeps the reserved
/// CidrGroups nodes, api-servers and pod-cidrs, LoadBalancerServices of Services and, if told to, TunnelPeers of
/// Nodes, and removes what agents said of nodes that are no
/// more. Of several replicas one leads. What nodes enforce does not depend on it.
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

    /// Keep a TunnelPeer for each Node, of its podCIDRs and its first InternalIP, with this VXLAN network
    /// identifier. Without it none is kept, and those that were kept are removed.
    #[arg(long, value_name = "VNI", value_parser = clap::value_parser!(u32).range(1..=16_777_215))]
    peers_from_nodes: Option<u32>,

    /// UDP port of the peers that are kept for Nodes.
    #[arg(long, value_name = "PORT", default_value_t = 8472, value_parser = clap::value_parser!(u16).range(1..))]
    peers_port: u16,

    /// Where to answer the API server's admission reviews, such as 0.0.0.0:9443 [default: nowhere].
    #[arg(long, value_name = "ADDRESS:PORT")]
    webhook_listen: Option<SocketAddr>,

    /// DNS name or IP address by which the API server reaches the webhook; may be given several
    /// times [default: headgate-webhook.NAMESPACE.svc].
    #[arg(long, value_name = "NAME")]
    webhook_name: Vec<String>,

    /// Folder with the webhook's tls.crt and tls.key, read again when they change, such as a Secret
    /// of cert-manager's [default: an authority of its own, in the Secret headgate-webhook].
    #[arg(long, value_name = "DIR")]
    webhook_cert_dir: Option<PathBuf>,

    /// Where to answer for /metrics, /healthz and /readyz [default: nowhere].
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics_address: Option<SocketAddr>,

    #[command(flatten)]
    log: LogArguments,
}

pub(crate) fn run(arguments: OperatorArguments) -> Result<Outcome, CliError> {
    log_as(&arguments.log)?;
    let config = Config {
        admission: arguments.admission(),
        kubeconfig: arguments.kubeconfig,
        namespace: arguments.namespace,
        identity: arguments.identity.unwrap_or_else(host_and_process),
        argocd_namespace: arguments.argocd_namespace,
        peers_from_nodes: arguments.peers_from_nodes.map(|vni| Network {
            vni,
            port: arguments.peers_port,
        }),
        metrics: arguments.metrics_address,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?;
    runtime.block_on(headgate_operator::run(config))?;
    Ok(Outcome::Fine)
}

impl OperatorArguments {
    fn admission(&self) -> Option<admission::Config> {
        let mut names = self.webhook_name.clone();
        if names.is_empty() {
            names.push(format!("headgate-webhook.{}.svc", self.namespace));
        }
        Some(admission::Config {
            listen: self.webhook_listen?,
            namespace: self.namespace.clone(),
            names,
            certificates: match &self.webhook_cert_dir {
                Some(folder) => Certificates::Files(folder.clone()),
                None => Certificates::Own(Lifetimes::default()),
            },
        })
    }
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
