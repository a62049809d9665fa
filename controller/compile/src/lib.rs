//! Compiles resources and node facts into datapath state: pure, the same input gives the same
//! output, and nothing is read or written.
//!
//! ```text
//! snapshot ──adopt──► resources that stand ──resolve──► rules with address sets
//!                                                          │ one classifier for each policy set
//! node facts ──select──► interfaces, their policies ───────┴──► blocks, attachments
//! ```

pub mod addresses;
mod adopt;
pub mod classifier;
pub mod compilation;
mod counters;
pub mod endpoints;
pub mod finding;
pub mod inputs;
pub mod memory;
pub mod node;
mod ports;
mod resolve;
mod select;
pub mod services;
pub mod snapshot;
pub mod trie;
pub mod tunnel;
pub mod uplinks;

pub use compilation::{Compilation, TablesSummary, compile, compile_with};
