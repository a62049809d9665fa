//! What an agent is told at its start.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use headgate_datapath::state::FailsafePeer;

/// Settings of one agent.
#[derive(Clone, Debug)]
pub struct Config {
    /// Names the pins' folder, the state folder and the lock, so that agents live side by side.
    pub instance: String,
    /// Where bpffs is, or is to be mounted.
    pub bpffs: PathBuf,
    /// Where all instances keep their state.
    pub state: PathBuf,
    /// Directory of resources.
    pub source: PathBuf,
    /// Name of the node.
    pub node_name: String,
    /// Labels of the node.
    pub node_labels: BTreeMap<String, String>,
    /// Peers that are never dropped.
    pub failsafe: BTreeSet<FailsafePeer>,
}

/// Folder of an instance's state.
#[must_use]
pub fn state_folder(state: &std::path::Path, instance: &str) -> PathBuf {
    state.join(instance)
}
