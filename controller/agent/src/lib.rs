//! The per-node loop: read, compile, diff, apply, confirm, report.

mod cluster;
pub mod config;
mod cycle;
mod endpoints;
pub mod facts;
mod kept;
pub mod lock;
mod pod_mtu;
pub mod pods;
mod prober;
pub mod reachability;
pub mod report;
pub mod resources;
mod run;
mod source;
pub mod store;
mod telemetry;
mod unserved;
pub mod ways;

pub use run::{AgentError, lost_memory, now, run};
