//! What the kernel was found to hold.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    native::ObservedNative,
    state::{AttachedMode, Capacity, Digest, FailsafePeer, Ifindex, PortIndex},
    tunnel::ObservedTunnel,
};

/// One of the places that a revision's tables can live in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

impl Slot {
    /// The slot that is not this one.
    #[must_use]
    pub fn other(self) -> Self {
        Self((self.0 + 1) % headgate_layout::maps::SLOTS)
    }
}

/// A program of ours on an interface, through a pinned link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The link's interface, or `None` where the link was detached behind our back.
    pub ifindex: Option<Ifindex>,
    /// How it is attached.
    pub mode: AttachedMode,
    /// Digest of the object that the link's program was loaded from; `None` where the program is
    /// not the one that we pinned beside the link.
    pub object: Option<Digest>,
    /// Capacity of the blocks that the program reads.
    pub capacity: Capacity,
    /// The kernel's id of the link.
    pub link_id: u32,
    /// The kernel's id of the program.
    pub program_id: u32,
}

/// A program of ours at an interface's egress, through a pinned link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachedEgress {
    /// The link's interface, or `None` where the link was detached behind our back.
    pub ifindex: Option<Ifindex>,
    /// Digest of the object that the program was loaded from; `None` where it is none of ours.
    pub object: Option<Digest>,
}

/// The program of ours at an interface's ingress that sends packets on to backends behind an overlay and back, through
/// a pinned link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachedOverlay {
    /// Whether it is at the interface: an interface that goes takes its programs with it.
    pub is_there: bool,
    /// Digest of the object that the program was loaded from; `None` where it is none of ours.
    pub object: Option<Digest>,
}

/// The complete observed state, read from the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Whether the shared maps exist and are pinned.
    pub prepared: bool,
    /// The active slot; 0 where nothing is prepared.
    pub active: Slot,
    /// Whether a grace period is known to have passed since the last flip.
    pub settled: bool,
    /// Links by port.
    pub links: BTreeMap<PortIndex, Attached>,
    /// Tables in the slots, of each capacity in use, by content.
    pub slots: BTreeMap<Capacity, BTreeMap<(Slot, PortIndex), Digest>>,
    /// Ring blocks in the slots, by number and content.
    pub ring_blocks: BTreeMap<(Slot, PortIndex), Vec<Digest>>,
    /// Ring blocks that tables in the slots name, where they name any.
    pub named_ring_blocks: BTreeMap<Digest, Vec<Digest>>,
    /// Failsafe peers.
    pub failsafe: BTreeSet<FailsafePeer>,
    /// Rule counters that some table in a slot refers to.
    pub counters_in_use: BTreeSet<u32>,
    /// Links at the egress by port.
    pub egress: BTreeMap<PortIndex, AttachedEgress>,
    /// Links of the program for overlays, by the interface that they were made at.
    pub overlay: BTreeMap<Ifindex, AttachedOverlay>,
    /// Whether there is a table of flows.
    pub flows: bool,
    /// The tunnel.
    pub tunnel: ObservedTunnel,
    /// Plain routes to peers.
    pub native: ObservedNative,
    /// Packets that each port's program ever passed because it found no tables.
    pub unjudged: BTreeMap<PortIndex, u64>,
    /// Whether an agent of another layout version has left anything.
    pub former_layouts: bool,
}

impl Observed {
    /// What `port` enforces at this moment: the active slot's tables of an attached program, if the ring
    /// blocks that they name are there.
    #[must_use]
    pub fn enforced(&self, port: PortIndex) -> Option<Digest> {
        let link = self.links.get(&port)?;
        link.ifindex?;
        let tables = self.entry(link.capacity, self.active, port)?;
        let named = self.named_ring_blocks.get(&tables);
        let present = self.ring_blocks.get(&(self.active, port));
        let present = present.map_or(&[][..], Vec::as_slice);
        named
            .is_none_or(|named| present.starts_with(named))
            .then_some(tables)
    }

    /// The tables of `port` in `slot` for programs of `capacity`.
    #[must_use]
    pub fn entry(&self, capacity: Capacity, slot: Slot, port: PortIndex) -> Option<Digest> {
        self.slots.get(&capacity)?.get(&(slot, port)).copied()
    }

    /// Digest over every port that enforces something.
    #[must_use]
    pub fn enforcement(&self) -> Digest {
        let ports = self.links.keys();
        let enforced = ports.filter_map(|port| Some((*port, self.enforced(*port)?)));
        crate::state::revision(enforced, None, None)
    }

    /// Name of the revision that is live: over every port that enforces something, the tunnel, and plain
    /// routes to peers.
    #[must_use]
    pub fn revision(&self) -> Digest {
        let ports = self.links.keys();
        crate::state::revision(
            ports.filter_map(|port| Some((*port, self.enforced(*port)?))),
            self.tunnel.digest(),
            self.native.digest(),
        )
    }
}
