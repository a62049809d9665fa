//! Parsing, classification and verdict of packets: one code for the kernel and the host.
//!
//! The verifier refuses slices over packet memory, so everything here is generic over two small
//! traits: [`frame::Frame`] for the packet, [`tables::Tables`] for the tables. The program
//! implements them over pointers that it compares with `data_end` and over map values, the host
//! over slices.
#![no_std]

pub mod aging;
pub mod balance;
pub mod blind;
pub mod classify;
pub mod failsafe;
pub mod flows;
pub mod forward;
pub mod frame;
pub mod icmp;
pub mod judge;
pub mod nat;
pub mod overlay;
pub mod parse;
pub mod report;
pub mod settling;
pub mod tables;
pub mod trie;
pub mod tunnel;
mod wire;
