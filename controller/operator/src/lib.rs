//! What one process does for the whole cluster: it answers admission reviews, rolls up what the
//! nodes show into the status of each resource, and keeps the reserved groups.
//!
//! ```text
//! nodes, NodeDatapaths, Leases, resources ──watches──► Fleet ──rollup──► status of each resource
//!                                                        └──► warnings of admission
//! ```
//!
//! Nothing that a node enforces waits for it.

pub mod admission;
pub mod fleet;
