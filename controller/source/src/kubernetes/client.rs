//! A client of the API, and who it talks to.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, time::Duration};

use kube::{
    Client, Config,
    config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};

/// A server that does not answer by then is tried again.
const CONNECT: Duration = Duration::from_secs(5);

/// Why there is no client. Outcome: nothing is watched; what is enforced stays.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The kubeconfig is missing or bad.
    #[error("kubeconfig {}: {source}", path.display())]
    Kubeconfig {
        /// Which.
        path: PathBuf,
        /// Why.
        source: KubeconfigError,
    },
    /// Not in a pod.
    #[error("not in a pod ({0}); name a kubeconfig by --kubeconfig")]
    NotInCluster(#[from] InClusterError),
    /// A certificate or key in the kubeconfig cannot be used.
    #[error("the kubeconfig's certificates or keys cannot be used: {0}")]
    Client(#[from] kube::Error),
}

/// A client, and the API server that it was told to talk to.
pub struct Connection {
    /// The client.
    pub client: Client,
    /// The server's addresses, as far as its name could be resolved.
    pub peers: BTreeSet<SocketAddr>,
}

/// A client by `kubeconfig`, or without one as a pod's service account.
///
/// # Errors
/// The kubeconfig, or the pod's own files, cannot be used. Whether the server answers is not asked.
pub async fn connect(kubeconfig: Option<&PathBuf>) -> Result<Connection, ClientError> {
    let mut config = match kubeconfig {
        Some(path) => from_file(path)
            .await
            .map_err(|source| ClientError::Kubeconfig {
                path: path.clone(),
                source,
            })?,
        None => Config::incluster()?,
    };
    config.connect_timeout = Some(CONNECT);
    Ok(Connection {
        peers: peers(&config).await,
        client: Client::try_from(config)?,
    })
}

async fn from_file(path: &PathBuf) -> Result<Config, KubeconfigError> {
    let kubeconfig = Kubeconfig::read_from(path)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await
}

async fn peers(config: &Config) -> BTreeSet<SocketAddr> {
    let url = &config.cluster_url;
    let https = url.scheme_str() != Some("http");
    let port = url.port_u16().unwrap_or(if https { 443 } else { 80 });
    let host = url.host().unwrap_or_default();
    let host = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    match tokio::net::lookup_host((host.as_str(), port)).await {
        Ok(found) => found.collect(),
        Err(error) => {
            tracing::warn!(host, %error, "the API server's name cannot be resolved now");
            BTreeSet::new()
        }
    }
}
