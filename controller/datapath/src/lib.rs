//! The datapath as plain data: what is wanted, what is observed, and the plan that turns one into
//! the other. Nothing here touches a kernel.

pub mod diff;
pub mod failsafe;
pub mod fake;
pub mod invariants;
pub mod kernel;
pub mod native;
pub mod observed;
pub mod plan;
pub mod pods;
pub mod state;
pub mod tunnel;
