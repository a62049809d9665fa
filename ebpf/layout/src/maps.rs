//! The table of maps: one place for every name, type and size.

use crate::{failsafe, flows, monitor, services, settling, tunnel, verdict};

/// Places that a revision's tables can live in; one is active.
pub const SLOTS: u32 = 2;

/// Interfaces that one agent can serve: each has a port index below this, compiled into its program.
pub const MAX_PORTS: u32 = 256;

/// Rule counters of one node.
pub const MAX_COUNTERS: u32 = 65_536;

/// Largest `T` that one bounds check of the tables covers, in bytes.
pub const LINE: u32 = 64;

/// Largest capacity of one policy set's tables, in bytes. The verifier takes variable offsets into
/// a map value below 2^29 only (`BPF_MAX_VAR_OFF` in kernel/bpf/verifier.c).
pub const MAX_CAPACITY: u32 = 7 << 26;

/// Type of a map, as far as the project uses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapType {
    /// `BPF_MAP_TYPE_ARRAY`
    Array,
    /// `BPF_MAP_TYPE_PERCPU_ARRAY`
    PerCpuArray,
    /// `BPF_MAP_TYPE_LPM_TRIE`
    LpmTrie,
    /// `BPF_MAP_TYPE_ARRAY_OF_MAPS`
    ArrayOfMaps,
    /// `BPF_MAP_TYPE_HASH`
    Hash,
    /// `BPF_MAP_TYPE_RINGBUF`; its entries are bytes
    RingBuffer,
}

/// Shape of one map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapSpec {
    /// Name in the object, in the pins' folder and in `bpftool map`.
    pub name: &'static str,
    /// Type of the map.
    pub kind: MapType,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Number of entries.
    pub max_entries: u32,
    /// Whether user space maps it into its memory (`BPF_F_MMAPABLE`).
    pub mmapable: bool,
}

/// The word that says which slot is active; read once a packet, written once a revision.
pub const ACTIVE: MapSpec = MapSpec {
    name: "ACTIVE",
    kind: MapType::Array,
    key_size: 4,
    value_size: 4,
    max_entries: 1,
    mmapable: false,
};

/// (slot, port) -> the tables of that port's policy set. One such map exists for each capacity in
/// use; a program reads the one that it was loaded with. See [`tables_index`].
pub const TABLES: MapSpec = MapSpec {
    name: "TABLES",
    kind: MapType::ArrayOfMaps,
    key_size: 4,
    value_size: 4,
    max_entries: SLOTS * MAX_PORTS,
    mmapable: false,
};

/// (slot, port, number) -> a ring block of that port's tables. See [`ring_block_index`].
pub const RING_BLOCKS: MapSpec = MapSpec {
    name: "RING_BLOCKS",
    kind: MapType::ArrayOfMaps,
    key_size: 4,
    value_size: 4,
    max_entries: SLOTS * MAX_PORTS * services::MAX_RING_BLOCKS,
    mmapable: false,
};

/// Packets and bytes by counter index, per CPU.
pub const RULE_COUNTERS: MapSpec = MapSpec {
    name: "RULE_COUNTERS",
    kind: MapType::PerCpuArray,
    key_size: 4,
    value_size: core::mem::size_of::<verdict::Count>() as u32,
    max_entries: MAX_COUNTERS,
    mmapable: false,
};

/// Packets and bytes by port and reason, per CPU. See [`reason_index`].
pub const REASON_COUNTERS: MapSpec = MapSpec {
    name: "REASON_COUNTERS",
    kind: MapType::PerCpuArray,
    key_size: 4,
    value_size: core::mem::size_of::<verdict::Count>() as u32,
    max_entries: MAX_PORTS * verdict::REASON_SLOTS,
    mmapable: false,
};

/// Peers that are never dropped, by longest prefix; IPv4 as IPv4-mapped IPv6.
pub const FAILSAFE: MapSpec = MapSpec {
    name: "FAILSAFE",
    kind: MapType::LpmTrie,
    key_size: core::mem::size_of::<failsafe::PeerKey>() as u32,
    value_size: core::mem::size_of::<failsafe::Peer>() as u32,
    max_entries: failsafe::CHANGING * failsafe::MAX_PEERS,
    mmapable: false,
};

/// Bitmap before [`FAILSAFE`], so that a flood does not pay for the trie. See [`failsafe`].
pub const FAILSAFE_BITS: MapSpec = MapSpec {
    name: "FAILSAFE_BITS",
    kind: MapType::Array,
    key_size: 4,
    value_size: failsafe::BITMAP_BYTES,
    max_entries: 1,
    mmapable: false,
};

/// The word that says which verdicts somebody monitors, as bits of [`monitor`]; read once a packet. It
/// is the programs' only variable, for they read that without a look-up, at a third of the cost.
pub const MONITORED: MapSpec = MapSpec {
    name: "MONITORED",
    kind: MapType::Array,
    key_size: 4,
    value_size: 4,
    max_entries: 1,
    mmapable: false,
};

/// Name of [`MONITORED`] in the object.
pub const MONITORED_SECTION: &str = ".bss";

/// What a monitor asks for, where [`MONITORED`] says that there is one.
pub const MONITOR: MapSpec = MapSpec {
    name: "MONITOR",
    kind: MapType::Array,
    key_size: 4,
    value_size: core::mem::size_of::<monitor::Order>() as u32,
    max_entries: 1,
    mmapable: false,
};

/// Limit of the events' rate, per CPU, and what was not told.
pub const MONITOR_BUDGETS: MapSpec = MapSpec {
    name: "MONITOR_BUDGETS",
    kind: MapType::PerCpuArray,
    key_size: 4,
    value_size: core::mem::size_of::<monitor::Budget>() as u32,
    max_entries: 1,
    mmapable: false,
};

/// Events that wait to be read.
pub const EVENTS: MapSpec = MapSpec {
    name: "EVENTS",
    kind: MapType::RingBuffer,
    key_size: 0,
    value_size: 0,
    max_entries: monitor::RING_BYTES,
    mmapable: false,
};

/// Limit of the rate of ICMP errors, per CPU.
pub const ERROR_BUDGETS: MapSpec = MapSpec {
    name: "ERROR_BUDGETS",
    kind: MapType::PerCpuArray,
    key_size: 4,
    value_size: core::mem::size_of::<services::ErrorBudget>() as u32,
    max_entries: 1,
    mmapable: false,
};

/// The table of flows that go through Nat; empty where nothing goes through Nat.
pub const FLOWS: MapSpec = MapSpec {
    name: "FLOWS",
    kind: MapType::ArrayOfMaps,
    key_size: 4,
    value_size: 4,
    max_entries: 1,
    mmapable: false,
};

/// Shape of the one map in [`FLOWS`]. See [`flows`].
pub const FLOW_TABLE: MapSpec = MapSpec {
    name: "flows",
    kind: MapType::Array,
    key_size: 4,
    value_size: flows::BYTES,
    max_entries: 1,
    mmapable: true,
};

/// Connections that have begun while services settle: see [`settling`].
pub const PLACEMENTS: MapSpec = MapSpec {
    name: "PLACEMENTS",
    kind: MapType::Array,
    key_size: 4,
    value_size: settling::BYTES,
    max_entries: 1,
    mmapable: false,
};

/// The tunnel's block; empty where there is no tunnel.
pub const TUNNEL: MapSpec = MapSpec {
    name: "TUNNEL",
    kind: MapType::ArrayOfMaps,
    key_size: 4,
    value_size: 4,
    max_entries: 1,
    mmapable: false,
};

/// Packets and bytes by [`tunnel::Event`], per CPU.
pub const TUNNEL_COUNTERS: MapSpec = MapSpec {
    name: "TUNNEL_COUNTERS",
    kind: MapType::PerCpuArray,
    key_size: 4,
    value_size: core::mem::size_of::<verdict::Count>() as u32,
    max_entries: tunnel::COUNTERS,
    mmapable: false,
};

/// When a packet came from a peer last, by the peer's place among those of the block.
pub const TUNNEL_SEEN: MapSpec = MapSpec {
    name: "TUNNEL_SEEN",
    kind: MapType::Array,
    key_size: 4,
    value_size: core::mem::size_of::<tunnel::Seen>() as u32,
    max_entries: tunnel::MAX_PEERS,
    mmapable: false,
};

/// Pods of the node, by address: each entry stands for itself, and a pod without one gets its packets by the stack.
pub const TUNNEL_PODS: MapSpec = MapSpec {
    name: "TUNNEL_PODS",
    kind: MapType::Hash,
    key_size: 16,
    value_size: core::mem::size_of::<tunnel::Pod>() as u32,
    max_entries: tunnel::MAX_PODS,
    mmapable: false,
};

/// What the programs at the tunnel's device share; pinned from the first tunnel on.
pub const TUNNEL_MAPS: [MapSpec; 4] = [TUNNEL, TUNNEL_COUNTERS, TUNNEL_SEEN, TUNNEL_PODS];

/// Every map that is pinned once for an instance; [`TABLES`] is pinned once for each capacity.
pub const SHARED: [MapSpec; 13] = [
    ACTIVE,
    RULE_COUNTERS,
    REASON_COUNTERS,
    FAILSAFE,
    FAILSAFE_BITS,
    MONITORED,
    MONITOR,
    MONITOR_BUDGETS,
    EVENTS,
    ERROR_BUDGETS,
    FLOWS,
    PLACEMENTS,
    RING_BLOCKS,
];

/// Bytes before the end of a block at which the digest of its tables is written, for events: in its
/// last line, which [`capacity_for`] leaves free.
pub const DIGEST_FROM_END: u32 = 32;

/// Shape of the map that holds one policy set's tables: a single value of `capacity` bytes.
#[must_use]
pub const fn table_block(capacity: u32) -> MapSpec {
    MapSpec {
        name: "tables",
        kind: MapType::Array,
        key_size: 4,
        value_size: capacity,
        max_entries: 1,
        mmapable: true,
    }
}

/// Key of [`TABLES`] for the tables of `port` in `slot`.
#[inline(always)]
#[must_use]
pub const fn tables_index(slot: u32, port: u32) -> u32 {
    slot * MAX_PORTS + port
}

/// Key of [`RING_BLOCKS`] for the ring block `number` of `port` in `slot`.
#[inline(always)]
#[must_use]
pub const fn ring_block_index(slot: u32, port: u32, number: u32) -> u32 {
    tables_index(slot, port) * services::MAX_RING_BLOCKS + number
}

/// Key of [`REASON_COUNTERS`] for the [`verdict::Reason`] with this number at `port`.
#[inline(always)]
#[must_use]
pub const fn reason_index(port: u32, reason: u32) -> u32 {
    port * verdict::REASON_SLOTS + reason
}

/// Smallest capacity, in bytes, whose block takes tables of `length` bytes, or `None` beyond
/// [`MAX_CAPACITY`]. Capacities come in quarter steps of powers of two (at most 25% spare) from
/// 64 KiB up, so that small edits of a policy keep its program.
#[must_use]
pub const fn capacity_for(length: u32) -> Option<u32> {
    let mut step: u32 = 1 << 14;
    while step <= MAX_CAPACITY / 7 {
        let mut quarters = 4;
        while quarters < 8 {
            if length <= step * quarters - LINE {
                return Some(step * quarters);
            }
            quarters += 1;
        }
        step *= 2;
    }
    None
}
