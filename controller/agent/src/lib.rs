//! The per-node loop: read, compile, diff, apply, confirm, report.

pub mod config;
mod cycle;
pub mod facts;
pub mod lock;
pub mod report;
pub mod resources;
mod run;
pub mod store;

pub use run::{AgentError, lost_memory, now, run};
