//! Events: verdicts as they happen, told to whoever monitors.
//!
//! Whether anybody does is one word ([`crate::maps::MONITORED`]): all that a packet costs that nobody
//! watches.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Verdict of the monitor's word: packets that are dropped.
pub const DROPPED: u32 = 1;
/// IP packets that pass.
pub const ALLOWED: u32 = 2;
/// What is not IP, and passes.
pub const NOT_IP: u32 = 4;

/// Bytes of a frame in an event, at most.
pub const CAPTURED: u32 = 128;

/// Size of the ring that events wait in, a power of two.
pub const RING_BYTES: u32 = 1 << 18;

/// In the place of a port: the tunnel's device. The cause is a number of [`crate::tunnel::Event`].
pub const TUNNEL_PORT: u16 = u16::MAX;

/// What a monitor asks for.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Order {
    /// Until when, in nanoseconds of `CLOCK_MONOTONIC`. A monitor puts this off as long as it lives;
    /// the first packet after it ends the order.
    pub until: u64,
    /// Nanoseconds that one event costs on a CPU: the inverse of its rate.
    pub interval: u64,
    /// Nanoseconds that a CPU saves up at most, for bursts.
    pub burst: u64,
    /// Counter of the only rule whose packets are told, or `NO_RULE` for all packets.
    pub counter: u32,
    /// Process id of the monitor, for people.
    pub holder: u32,
}

/// One CPU's part in the limit of the rate, and what it did not tell. Only ever counted up.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Budget {
    /// When [`Self::saved`] was reckoned last.
    pub reckoned: u64,
    /// Nanoseconds saved up.
    pub saved: u64,
    /// Events left out for the rate's sake.
    pub limited: u64,
    /// Events left out since the ring was full.
    pub full: u64,
}

/// One packet's verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Event {
    /// When, in nanoseconds of `CLOCK_MONOTONIC_COARSE`.
    pub time: u64,
    /// First bytes of the digest of the tables that were asked; zeros where none were.
    pub tables: [u8; 8],
    /// Bytes as they are counted.
    pub length: u32,
    /// The rule's counter, or the reason's number.
    pub cause: u32,
    /// The port, or [`TUNNEL_PORT`].
    pub port: u16,
    /// Number of the action.
    pub action: u8,
    /// 1 where `cause` is a rule's counter.
    pub by_rule: u8,
    /// Bytes of `frame` that are the frame's.
    pub captured: u32,
    /// The frame's first bytes.
    pub frame: [u8; CAPTURED as usize],
}
