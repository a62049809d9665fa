//! Nodes as network namespaces joined by cables, agents as processes, real packets counted at the
//! far end; and a real Kubernetes control plane for nodes that are to obey its API.
//!
//! Everything that a test makes goes away when it is dropped, on a panic too, and is named after
//! the process, so that several runs live side by side.

pub mod argocd;
pub mod assets;
pub mod audit;
pub mod binary;
pub mod cable;
pub mod capture;
pub mod certificates;
pub mod cluster;
pub mod control_plane;
pub mod fleet;
pub mod flow;
pub mod frames;
pub mod git;
pub mod judged;
pub mod kubeconfig;
pub mod kubectl;
pub mod lab;
pub mod leftovers;
pub mod namespace;
pub mod node;
pub mod operator;
pub mod paths;
pub mod pod;
pub mod policies;
mod process;
pub mod real;
pub mod said;
pub mod services;
pub mod tap;
pub mod trials;
pub mod tunnel;
pub mod wait;
