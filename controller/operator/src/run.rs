//! Starts everything, and ends when it is told to.

use std::{
    convert::Infallible, future::pending, net::SocketAddr, path::PathBuf, pin::pin, sync::Arc,
};

use futures_util::{FutureExt as _, future::FusedFuture as _};
use headgate_source::kubernetes::{ClientError, connect};
use headgate_telemetry::{TelemetryError, serve};
use kube::Client;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{oneshot, watch},
};

use crate::{
    admission,
    fleet::Fleet,
    gone,
    leader::{LeaderError, campaign, resign},
    peers, reserved, services, statuses,
    telemetry::{Health, Metrics},
    watches::Watches,
};

/// How to run.
#[derive(Clone, Debug)]
pub struct Config {
    /// How to reach the API; in a pod its service account where absent.
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of the Leases, of the operator's and of the agents'.
    pub namespace: String,
    /// What this replica is called among the others.
    pub identity: String,
    /// How to answer admission reviews, if at all.
    pub admission: Option<admission::Config>,
    /// Where to answer for metrics and probes, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// Where Applications of Argo CD are, where an object does not say.
    pub argocd_namespace: String,
    /// By which network Nodes are to be joined, if they are.
    pub peers_from_nodes: Option<peers::Network>,
}

/// Why the operator ended. Outcome: whoever runs it starts it again; nodes go on meanwhile.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// There is no client of the API.
    #[error(transparent)]
    Api(#[from] ClientError),
    /// Another replica leads.
    #[error(transparent)]
    Leader(#[from] LeaderError),
    /// Admission reviews are not answered.
    #[error(transparent)]
    Admission(#[from] admission::Error),
    /// Metrics and probes are not answered.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// Signals cannot be received.
    #[error("installing signal handlers: {0}")]
    Signals(std::io::Error),
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// What makes work impossible, or the loss of the lead.
pub async fn run(config: Config) -> Result<(), OperatorError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(OperatorError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(OperatorError::Signals)?;
    let client = connect(config.kubeconfig.as_ref()).await?.client;
    let (publish, fleet) = watch::channel(Arc::new(Fleet::default()));
    let (leads, is_leader) = watch::channel(false);
    let (stop, stopped) = oneshot::channel();
    let (namespace, identity) = (&config.namespace, &config.identity);
    let admission = admit(
        &client,
        config.admission.clone(),
        &fleet,
        &is_leader,
        stopped,
    );
    let mut admission = pin!(admission.fuse());
    let listening: Vec<u16> = [config.metrics, config.admission.as_ref().map(|a| a.listen)]
        .into_iter()
        .flatten()
        .map(|address| address.port())
        .collect();
    tracing::info!(identity, namespace, "operator started");
    let outcome = tokio::select! {
        never = Watches::new(&client, namespace).publish(publish) => match never {},
        never = statuses::keep(
            client.clone(),
            identity.clone(),
            config.argocd_namespace.clone(),
            fleet.clone(),
            is_leader.clone(),
        ) => match never {},
        never = reserved::keep(client.clone(), fleet.clone(), is_leader.clone()) => match never {},
        never = services::keep(client.clone(), fleet.clone(), is_leader.clone()) => match never {},
        never = peers::keep(
            client.clone(),
            config.peers_from_nodes,
            fleet.clone(),
            is_leader.clone(),
        ) => match never {},
        never = gone::remove(client.clone(), fleet.clone(), is_leader.clone()) => match never {},
        failed = tell(config.metrics, &fleet, &is_leader) => match failed {
            Err(error) => Err(error.into()),
            Ok(never) => match never {},
        },
        failed = admission.as_mut() => failed.map_err(Into::into),
        lost = campaign(client.clone(), namespace, identity.clone(), &listening, &leads) => match lost {
            Err(error) => Err(error.into()),
            Ok(never) => match never {},
        },
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    // Whoever wrote was stopped with what ended; reviews that have come are answered yet.
    let led = leads.send_replace(false);
    drop(stop);
    let resigned = async {
        if led {
            resign(client.clone(), namespace, identity).await;
        }
    };
    let answered = async {
        if !admission.is_terminated() {
            let _ = admission.await;
        }
    };
    tokio::join!(resigned, answered);
    tracing::info!("operator stopped; nodes go on with what they have");
    outcome
}

/// Answers reviews, until the sender of `stopped` is gone.
async fn admit(
    client: &Client,
    config: Option<admission::Config>,
    fleet: &watch::Receiver<Arc<Fleet>>,
    is_leader: &watch::Receiver<bool>,
    stopped: oneshot::Receiver<Infallible>,
) -> Result<(), admission::Error> {
    let stopped = stopped.map(|_| ());
    let Some(config) = config else {
        stopped.await;
        return Ok(());
    };
    let (fleet, is_leader) = (fleet.clone(), is_leader.clone());
    admission::serve(client.clone(), config, fleet, is_leader, stopped).await
}

async fn tell(
    address: Option<SocketAddr>,
    fleet: &watch::Receiver<Arc<Fleet>>,
    is_leader: &watch::Receiver<bool>,
) -> Result<Infallible, TelemetryError> {
    let Some(address) = address else {
        return pending().await;
    };
    let metrics = Metrics {
        fleet: fleet.clone(),
        is_leader: is_leader.clone(),
    };
    let health = Health {
        fleet: fleet.clone(),
    };
    serve(address, metrics, Arc::new(health)).await
}
