//! Reading back what the kernel holds. Nothing of it comes from a memory of our own.

use std::collections::{BTreeMap, BTreeSet};

use headgate_datapath::{
    kernel::KernelError,
    observed::{Attached, Observed, Slot},
    state::{AttachedMode, Capacity, Digest, PortIndex},
};
use headgate_layout::{
    maps::{self, MAX_PORTS, SLOTS, tables_index},
    verdict::Reason,
};

use crate::{
    blocks::BlockReader,
    bpf::{Link, Map, Program},
    counters, egress,
    error::{Asked, absent, if_present},
    failsafe::Failsafe,
    flows, layouts, netlink, overlay,
    pins::Pins,
    ring_blocks,
    shared::Shared,
    tunnel::{self, Ways},
};

/// Ids of the maps in the entries of an outer map.
pub(crate) type EntryIds = BTreeMap<(Slot, PortIndex), u32>;

/// Reads all that is pinned; `settled` is what the caller knows.
pub(crate) fn observe(
    pins: &Pins,
    blocks: &mut BlockReader,
    [ways, plain_ways]: [&mut Ways; 2],
    settled: bool,
) -> Result<Observed, KernelError> {
    let Some(shared) = Shared::open(pins)? else {
        let links = links(pins, None, &BTreeMap::new())?;
        return Ok(Observed {
            links,
            former_layouts: layouts::are_left(pins)?,
            ..Observed::default()
        });
    };
    let mut observed = Observed {
        prepared: true,
        active: shared.active_slot()?,
        settled,
        failsafe: Failsafe::of(&shared).peers()?,
        flows: flows::table(&shared.flows)?.is_some(),
        former_layouts: layouts::are_left(pins)?,
        ..Observed::default()
    };
    let mut outer_maps = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (capacity, outer) in outer_maps_of(pins)? {
        let mut entries = BTreeMap::new();
        for (place, id) in entry_ids(&outer)? {
            let content = blocks.read(id)?;
            seen.insert(id);
            observed.counters_in_use.extend(&content.counters);
            entries.insert(place, content.digest);
            if !content.ring_blocks.is_empty() {
                let named = content.ring_blocks;
                observed.named_ring_blocks.insert(content.digest, named);
            }
        }
        observed.slots.insert(capacity, entries);
        outer_maps.insert(capacity, outer);
    }
    for (place, ids) in ring_blocks::ids(&shared.ring_blocks)? {
        let mut digests = Vec::with_capacity(ids.len());
        for id in ids {
            digests.push(blocks.read(id)?.digest);
            seen.insert(id);
        }
        observed.ring_blocks.insert(place, digests);
    }
    let (tunnel, table) = tunnel::observe(pins, blocks, ways)?;
    observed.tunnel = tunnel;
    observed.native = tunnel::observe_native(pins, plain_ways)?;
    seen.extend(table);
    blocks.retain(&seen);
    observed.links = links(pins, Some(&shared), &outer_maps)?;
    observed.egress = egress::observe(pins, &shared)?;
    observed.overlay = overlay::observe(pins, &shared)?;
    observed.unjudged = unjudged(&shared, &observed.links.keys().copied().collect())?;
    Ok(observed)
}

fn unjudged(
    shared: &Shared,
    ports: &BTreeSet<PortIndex>,
) -> Result<BTreeMap<PortIndex, u64>, KernelError> {
    let counts = counters::read_reasons(&shared.reason_counters, ports)?;
    let passed = counts
        .into_iter()
        .filter(|((_, reason), _)| *reason == Reason::NoTables);
    Ok(passed
        .map(|((port, _), count)| (port, count.packets))
        .collect())
}

fn outer_maps_of(pins: &Pins) -> Result<Vec<(Capacity, Map)>, KernelError> {
    let open = |capacity| Ok((capacity, open_outer(pins, capacity)?));
    pins.capacities()?.into_iter().map(open).collect()
}

/// The outer map for programs of `capacity`.
pub(crate) fn open_outer(pins: &Pins, capacity: Capacity) -> Result<Map, KernelError> {
    let path = pins.slots(capacity);
    let asked = || format!("opening the slots {}", path.display());
    let outer = Map::pinned(&path).asked(asked)?;
    if outer.is(&maps::TABLES) {
        Ok(outer)
    } else {
        Err(Shared::other_shape(&path))
    }
}

/// What stands in the entries of an outer map.
pub(crate) fn entry_ids(outer: &Map) -> Result<EntryIds, KernelError> {
    let mut ids = EntryIds::new();
    for slot in (0..SLOTS).map(Slot) {
        for port in PortIndex::all() {
            let index = tables_index(slot.0, port.number());
            match outer.lookup(&index.to_ne_bytes()) {
                Ok(value) => {
                    let value = value
                        .try_into()
                        .expect("the map was checked to be of its shape");
                    ids.insert((slot, port), u32::from_ne_bytes(value));
                }
                Err(error) if absent(&error) => {}
                Err(error) => {
                    return Err(error)
                        .asked(|| format!("reading entry {index} of {MAX_PORTS} ports"));
                }
            }
        }
    }
    Ok(ids)
}

fn links(
    pins: &Pins,
    shared: Option<&Shared>,
    outer_maps: &BTreeMap<Capacity, Map>,
) -> Result<BTreeMap<PortIndex, Attached>, KernelError> {
    let ports = pins.links()?;
    if ports.is_empty() {
        return Ok(BTreeMap::new());
    }
    let programs = Programs::read(pins, shared, outer_maps)?;
    // Which program an interface runs and how is the interface's to say: a link tells neither its
    // mode nor whether its interface is still in this network namespace.
    let on_interfaces = netlink::xdp_programs()?;
    let mut links = BTreeMap::new();
    for port in ports {
        let asked = || format!("reading the link of {port}");
        let Some(link) = if_present(Link::pinned(&pins.link(port))).asked(asked)? else {
            continue;
        };
        let info = link.info().asked(asked)?;
        let here = info.ifindex.and_then(|ifindex| {
            let programs = on_interfaces.get(&ifindex)?;
            let (_, mode) = programs.iter().find(|(id, _)| *id == info.program_id)?;
            Some((ifindex, *mode))
        });
        let (object, capacity) = programs.describe(port, info.program_id)?;
        let attached = Attached {
            ifindex: here.map(|(ifindex, _)| ifindex),
            mode: here.map_or(AttachedMode::Generic, |(_, mode)| mode),
            object,
            capacity,
            link_id: info.id,
            program_id: info.program_id,
        };
        links.insert(port, attached);
    }
    Ok(links)
}

/// What is known of programs: the pinned ones, and the maps that a program of ours must use.
struct Programs {
    /// Object and capacity by port and program id.
    pinned: BTreeMap<(PortIndex, u32), (Digest, Capacity)>,
    shared: Option<Vec<u32>>,
    outer_maps: Vec<(Capacity, u32)>,
}

impl Programs {
    fn read(
        pins: &Pins,
        shared: Option<&Shared>,
        outer_maps: &BTreeMap<Capacity, Map>,
    ) -> Result<Self, KernelError> {
        let mut pinned = BTreeMap::new();
        for pin in pins.programs()? {
            let asked = || format!("reading the pinned program of {}", pin.port);
            let Some(program) = if_present(Program::pinned(&pins.program(&pin))).asked(asked)?
            else {
                continue;
            };
            let id = program.id().asked(asked)?;
            pinned.insert((pin.port, id), (pin.object, pin.capacity));
        }
        Ok(Self {
            pinned,
            shared: shared.map(Shared::used),
            outer_maps: outer_maps
                .iter()
                .map(|(capacity, outer)| (*capacity, outer.id()))
                .collect(),
        })
    }

    /// Object and capacity of a link's program. The object is known only where the program is the
    /// pinned one and uses the pinned maps; the capacity is that of the slots that it uses, and 0
    /// where those are none of ours.
    fn describe(
        &self,
        port: PortIndex,
        id: u32,
    ) -> Result<(Option<Digest>, Capacity), KernelError> {
        let asked = || format!("reading the program of {port}");
        let maps = Program::by_id(id)
            .and_then(|program| program.map_ids())
            .asked(asked)?;
        let uses = |id: &u32| maps.contains(id);
        let reads = self.outer_maps.iter().find(|(_, outer)| uses(outer));
        let Some((capacity, _)) = reads else {
            return Ok((None, Capacity(0)));
        };
        let shares = self.shared.as_ref().is_some_and(|ids| ids.iter().all(uses));
        let object = self
            .pinned
            .get(&(port, id))
            .filter(|(_, pinned)| shares && pinned == capacity)
            .map(|(object, _)| *object);
        Ok((object, *capacity))
    }
}
