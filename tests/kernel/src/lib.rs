//! What kernel tests share: a network namespace and pins of their own, blocks and frames by hand.

pub mod blocks;
pub mod datagrams;
pub mod frames;
pub mod messages;
pub mod network;
pub mod node;
pub mod trials;
pub mod tunnel;
