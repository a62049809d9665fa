//! Layout of a policy set's tables: one immutable block of memory.
//!
//! Classification is by crossing equivalence classes (recursive flow classification: P. Gupta and
//! N. McKeown, "Packet Classification on Multiple Fields", SIGCOMM 1999). Each field of a packet
//! gives a class; classes are crossed pairwise, each step one array look-up:
//!
//! ```text
//! source ──trie──► S ┐
//!                    ├─ addresses[S][D] ─► A ┐
//! dest.  ──trie──► D ┘                       │
//!                                            ├─ matches[A][L] ─► M ─► decisions[M]
//! dest. port ────► d ┐                       │
//!                    ├─ ports[d][s] ─► P ┐   │
//! source port ───► s ┘                   ├─ transport[K][P] ─► L
//! protocol, fragment, flags, type ──► K ─┘
//! ```
//!
//! A field that no rule asks for has the one class 0 and no table (offset 0), and a crossing with
//! such a field has no table either: its class is the sum of both. All offsets are bytes from the
//! start of the block. Classes are `u16`.

use crate::trie::{Trie4, Trie6};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Start of every block: where the tables of fields and crossings lie.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Header {
    /// `LAYOUT_VERSION` of the writer.
    pub version: u32,
    /// Bytes in use, this header included.
    pub length: u32,
    /// `[u16; KINDS]`, see [`kind_of_protocol`] and [`kind_of_detail`].
    pub kinds: u32,
    /// 1 where K depends on TCP flags or ICMP types, else 0.
    pub details: u32,
    /// Port table (see [`PORT_BLOCKS`]) of destination ports.
    pub destination_ports: u32,
    /// Port table of source ports.
    pub source_ports: u32,
    /// Crossing of ports, `[d][s]`.
    pub ports: u32,
    /// Its row length.
    pub ports_row: u32,
    /// Crossing `[K][P]`.
    pub transport: u32,
    /// Its row length.
    pub transport_row: u32,
    /// Crossing `[S][D]`.
    pub addresses: u32,
    /// Its row length.
    pub addresses_row: u32,
    /// Crossing `[A][L]`.
    pub matches: u32,
    /// Its row length.
    pub matches_row: u32,
    /// `[Decision]`, indexed by M.
    pub decisions: u32,
    /// Number of decisions.
    pub decision_count: u32,
}

/// Where the [`AddressTables`] of IPv4 lie.
pub const ADDRESSES_V4: u32 = 64;
/// Where the [`AddressTables`] of IPv6 lie.
pub const ADDRESSES_V6: u32 = 128;
/// First byte behind the fixed part: behind [`crate::services::SERVICES`].
pub const FIXED_LENGTH: u32 = 256;

/// Address classes of IPv4.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct AddressTables4 {
    /// Classes of sources; base 0 where all have [`Self::source_class`].
    pub source: Trie4,
    /// Classes of destinations; base 0 where all have [`Self::destination_class`].
    pub destination: Trie4,
    /// Class of every source where there is no trie.
    pub source_class: u32,
    /// Class of every destination where there is no trie.
    pub destination_class: u32,
}

/// Address classes of IPv6.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct AddressTables6 {
    /// Classes of sources; base 0 where all have [`Self::source_class`].
    pub source: Trie6,
    /// Classes of destinations; base 0 where all have [`Self::destination_class`].
    pub destination: Trie6,
    /// Class of every source where there is no trie.
    pub source_class: u32,
    /// Class of every destination where there is no trie.
    pub destination_class: u32,
}

/// What to do with a packet.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Decision {
    /// An [`crate::verdict::Action`].
    pub action: u32,
    /// Index of the rule's counter, or [`NO_RULE`] where the policies' default decided.
    pub counter: u32,
}

/// [`Decision::counter`] of the policies' default.
pub const NO_RULE: u32 = u32::MAX;

/// A port table begins with `[u16; PORT_BLOCKS]`: the block of each upper byte; blocks of 256
/// classes follow, equal ones once.
pub const PORT_BLOCKS: u32 = 256;

/// Fragment states, as counted in [`kind_of_protocol`].
pub const FRAGMENT_STATES: u32 = 3;

/// First index of the details in the kind table.
pub const DETAILS: u32 = 2 * FRAGMENT_STATES * 256;

/// Entries of the kind table.
pub const KINDS: u32 = DETAILS + 3 * 2 * 256;

/// Index in the kind table by family (0 IPv4, 1 IPv6), fragment state (0 whole, 1 first, 2 later)
/// and protocol.
#[inline(always)]
#[must_use]
pub const fn kind_of_protocol(family: u32, fragment: u32, protocol: u8) -> u32 {
    (family * FRAGMENT_STATES + fragment) * 256 + protocol as u32
}

/// Protocols that have a detail: TCP's flags, the types of ICMP and ICMPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Detail {
    /// Flags of a TCP segment over IPv4 or IPv6.
    Tcp = 0,
    /// Type of an ICMP message over IPv4.
    Icmp = 1,
    /// Type of an ICMPv6 message over IPv6.
    Icmpv6 = 2,
}

/// Index in the kind table of a packet with a detail, not a later fragment (`fragment` 0 or 1).
///
/// The family is left out: no rule of the project tells TCP over IPv4 from TCP over IPv6 but by
/// addresses.
#[inline(always)]
#[must_use]
pub const fn kind_of_detail(detail: Detail, fragment: u32, value: u8) -> u32 {
    DETAILS + (detail as u32 * 2 + fragment) * 256 + value as u32
}
