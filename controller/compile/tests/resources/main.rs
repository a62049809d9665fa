//! The life of resources: what is in effect after each change, good or bad, and what is said.
#![allow(clippy::unwrap_used)]

#[path = "../model/mod.rs"]
mod model;
#[path = "../scene/mod.rs"]
mod scene;

mod bad;
mod counters;
mod determinism;
mod groups;
mod interfaces;
mod known_failures;
mod lost_memory;
mod nodes;
mod ports;
mod services;
mod settling;
mod too_large;
