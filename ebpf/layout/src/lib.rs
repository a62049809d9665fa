//! What kernel and user space agree on: the maps, their keys and values, and the layout of a
//! policy set's tables. Any change here that an older program or agent would misread raises
//! [`LAYOUT_VERSION`].
#![no_std]

pub mod failsafe;
pub mod flows;
pub mod maps;
pub mod monitor;
pub mod services;
pub mod settling;
pub mod tables;
pub mod trie;
pub mod tunnel;
pub mod verdict;

/// Version of everything in this crate; part of the pins' path, so that two layouts never share a map.
pub const LAYOUT_VERSION: u32 = 7;
