//! Layout of the tunnel's block: from an inner address to the peer that has it.
//!
//! ```text
//! inner destination ──trie──► class ─► peers[class - 1]: where the packet goes
//! inner source      ──trie──► class ─► peers[class - 1]: who may have sent it
//! ```
//!
//! The block begins as those of policies do: a [`crate::tables::Header`], of which only version and length are
//! set, and the tries of both families, `destination` over the peers' networks, `source` over these and
//! their endpoints. Class 0 is nobody's. The longest prefix wins.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::maps::LINE;

/// Where the [`Tunnel`] lies: where other blocks have their services.
pub const TUNNEL: u32 = crate::services::SERVICES;

/// Bytes of the map that holds the block.
pub const CAPACITY: u32 = 4 << 20;

/// Largest offset in the block at which a whole line can be read.
pub const LIMIT: u32 = CAPACITY - LINE;

/// Highest number of a network: 24 bits.
pub const MAX_VNI: u32 = (1 << 24) - 1;

/// Where the peers lie.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Tunnel {
    /// `[Peer]`.
    pub peers: u32,
    /// Number of peers.
    pub count: u32,
    /// The UDP port of them all.
    pub port: u32,
    /// Nothing.
    pub padding: u32,
}

/// A peer: where its packets go to and come from.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Peer {
    /// Its address in the network below, in host order; IPv4 as IPv4-mapped IPv6.
    pub endpoint: [u64; 2],
    /// The node's own address on the way there, in the same form; 0 where the kernel is to choose.
    pub local: [u64; 2],
    /// Number of the network that packets to it carry.
    pub vni: u32,
    /// Number of the network that packets from it must carry.
    pub accepted_vni: u32,
    /// 1 where the endpoint is an IPv6 address, else 0.
    pub is_v6: u32,
    /// 1 where what comes from it goes to pods without the node's stack, else 0.
    pub is_direct: u32,
}

/// Most pods, and so entries of [`crate::maps::TUNNEL_PODS`]: a node has some hundreds at most, of two families.
pub const MAX_PODS: u32 = 4_096;

/// Where a pod of this node is, by its address in the form of [`Peer::endpoint`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Pod {
    /// The node's end of the veth pair.
    pub ifindex: u32,
    /// Link-layer address of the pod's end.
    pub mac: [u8; 6],
    /// Nothing.
    pub padding: u16,
}

/// Most peers, and so entries of [`crate::maps::TUNNEL_SEEN`].
pub const MAX_PEERS: u32 = 65_536;

/// Jiffies of a tick, by their logarithm: how often at most a peer's [`Seen`] is written.
pub const TICK: u32 = 6;

/// When a packet came from a peer last; all 0 where none did. One word, so that it is written whole.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct Seen(pub u64);

impl Seen {
    /// In this tick, at this second of the monotonic clock.
    #[inline(always)]
    #[must_use]
    pub const fn at(tick: u32, second: u32) -> Self {
        Self((tick as u64) << 32 | second as u64)
    }

    /// The tick.
    #[inline(always)]
    #[must_use]
    pub const fn tick(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The second of the monotonic clock, or `None` where no packet came.
    #[must_use]
    pub const fn second(self) -> Option<u32> {
        match self.0 {
            0 => None,
            word => Some(word as u32),
        }
    }
}

/// Counters of the tunnel.
pub const COUNTERS: u32 = 32;

macro_rules! events {
    ($($(#[$doc:meta])* $name:ident = $value:literal => $drops:literal,)*) => {
        /// What became of a packet at the tunnel's device.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Event {
            $($(#[$doc])* $name = $value,)*
        }

        impl Event {
            /// All, in the order of their numbers.
            pub const ALL: &'static [Event] = &[$(Event::$name,)*];

            /// Whether such a packet is dropped.
            #[inline(always)]
            #[must_use]
            pub const fn drops(self) -> bool {
                match self {
                    $(Event::$name => $drops,)*
                }
            }

            /// Name as shown to people and in JSON.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Event::$name => stringify!($name),)*
                }
            }
        }
    };
}

events! {
    /// Went to a peer.
    Sent = 0 => false,
    /// Came from a peer that may send it.
    Received = 1 => false,
    /// To be sent, and neither IPv4 nor IPv6: ARP among them, which nobody is asked here.
    SentNotIp = 2 => true,
    /// To be sent, and its headers cannot be read.
    SentMalformed = 3 => true,
    /// To be sent, and no peer has the destination.
    NoPeer = 4 => true,
    /// To be sent, and there are no tables.
    SentNoTables = 5 => true,
    /// To be sent, and the kernel took no tunnel key for it.
    NoKey = 6 => true,
    /// Came by the device without a tunnel's header.
    NoOuterHeader = 7 => true,
    /// Received, and neither IPv4 nor IPv6.
    ReceivedNotIp = 8 => true,
    /// Received, and its headers cannot be read.
    ReceivedMalformed = 9 => true,
    /// Received, and there are no tables.
    ReceivedNoTables = 10 => true,
    /// Received, and no peer has the inner source.
    UnknownSource = 11 => true,
    /// Received, and the inner source is of another peer than the outer one.
    SpoofedSource = 12 => true,
    /// Received with another network's number than the peer is to use.
    WrongVni = 13 => true,
    /// Received, and a tunnel's packet inside again.
    Nested = 14 => true,
    /// To be sent to a group: each peer has networks of its own.
    Multicast = 15 => true,
    /// Came from a peer that may send it, and went to a pod without the node's stack.
    Delivered = 16 => false,
}
