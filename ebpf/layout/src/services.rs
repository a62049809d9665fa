//! Layout of the load balancer's part of a block: from a packet's destination to a backend.
//!
//! ```text
//! address, protocol, port ──hash──► displacements[low bits] ─┐
//!                            └────► slots[high bits ^ ──────┘] ─► Service ─► ring[flow] ─► Backend
//! ```
//!
//! The hash is perfect (hash and displace: D. Belazzougui, F. Botelho and M. Dietzfelbinger, "Hash,
//! displace, and compress", ESA 2009): no two services share a slot, so a look-up follows no chain.
//! Each slot holds a part of its service's hash, and a packet for no service ends there. The ring is
//! Maglev's (D. Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI
//! 2016). All offsets are bytes from the start of the block. Many rings lie in ring blocks, maps of their own, so
//! that a change of one backend need not copy them all: see [`RingPlace`].

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Where the [`Services`] lie.
pub const SERVICES: u32 = 192;

/// Addresses, protocols and ports of one block at most: their numbers are 16 bits.
pub const MAX_SERVICES: u32 = 1 << 15;

/// Backends of one service at most.
pub const MAX_BACKENDS: u32 = 4_096;

/// Where the load balancer's tables lie; all 0 where there are no services.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Services {
    /// `[u32]`, see [`slot`] and [`tag_of`].
    pub slots: u32,
    /// Number of slots, a power of two, less one.
    pub slot_mask: u32,
    /// `[u16]`, one for each of the hash's low bits.
    pub displacements: u32,
    /// Number of displacements, a power of two, less one.
    pub displacement_mask: u32,
    /// `[Service]`.
    pub services: u32,
    /// Number of services.
    pub count: u32,
    /// 1 where one of them is a [`NAT`], else 0.
    pub translates: u32,
    /// Bytes of an IP packet that the interface takes by which frames arrived that go back by it.
    pub mtu: u32,
    /// As [`Way::reflecting`], of that interface.
    pub reflecting: u32,
    /// `[[u8; 32]]`, the digests of the ring blocks, by number.
    pub ring_blocks: u32,
    /// Number of ring blocks.
    pub ring_block_count: u32,
}

/// Bytes of every ring block. One begins as all blocks do, with a [`crate::tables::Header`] and
/// [`crate::tables::FIXED_LENGTH`].
pub const RING_CAPACITY: u32 = 1 << 20;

/// Ring blocks of one block at most.
pub const MAX_RING_BLOCKS: u32 = 128;

/// Where a ring lies: in the block itself, or in one of its ring blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingPlace {
    /// The ring block's number, if it lies in one.
    pub block: Option<u32>,
    /// Where in the block.
    pub offset: u32,
}

impl RingPlace {
    /// Set where there is a ring block: no block is as large (see [`crate::maps::MAX_CAPACITY`]).
    const IN_RING_BLOCK: u32 = 1 << 31;
    const OFFSET_BITS: u32 = RING_CAPACITY.trailing_zeros();

    /// As [`Service::ring`] says it.
    #[must_use]
    pub const fn to_word(self) -> u32 {
        match self.block {
            None => self.offset,
            Some(number) => Self::IN_RING_BLOCK | number << Self::OFFSET_BITS | self.offset,
        }
    }

    /// What such a word says.
    #[inline(always)]
    #[must_use]
    pub const fn from_word(word: u32) -> Self {
        if word & Self::IN_RING_BLOCK == 0 {
            return Self {
                block: None,
                offset: word,
            };
        }
        Self {
            block: Some(word >> Self::OFFSET_BITS & (MAX_RING_BLOCKS - 1)),
            offset: word & (RING_CAPACITY - 1),
        }
    }
}

/// One address, protocol and port; port 0: the address and protocol as a whole.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Service {
    /// The address, in host order; IPv4 as IPv4-mapped IPv6.
    pub address: [u64; 2],
    /// The port, and the protocol in the upper half.
    pub port: u32,
    /// `[u16; ring_size]`, the backend's number of each ring entry: a [`RingPlace`].
    pub ring: u32,
    /// Entries of the ring; 0 where there is no backend.
    pub ring_size: u32,
    /// `[Backend]`.
    pub backends: u32,
    /// [`DIRECT_RETURN`], [`NAT`] or [`ICMP`].
    pub forwarding: u32,
    /// 1 where a sender is told that there is no backend, else 0.
    pub rejects: u32,
}

/// A way to the next hop.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Way {
    /// The interface that frames leave by; 0 while the next hop is not known.
    pub ifindex: u32,
    /// Bytes of an IP packet that it takes.
    pub mtu: u16,
    /// 1 where a frame may go back by `XDP_TX` if it came by this interface, 2 where frames go to the stack
    /// of this node, 3 where they go by an overlay: see [`Self::reflects`], [`Self::TO_STACK`] and
    /// [`Self::over`]. Else 0.
    pub reflecting: u16,
    /// How frames begin.
    pub link: LinkAddresses,
}

/// MAC addresses of destination and source, as a frame begins with them, in little-endian words: byte by
/// byte, a program would keep each in a register or a word of its stack.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct LinkAddresses(pub [u32; 3]);

impl LinkAddresses {
    /// These two.
    #[must_use]
    pub fn new(destination: [u8; 6], source: [u8; 6]) -> Self {
        let [a, b, c, d, e, f] = destination;
        let [g, h, i, j, k, l] = source;
        let words = [[a, b, c, d], [e, f, g, h], [i, j, k, l]];
        Self(words.map(u32::from_le_bytes))
    }

    /// Those of the way back.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(self) -> Self {
        let [a, b, c] = self.0;
        Self([b >> 16 | c << 16, c >> 16 | a << 16, a >> 16 | b << 16])
    }
}

impl Way {
    /// Whether `XDP_TX` reaches the far end. In a veth pair it may lie there until another packet comes,
    /// where no program is attached (`veth_xdp_flush` in drivers/net/veth.c): there redirection serves.
    #[inline(always)]
    #[must_use]
    pub const fn reflects(&self) -> bool {
        self.reflecting == 1
    }

    /// To this node's stack, which knows the way on: to a pod of its own.
    pub const TO_STACK: Self = Self {
        ifindex: 1,
        mtu: u16::MAX,
        reflecting: 2,
        link: LinkAddresses([0; 3]),
    };

    /// Whether it is [`Self::TO_STACK`].
    #[inline(always)]
    #[must_use]
    pub const fn is_to_stack(&self) -> bool {
        self.reflecting == 2
    }

    /// By the device of an overlay, which takes no frames from XDP: a program at the ingress sends them on, by the
    /// kernel's own routes and neighbours. Without it they are nobody's, by their link-layer address.
    #[must_use]
    pub const fn over(ifindex: u32, mtu: u16) -> Self {
        Self {
            ifindex,
            mtu,
            reflecting: 3,
            link: LinkAddresses([0; 3]),
        }
    }

    /// Whether it is by the device of an overlay.
    #[inline(always)]
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.reflecting == 3
    }

    /// Whether XDP passes frames up that go this way: [`Self::is_to_stack`] or [`Self::is_over`].
    #[inline(always)]
    #[must_use]
    pub const fn passes_up(&self) -> bool {
        self.reflecting & 2 != 0
    }
}

/// Where a backend's packets go.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Backend {
    /// The way there.
    pub way: Way,
    /// Index of the rule counter of the service's port.
    pub counter: u32,
    /// Its address, as in [`Service::address`].
    pub address: [u64; 2],
    /// The address of this node that it sees in [`NAT`].
    pub local: [u64; 2],
    /// The port that it listens on.
    pub port: u32,
    /// As [`Service::forwarding`]; [`SETTLING`] where this is a [`crate::settling::Choice`].
    pub forwarding: u32,
}

/// [`Service::forwarding`]: frames keep their addresses and ports.
pub const DIRECT_RETURN: u32 = 0;
/// [`Service::forwarding`] of an address and ICMP or ICMPv6: echo is answered, and errors go to whom they concern.
pub const ICMP: u32 = 2;
/// [`Service::forwarding`]: frames get the backend's address and port for the service's, and one of this
/// node for the client's; those to a backend on this node keep the client's.
pub const NAT: u32 = 1;

/// [`Backend::forwarding`]: which backend it is depends on the connection.
pub const SETTLING: u32 = 3;
/// How many ICMP errors about packets that could not be sent on a CPU may still tell (RFC 4443, section 2.4 (f)).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ErrorBudget {
    /// Nanoseconds that are saved, of [`Self::INTERVAL`] for each error.
    pub saved: u64,
    /// When that was reckoned, on `CLOCK_MONOTONIC`.
    pub reckoned: u64,
}

impl ErrorBudget {
    /// A thousand a second, as Linux tells (`net.ipv4.icmp_msgs_per_sec`).
    pub const INTERVAL: u64 = 1_000_000;
    /// As many at once, as there (`net.ipv4.icmp_msgs_burst`).
    pub const BURST: u64 = 50 * Self::INTERVAL;

    /// Takes one at `now`, if there is one.
    #[inline(always)]
    pub fn take(&mut self, now: u64) -> bool {
        let saved = self.saved + now.saturating_sub(self.reckoned);
        let saved = if saved < Self::BURST {
            saved
        } else {
            Self::BURST
        };
        self.reckoned = now;
        let is_one = saved >= Self::INTERVAL;
        self.saved = if is_one {
            saved - Self::INTERVAL
        } else {
            saved
        };
        is_one
    }
}

/// Key of a service in [`Service::port`].
#[inline(always)]
#[must_use]
pub const fn port_and_protocol(port: u16, protocol: u8) -> u32 {
    (protocol as u32) << 16 | port as u32
}

/// An IPv4 address in host order, as IPv4-mapped IPv6: so all addresses of services, flows and peers are.
#[inline(always)]
#[must_use]
pub const fn mapped(address: u32) -> [u64; 2] {
    [0, 0xffff_0000_0000 | address as u64]
}

/// Murmur3's finalizer (A. Appleby, public domain): every bit of the input changes each bit of the
/// output with a probability near one half.
#[inline(always)]
#[must_use]
pub const fn mix(mut word: u64) -> u64 {
    word ^= word >> 33;
    word = word.wrapping_mul(0xff51_afd7_ed55_8ccd);
    word ^= word >> 33;
    word = word.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    word ^ word >> 33
}

/// Hash of a service's key: a sum of products, which a processor reckons side by side, and half of
/// [`mix`].
#[inline(always)]
#[must_use]
pub const fn hash_of(address: [u64; 2], port: u32) -> u64 {
    half_mix(sum_of([address[0], address[1], port as u64]))
}

/// Hash of a flow to a service with [`hash_of`] its key.
#[inline(always)]
#[must_use]
pub const fn hash_of_flow(service: u64, source: [u64; 2], source_port: u16) -> u64 {
    let source = sum_of([source[0], source[1], source_port as u64]);
    half_mix(service.wrapping_add(source))
}

/// Odd multipliers: the fractions of the square roots of 2, 3 and 5.
const MULTIPLIERS: [u64; 3] = [
    0x6a09_e667_f3bc_c909,
    0xbb67_ae85_84ca_a73b,
    0x3c6e_f372_fe94_f82b,
];

#[inline(always)]
const fn sum_of(words: [u64; 3]) -> u64 {
    let [a, b, c] = MULTIPLIERS;
    let sum = words[0]
        .wrapping_mul(a)
        .wrapping_add(words[1].wrapping_mul(b));
    sum.wrapping_add(words[2].wrapping_mul(c))
}

/// Half of [`mix`].
#[inline(always)]
#[must_use]
pub const fn half_mix(mut word: u64) -> u64 {
    word ^= word >> 32;
    word = word.wrapping_mul(0xff51_afd7_ed55_8ccd);
    word ^ word >> 29
}

/// Which displacement belongs to a key.
#[inline(always)]
#[must_use]
pub const fn bucket(hash: u64, displacement_mask: u32) -> u32 {
    hash as u32 & displacement_mask
}

/// Which slot belongs to a key, by the displacement of its bucket.
#[inline(always)]
#[must_use]
pub const fn slot(hash: u64, displacement: u16, slot_mask: u32) -> u32 {
    let step = (hash >> 20) as u32 | 1;
    ((hash >> 32) as u32).wrapping_add(step.wrapping_mul(displacement as u32)) & slot_mask
}

/// A slot's value: 0 where it is free, else the service's number plus 1, and in the upper half its
/// [`tag_of`].
#[inline(always)]
#[must_use]
pub const fn slot_value(number: u32, hash: u64) -> u32 {
    tag_of(hash) << 16 | (number + 1)
}

/// What a slot holds of a key's hash.
#[inline(always)]
#[must_use]
pub const fn tag_of(hash: u64) -> u32 {
    (hash >> 48) as u32
}

/// Which entry of a ring belongs to a flow: a multiplication in place of a division (D. Lemire, "Fast
/// Random Integer Generation in an Interval", 2019).
#[inline(always)]
#[must_use]
pub const fn ring_entry(flow: u64, ring_size: u32) -> u32 {
    (((flow >> 32) * ring_size as u64) >> 32) as u32
}
