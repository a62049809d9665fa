//! From observed and wanted to a plan.
//!
//! The order of the steps is what makes a change atomic and safe against a crash at any point:
//!
//! 1. Failsafe peers are added, counters of new owners reset, the table of flows made if it is missing,
//!    and the programs attached that restore replies at the egress and that send packets on to overlays:
//!    nothing refers to them yet. Where one of the last three fails, services lack it and are said to; the
//!    plan goes on, for policies are no less wanted.
//! 2. Blocks are built and written to the slot that is not active. A program that is too small for
//!    its port's new tables is replaced by a larger one while both read the same revision: features
//!    grow before the flip.
//! 3. One flip makes the revision live on every port that has a program.
//! 4. Interfaces that are new get their program, those that are left lose it.
//! 5. After a grace period the slot that was left gets the live revision's tables too, which frees
//!    the old ones and makes either slot safe to read. Programs shrink. Peers are removed, and programs at
//!    the egress and for overlays and the table of flows where nothing needs them any more.
//! 6. The tunnel comes last, so that what fails there holds up no policy: routes that nobody wants go, for
//!    their packets would find no peer; then the device, its tables and programs, and only when these are
//!    there is it set up, for a device without them takes packets from anybody; then neighbours, and routes
//!    when all of that is there. A device that has lost its programs or tables is first set down. A tunnel that
//!    nobody wants loses its routes first and then the rest. Where pods are for direct delivery comes before all of
//!    it.
//! 7. What agents of another layout version have left goes when a run finds that all that is wanted stands.
//!
//! Plain routes to peers are set before the tunnel's part and removed after it; `native.rs` says why.
//!
//! A run that is cut short leaves a state from which the next run's diff goes on: nothing in steps
//! 1 and 2 is visible to packets, and everything after the flip is done again where it is missing.

mod native;
mod overlay;
mod ring_blocks;
mod tunnel;

use std::collections::{BTreeMap, BTreeSet};

use headgate_layout::maps;

use crate::{
    failsafe::{self, FailsafeError},
    observed::{Attached, AttachedEgress, Observed, Slot},
    plan::{BlockOrigin, Plan, Step, StepKind},
    state::{Attachment, Capacity, DatapathState, Digest, PortIndex},
};

/// Why no plan could be made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiffError {
    /// Tables larger than any program can read; compile refuses such, so this is an error of ours.
    #[error("tables {} of {length} bytes exceed the largest capacity of {} bytes", digest.short(), maps::MAX_CAPACITY)]
    TooLarge {
        /// The tables.
        digest: Digest,
        /// Their length.
        length: u32,
    },
    /// More failsafe peers than the kernel's maps hold.
    #[error(transparent)]
    Failsafe(#[from] FailsafeError),
}

/// The plan that turns `observed` into `wanted`; `object` is the digest of the object that programs
/// are loaded from.
///
/// # Errors
/// See [`DiffError`]; no plan is better than half of one.
pub fn diff(
    observed: &Observed,
    wanted: &DatapathState,
    object: Digest,
) -> Result<Plan, DiffError> {
    failsafe::check(&wanted.failsafe)?;
    let mut planner = Planner::new(observed, wanted, object)?;
    planner.before_the_flip();
    planner.flip();
    planner.attach_and_detach();
    planner.after_the_flip();
    planner.set_native();
    planner.tunnel();
    planner.remove_native();
    planner.forget_former_layouts();
    Ok(Plan {
        steps: planner.steps,
    })
}

/// Entries of one outer map.
type Entries = BTreeMap<(Slot, PortIndex), Digest>;

struct Planner<'a> {
    observed: &'a Observed,
    wanted: &'a DatapathState,
    object: Digest,
    /// What the slots hold once the steps so far are carried out.
    slots: BTreeMap<Capacity, Entries>,
    /// Blocks built so far that stand in no slot yet.
    built: BTreeSet<(Digest, Capacity)>,
    /// As `slots`, of the ring blocks.
    ring_blocks: ring_blocks::Present,
    /// Capacity of each wanted port's program around the flip, and at the end.
    sizes: BTreeMap<PortIndex, Sizes>,
    active: Slot,
    steps: Vec<Step>,
}

#[derive(Clone, Copy)]
struct Sizes {
    /// Large enough for the old tables and the new.
    flip: Capacity,
    /// What the port is left with.
    rest: Capacity,
}

impl<'a> Planner<'a> {
    /// A turn after all that is wanted stands: until then their programs do the work of ours.
    fn forget_former_layouts(&mut self) {
        let attaches = |step: &Step| {
            let kinds = [
                StepKind::Attach,
                StepKind::AttachEgress,
                StepKind::AttachOverlay,
                StepKind::AttachTunnel,
            ];
            kinds.contains(&step.kind())
        };
        if self.observed.former_layouts && !self.steps.iter().any(attaches) {
            self.steps.push(Step::ForgetFormerLayouts);
        }
    }

    fn new(
        observed: &'a Observed,
        wanted: &'a DatapathState,
        object: Digest,
    ) -> Result<Self, DiffError> {
        let mut planner = Self {
            observed,
            wanted,
            object,
            slots: observed.slots.clone(),
            built: BTreeSet::new(),
            ring_blocks: observed.ring_blocks.clone(),
            sizes: BTreeMap::new(),
            active: observed.active,
            steps: Vec::new(),
        };
        for (port, attachment) in &wanted.ports {
            let sizes = planner.sizes_of(*port, attachment)?;
            planner.sizes.insert(*port, sizes);
        }
        Ok(planner)
    }

    /// The link of `port`, if it holds a program on the interface that is wanted.
    fn link(&self, port: PortIndex) -> Option<&'a Attached> {
        let link = self.observed.links.get(&port)?;
        let wanted = self.wanted.ports.get(&port)?;
        (link.ifindex == Some(wanted.ifindex)).then_some(link)
    }

    /// A program keeps its capacity while the tables fit and use at least half of it.
    fn sizes_of(&self, port: PortIndex, attachment: &Attachment) -> Result<Sizes, DiffError> {
        let length = self.wanted.blocks[&attachment.tables].length();
        let snug = maps::capacity_for(length)
            .map(Capacity)
            .ok_or(DiffError::TooLarge {
                digest: attachment.tables,
                length,
            })?;
        let Some(current) = self.link(port).map(|link| link.capacity) else {
            return Ok(Sizes {
                flip: snug,
                rest: snug,
            });
        };
        let fits = snug <= current;
        let wasteful = snug.0 <= current.0 / 2;
        Ok(Sizes {
            flip: if fits { current } else { snug },
            rest: if fits && !wasteful { current } else { snug },
        })
    }

    fn before_the_flip(&mut self) {
        if !self.observed.prepared {
            self.steps.push(Step::Prepare);
        }
        let new_peers = &self.wanted.failsafe - &self.observed.failsafe;
        if !new_peers.is_empty() {
            self.steps.push(Step::AddFailsafe(new_peers));
        }
        if !self.wanted.fresh_counters.is_empty() {
            let counters = self.wanted.fresh_counters.clone();
            self.steps.push(Step::ResetCounters(counters));
        }
        if self.wanted.flows && !self.observed.flows {
            self.steps.push(Step::MakeFlows);
        }
        self.attach_egress();
        self.attach_overlay();
        let next = self.active.other();
        let mut entries: BTreeMap<Capacity, Entries> = BTreeMap::new();
        let mut places = BTreeSet::new();
        for (port, attachment) in &self.wanted.ports {
            let size = self.sizes[port].flip;
            let target = entries.entry(size).or_default();
            target.insert((next, *port), attachment.tables);
            // A program that grows must find the live revision in its new slots until the flip;
            // one that is not there yet may find the new one in both.
            let live = self
                .observed
                .enforced(*port)
                .filter(|_| self.link(*port).is_some());
            target.insert((self.active, *port), live.unwrap_or(attachment.tables));
            places.insert((next, *port));
            places.extend(live.is_none().then_some((self.active, *port)));
        }
        let ring_blocks = self.missing_ring_blocks(&places);
        // A second run after a flip that nobody waited for: let the slot come to rest first.
        let wanted_entries = self.missing(&entries);
        let writes = !wanted_entries.is_empty() || !ring_blocks.is_empty();
        if !self.observed.settled && writes && self.observed.prepared {
            self.steps.push(Step::Settle);
        }
        self.write_ring_blocks(ring_blocks);
        self.write(wanted_entries);
        self.replace(|sizes| sizes.flip);
    }

    /// Before the first packet that needs it: a reply that leaves unchanged resets a connection.
    fn attach_egress(&mut self) {
        for (port, attachment) in &self.wanted.ports {
            if !self.needs_egress(*port) {
                continue;
            }
            let present = AttachedEgress {
                ifindex: Some(attachment.ifindex),
                object: Some(self.object),
            };
            if self.observed.egress.get(port) != Some(&present) {
                self.steps.push(Step::AttachEgress {
                    port: *port,
                    interface: attachment.interface.clone(),
                    ifindex: attachment.ifindex,
                });
            }
        }
    }

    fn detach_egress(&mut self) {
        for port in self.observed.egress.keys() {
            if !self.needs_egress(*port) {
                self.steps.push(Step::DetachEgress(*port));
            }
        }
    }

    /// Whether the port is to have a program at its egress, or has one that flows may need which lead to backends on
    /// this node that are no longer asked for: as long as there are flows at all.
    fn needs_egress(&self, port: PortIndex) -> bool {
        let Some(attachment) = self.wanted.ports.get(&port) else {
            return false;
        };
        let is_there = |attached: &AttachedEgress| attached.ifindex == Some(attachment.ifindex);
        let stays = self.wanted.flows && self.observed.egress.get(&port).is_some_and(is_there);
        attachment.egress || stays
    }

    /// Of `entries`, those that the slots do not hold.
    fn missing(&self, entries: &BTreeMap<Capacity, Entries>) -> BTreeMap<Capacity, Entries> {
        let mut missing = BTreeMap::new();
        for (capacity, wanted) in entries {
            let held = self.slots.get(capacity);
            let lacking: Entries = wanted
                .iter()
                .filter(|(key, digest)| held.and_then(|held| held.get(key)) != Some(*digest))
                .map(|(key, digest)| (*key, *digest))
                .collect();
            if !lacking.is_empty() {
                missing.insert(*capacity, lacking);
            }
        }
        missing
    }

    /// Builds what `missing` needs and writes it, a batch for each outer map.
    fn write(&mut self, missing: BTreeMap<Capacity, Entries>) {
        for (capacity, entries) in &missing {
            if !self.slots.contains_key(capacity) {
                self.steps.push(Step::MakeSlots(*capacity));
                self.slots.insert(*capacity, Entries::new());
            }
            for digest in entries.values().copied().collect::<BTreeSet<_>>() {
                self.build(digest, *capacity);
            }
        }
        for (capacity, entries) in missing {
            self.slots
                .entry(capacity)
                .or_default()
                .extend(entries.iter().map(|(key, digest)| (*key, *digest)));
            self.steps.push(Step::WriteSlots { capacity, entries });
        }
    }

    fn build(&mut self, digest: Digest, capacity: Capacity) {
        let stands = self.slots[&capacity].values().any(|held| *held == digest);
        if stands || !self.built.insert((digest, capacity)) {
            return;
        }
        let origin = if self.wanted.blocks.contains_key(&digest) {
            BlockOrigin::Wanted
        } else {
            let from = self.capacity_that_holds(digest);
            BlockOrigin::Copy { from }
        };
        self.steps.push(Step::Build {
            digest,
            capacity,
            origin,
        });
    }

    fn capacity_that_holds(&self, digest: Digest) -> Capacity {
        let holder = self
            .observed
            .slots
            .iter()
            .find(|(_, entries)| entries.values().any(|held| *held == digest));
        *holder
            .expect("a digest that is not wanted was read from a slot")
            .0
    }

    /// Replaces programs whose capacity or object is not the one that is due now.
    fn replace(&mut self, due: impl Fn(&Sizes) -> Capacity) {
        for (port, sizes) in &self.sizes {
            let Some(link) = self.link(*port) else {
                continue;
            };
            let capacity = due(sizes);
            let replaced = self.steps.iter().rev().find_map(|step| match step {
                Step::ReplaceProgram { port: p, capacity } if p == port => Some(*capacity),
                _ => None,
            });
            let up_to_date = match replaced {
                Some(latest) => latest == capacity,
                None => link.capacity == capacity && link.object == Some(self.object),
            };
            if !up_to_date {
                let port = *port;
                self.steps.push(Step::ReplaceProgram { port, capacity });
            }
        }
    }

    fn flip(&mut self) {
        let next = self.active.other();
        let due = self.wanted.ports.iter().any(|(port, attachment)| {
            let held = self.slots.get(&self.sizes[port].flip);
            held.and_then(|held| held.get(&(self.active, *port))) != Some(&attachment.tables)
        });
        if due {
            self.steps.push(Step::Flip(next));
            self.active = next;
        }
    }

    fn attach_and_detach(&mut self) {
        let taken: BTreeSet<_> = self.wanted.ports.values().map(|a| a.ifindex).collect();
        for (port, link) in &self.observed.links {
            let stays = self.wanted.ports.contains_key(port) && self.link(*port).is_some();
            if stays {
                continue;
            }
            // First those that hold an interface or a port that is wanted: renamed or made anew.
            let in_the_way = self.wanted.ports.contains_key(port)
                || link.ifindex.is_some_and(|ifindex| taken.contains(&ifindex));
            if in_the_way {
                self.steps.push(Step::Detach(*port));
            }
        }
        for (port, attachment) in &self.wanted.ports {
            let capacity = self.sizes[port].flip;
            let (port, interface) = (*port, attachment.interface.clone());
            let (ifindex, mode) = (attachment.ifindex, attachment.mode);
            match self.link(port) {
                None => self.steps.push(Step::Attach {
                    port,
                    interface,
                    ifindex,
                    mode,
                    capacity,
                }),
                Some(link) if !mode.accepts(link.mode) => self.steps.push(Step::ChangeMode {
                    port,
                    interface,
                    ifindex,
                    mode,
                    capacity,
                }),
                Some(_) => {}
            }
        }
        for port in self.observed.links.keys() {
            let planned = self.steps.contains(&Step::Detach(*port));
            if !self.wanted.ports.contains_key(port) && !planned {
                self.steps.push(Step::Detach(*port));
            }
        }
    }

    fn after_the_flip(&mut self) {
        let mut entries: BTreeMap<Capacity, Entries> = BTreeMap::new();
        let slots = [self.active, self.active.other()];
        for (port, attachment) in &self.wanted.ports {
            let sizes = self.sizes[port];
            for size in [sizes.flip, sizes.rest] {
                for slot in slots {
                    let entry = entries.entry(size).or_default();
                    entry.insert((slot, *port), attachment.tables);
                }
            }
        }
        let missing = self.missing(&entries);
        let stale = self.stale();
        let flipped = self.active != self.observed.active;
        let ports = self.wanted.ports.keys();
        let places = ports.flat_map(|port| slots.map(|slot| (slot, *port)));
        let ring_blocks = self.missing_ring_blocks(&places.collect());
        let stale_ring_blocks = self.stale_ring_blocks();
        let changes_ring_blocks = !ring_blocks.is_empty() || !stale_ring_blocks.is_empty();
        let changes_slots = !missing.is_empty() || !stale.is_empty() || changes_ring_blocks;
        if flipped || (changes_slots && !self.observed.settled && !self.settles()) {
            self.steps.push(Step::Settle);
        }
        self.write_ring_blocks(ring_blocks);
        self.write(missing);
        self.replace(|sizes| sizes.rest);
        self.clear(stale);
        self.clear_ring_blocks(stale_ring_blocks);
        self.detach_egress();
        self.detach_overlay();
        if self.observed.flows && !self.wanted.flows {
            self.steps.push(Step::RemoveFlows);
        }
        let gone = &self.observed.failsafe - &self.wanted.failsafe;
        if !gone.is_empty() {
            self.steps.push(Step::RemoveFailsafe(gone));
        }
    }

    fn settles(&self) -> bool {
        self.steps.contains(&Step::Settle)
    }

    /// Entries that no program will read.
    fn stale(&self) -> BTreeMap<Capacity, BTreeSet<(Slot, PortIndex)>> {
        let read = |capacity: Capacity, port: PortIndex| {
            self.sizes
                .get(&port)
                .is_some_and(|sizes| sizes.rest == capacity)
        };
        let mut stale = BTreeMap::new();
        for (capacity, entries) in &self.slots {
            let unread: BTreeSet<_> = entries
                .keys()
                .filter(|(_, port)| !read(*capacity, *port))
                .copied()
                .collect();
            let all = unread.len() == entries.len();
            if !unread.is_empty() || (all && !self.is_due(*capacity)) {
                stale.insert(*capacity, unread);
            }
        }
        stale
    }

    fn is_due(&self, capacity: Capacity) -> bool {
        self.sizes.values().any(|sizes| sizes.rest == capacity)
    }

    fn clear(&mut self, stale: BTreeMap<Capacity, BTreeSet<(Slot, PortIndex)>>) {
        for (capacity, entries) in stale {
            if self.is_due(capacity) {
                self.steps.push(Step::ClearSlots { capacity, entries });
            } else {
                self.steps.push(Step::RemoveSlots(capacity));
            }
        }
    }
}
