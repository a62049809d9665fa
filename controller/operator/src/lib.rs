//! What one process does for the whole cluster: it answers admission reviews, rolls up what the
//! nodes show into the status of each resource, and keeps what is made of others: the reserved groups, services of
//! Services, and peers of Nodes.
//!
//! ```text
//! nodes, NodeDatapaths, Leases, resources ──watches──► Fleet ──rollup──► status of each resource
//!                                                        └──► warnings of admission
//! ```
//!
//! Nothing that a node enforces waits for it.

pub mod admission;
pub mod coverage;
pub mod fleet;
mod gone;
pub mod leader;
pub mod peers;
pub mod provenance;
pub mod reserved;
pub mod rollup;
mod run;
pub mod services;
mod sockets;
pub mod status;
mod statuses;
mod telemetry;
mod turns;
mod watches;

pub use run::{Config, OperatorError, run};

/// Who writes, in the API's books.
const FIELD_MANAGER: &str = "headgate-operator";
