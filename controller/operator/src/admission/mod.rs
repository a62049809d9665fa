//! The validating webhook: what the object alone shows is refused, what depends on other objects or
//! on nodes is a warning.
//!
//! ```text
//! Secret headgate-webhook, or files ──► certificate ──► TLS ──► POST /validate ──► check ──► answer
//! Fleet ──► index of groups, nodes and policies ─────────────────────────────────────► warnings
//! ```
//!
//! The check is [`headgate_crds::check`], the one that agents run. Nothing here asks the API while
//! a review waits.

mod certificates;
mod connections;
mod fleet_index;
mod limits;
mod review;
mod server;
mod shadowed;
mod warnings;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

use kube::Client;
use tokio::{net::TcpListener, sync::watch};

pub use certificates::Lifetimes;
pub use review::review;

use crate::fleet::Fleet;
use certificates::Served;
use connections::Connections;
pub use fleet_index::FleetIndex;

/// The ValidatingWebhookConfiguration, as the manifests name it.
pub const CONFIGURATION: &str = "headgate";
/// The Secret that holds the webhook's own certificates.
pub const SECRET: &str = "headgate-webhook";
/// Who writes the authorities' certificates into the ValidatingWebhookConfiguration.
pub const FIELD_MANAGER: &str = "headgate-webhook-ca";

/// How the webhook is served.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The namespace of the Secret.
    pub namespace: String,
    /// DNS names and IP addresses by which the API server reaches it.
    pub names: Vec<String>,
    /// Its certificates.
    pub certificates: Certificates,
}

/// Where certificates come from.
#[derive(Clone, Debug)]
pub enum Certificates {
    /// From an authority of the webhook's own, which the leader keeps in the Secret, renews, and
    /// writes into the ValidatingWebhookConfiguration.
    Own(Lifetimes),
    /// From `tls.crt` and `tls.key` in this folder, such as cert-manager's mounted Secret. They are
    /// read again when they change; whoever makes them also tells the API server the authority.
    Files(PathBuf),
}

/// Why the webhook is not served. Outcome: the process ends; the API server refuses policies until
/// another replica answers, and what nodes enforce stays.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port cannot be had.
    #[error(
        "the admission webhook cannot listen on {address}: {source}; free the port, or name another by --webhook-listen"
    )]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// Serves the webhook until it is told to stop, and then answers what has come. `fleet` is what
/// warnings know of the cluster: as long as it has no nodes it counts as not known yet. `is_leader`
/// tells whether this replica makes the certificates.
///
/// # Errors
/// The port cannot be had. Anything else that fails is tried again and logged.
pub async fn serve(
    client: Client,
    config: Config,
    fleet: watch::Receiver<Arc<Fleet>>,
    is_leader: watch::Receiver<bool>,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let address = config.listen;
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|source| Error::Listen { address, source })?;
    let served = Arc::new(Served::default());
    let connections = Connections::new();
    let (index, known) = watch::channel(Arc::default());
    tokio::select! {
        never = certificates::keep(client, &config, &served, is_leader) => match never {},
        never = fleet_index::follow(fleet, &index) => match never {},
        never = server::serve(listener, Arc::clone(&served), known, &connections) => match never {},
        () = stop => {}
    }
    // Nobody listens any more, and no certificate is written.
    connections.end().await;
    Ok(())
}
