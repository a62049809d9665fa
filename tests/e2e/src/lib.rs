//! Nodes as network namespaces joined by cables, agents as processes, real packets counted at the
//! far end.
//!
//! Everything that a test makes goes away when it is dropped, on a panic too, and is named after
//! the process, so that several runs live side by side.

pub mod binary;
pub mod cable;
pub mod flow;
pub mod frames;
pub mod judged;
pub mod lab;
pub mod leftovers;
pub mod namespace;
pub mod node;
pub mod paths;
pub mod policies;
pub mod said;
pub mod tap;
pub mod trials;
pub mod wait;
