//! What the agent says of itself: written by each cycle that changes anything, read by the CLI.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use crate::reachability::Reachability;
use headgate_compile::{
    compilation::{PeerSummary, PolicySummary, ServiceSummary, TablesSummary},
    finding::Finding,
};
use headgate_datapath::state::{AttachedMode, Digest, PortIndex};
use serde::{Deserialize, Serialize};

/// Whether an interface enforces what it should.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PortStatus {
    /// Read back from the kernel: attached, ours, the wanted tables in the active slot.
    Enforced,
    /// Enforces something else than wanted, for the reason given.
    Outdated(String),
    /// Enforces nothing, for the reason given.
    NotEnforced(String),
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortReport {
    /// Name of the interface.
    pub interface: String,
    /// Its number.
    pub ifindex: u32,
    /// How the program is attached, if it is.
    pub mode: Option<AttachedMode>,
    /// Why not in native mode, where `attachMode: Auto` fell back.
    pub native_refusal: Option<String>,
    /// The tables that it should enforce.
    pub tables: Digest,
    /// Whether it does.
    pub status: PortStatus,
}

/// The tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelReport {
    /// Digest of what it should be.
    pub wanted: Digest,
    /// Whether it is that.
    pub status: PortStatus,
}

/// The whole report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Name of the node.
    pub node: String,
    /// Its labels.
    #[serde(default)]
    pub node_labels: BTreeMap<String, String>,
    /// Where resources are read.
    pub source: String,
    /// Why the source cannot be read at present.
    pub source_unavailable: Option<String>,
    /// The revision that should be live; absent where nothing was compiled yet.
    pub wanted_revision: Option<Digest>,
    /// The revision that was read back from the kernel.
    pub live_revision: Option<Digest>,
    /// Digest of what ports enforce, without the tunnel.
    #[serde(default)]
    pub live_enforcement: Option<Digest>,
    /// Digest of the inputs that the live revision was compiled from, where they compare with those
    /// of other nodes.
    #[serde(default)]
    pub inputs: Option<Digest>,
    /// Where the API servers listen, as far as it is known.
    #[serde(default)]
    pub api_servers: BTreeSet<SocketAddr>,
    /// Interfaces by port.
    pub ports: BTreeMap<PortIndex, PortReport>,
    /// Policies.
    pub policies: Vec<PolicySummary>,
    /// Services.
    #[serde(default)]
    pub services: Vec<ServiceSummary>,
    /// Peers of the tunnel.
    #[serde(default)]
    pub peers: Vec<PeerSummary>,
    /// The tunnel; absent where no peer needs one.
    #[serde(default)]
    pub tunnel: Option<TunnelReport>,
    /// Peers that packets do not get to by the tunnel's routes, with the reason.
    #[serde(default)]
    pub diverted: BTreeMap<String, String>,
    /// Whether peers are there, by their names; those of which nothing is known yet are missing.
    #[serde(default)]
    pub reachability: BTreeMap<String, Reachability>,
    /// Tables.
    pub tables: Vec<TablesSummary>,
    /// What there is to say about resources.
    pub findings: Vec<Finding>,
    /// Steps that failed and other errors of the node.
    pub failures: Vec<String>,
}
