//! What an agent is told at its start.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
};

use headgate_datapath::state::FailsafePeer;

pub use crate::source::SourceConfig;

/// Settings of one agent.
#[derive(Clone, Debug)]
pub struct Config {
    /// Names the pins' folder, the state folder and the lock, so that agents live side by side.
    pub instance: String,
    /// Where bpffs is, or is to be mounted.
    pub bpffs: PathBuf,
    /// Where all instances keep their state.
    pub state: PathBuf,
    /// Where resources are read.
    pub source: SourceConfig,
    /// Name of the node.
    pub node_name: String,
    /// Labels of the node, where no API tells them.
    pub node_labels: BTreeMap<String, String>,
    /// Peers that are never dropped, besides those that an API tells.
    pub failsafe: BTreeSet<FailsafePeer>,
    /// Namespace of the agents' Leases.
    pub namespace: String,
    /// Where to answer for metrics and probes, if anywhere.
    pub metrics: Option<SocketAddr>,
}

/// Folder of an instance's state.
#[must_use]
pub fn state_folder(state: &std::path::Path, instance: &str) -> PathBuf {
    state.join(instance)
}
