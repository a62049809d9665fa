//! The cluster as its API tells it: what commands show that do not look at this node's kernel.

mod nodes;
mod policies;

use std::{env, ffi::OsStr, future::Future, path::Path};

use clap::Args;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::outcome::CliError;

pub(crate) use nodes::{NodeView, nodes};
pub(crate) use policies::{PolicyOnNodes, Standing, policies};

/// Names under which kubectl finds this binary as its plugin.
const PLUGIN_NAMES: [&str; 2] = ["kubectl-headgate", "kubectl_headgate"];

/// Whether to ask the cluster's API, and which.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Cluster-wide, by the API")]
pub(crate) struct ClusterArguments {
    /// Ask the API about all nodes, in place of this node's kernel. As `kubectl headgate` that is
    /// so from the outset.
    #[arg(long)]
    cluster: bool,

    /// The kubeconfig to reach it by, in place of KUBECONFIG and ~/.kube/config; implies --cluster.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<std::path::PathBuf>,

    /// The kubeconfig's context to use; implies --cluster.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,

    /// Namespace of the agents' Leases.
    #[arg(long, value_name = "NAME", default_value = "headgate-system")]
    pub(crate) namespace: String,
}

impl ClusterArguments {
    /// Whether the cluster is meant and not this node.
    pub(crate) fn is_wanted(&self) -> bool {
        self.cluster || self.kubeconfig.is_some() || self.context.is_some() || is_plugin()
    }

    /// Runs `ask` with a client of the API.
    pub(crate) fn ask<T, F>(&self, ask: impl FnOnce(Client) -> F) -> Result<T, CliError>
    where
        F: Future<Output = Result<T, kube::Error>>,
    {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(CliError::Runtime)?;
        runtime.block_on(async {
            let client = self.client().await?;
            ask(client)
                .await
                .map_err(|error| CliError::Api(Box::new(error)))
        })
    }

    async fn client(&self) -> Result<Client, CliError> {
        let options = KubeConfigOptions {
            context: self.context.clone(),
            ..KubeConfigOptions::default()
        };
        let config = match &self.kubeconfig {
            Some(path) => match Kubeconfig::read_from(path) {
                Ok(kubeconfig) => Config::from_custom_kubeconfig(kubeconfig, &options).await,
                Err(error) => Err(error),
            },
            None => Config::from_kubeconfig(&options).await,
        };
        Client::try_from(config?).map_err(|error| CliError::Api(Box::new(error)))
    }
}

/// Whether kubectl runs this binary as `kubectl headgate`.
pub(crate) fn is_plugin() -> bool {
    let called = env::args_os().next();
    let name = called.as_deref().map(Path::new).and_then(Path::file_name);
    name.and_then(OsStr::to_str)
        .is_some_and(|name| PLUGIN_NAMES.contains(&name))
}
