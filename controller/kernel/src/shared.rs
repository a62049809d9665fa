//! The maps that all programs of an instance share.

use std::path::Path;

use headgate_datapath::{kernel::KernelError, observed::Slot};
use headgate_layout::maps::{self, SLOTS};

use crate::{
    bpf::Map,
    error::{Asked, if_present, unusable},
    failsafe::Failsafe,
    features::why_no_balancer,
    flows,
    pins::Pins,
    ring_blocks,
};

/// Open shared maps.
pub(crate) struct Shared {
    active: Map,
    pub(crate) rule_counters: Map,
    pub(crate) reason_counters: Map,
    failsafe: Map,
    failsafe_bits: Map,
    monitored: Map,
    monitor: Map,
    monitor_budgets: Map,
    events: Map,
    pub(crate) flows: Map,
    placements: Map,
    pub(crate) ring_blocks: Map,
}

impl Shared {
    /// The pinned maps, or `None` where one is missing.
    pub(crate) fn open(pins: &Pins) -> Result<Option<Self>, KernelError> {
        let mut found = Vec::new();
        for spec in &maps::SHARED {
            let path = pins.map(spec.name);
            let asked = || format!("opening the map {}", path.display());
            let Some(map) = if_present(Map::pinned(&path)).asked(asked)? else {
                return Ok(None);
            };
            if !map.is(spec) {
                return Err(Self::other_shape(&path));
            }
            found.push(map);
        }
        let [
            active,
            rule_counters,
            reason_counters,
            failsafe,
            failsafe_bits,
            monitored,
            monitor,
            monitor_budgets,
            events,
            _,
            flows,
            placements,
            ring_blocks,
        ] = <[Map; maps::SHARED.len()]>::try_from(found)
            .expect("one map for each of SHARED, in its order");
        Ok(Some(Self {
            active,
            rule_counters,
            reason_counters,
            failsafe,
            failsafe_bits,
            monitored,
            monitor,
            monitor_budgets,
            events,
            flows,
            placements,
            ring_blocks,
        }))
    }

    /// The pinned maps; an error where one is missing.
    pub(crate) fn required(pins: &Pins) -> Result<Self, KernelError> {
        Self::open(pins)?.ok_or_else(|| {
            unusable(
                format!("nothing is pinned in {}", pins.instance().display()),
                "start the agent with this instance name first",
            )
        })
    }

    /// Makes and pins those that are missing.
    pub(crate) fn prepare(pins: &Pins) -> Result<(), KernelError> {
        pins.make()?;
        for spec in &maps::SHARED {
            let path = pins.map(spec.name);
            let asked = || format!("making and pinning the map {}", path.display());
            if if_present(Map::pinned(&path)).asked(asked)?.is_some() {
                continue;
            }
            // What an array of maps takes it learns from one such map.
            let template = match spec {
                _ if *spec == maps::FLOWS => Some(flows::create("hg_template")?),
                _ if *spec == maps::RING_BLOCKS => Some(ring_blocks::template()?),
                _ => None,
            };
            let map = Map::create(spec, spec.name, template.as_ref()).asked(asked)?;
            map.pin(&path).asked(asked)?;
        }
        Ok(())
    }

    pub(crate) fn other_shape(path: &Path) -> KernelError {
        unusable(
            format!(
                "the pinned map {} has another shape than this version's",
                path.display()
            ),
            "take everything down with `headgate detach` and start the agent again",
        )
    }

    /// Ids of the maps that a program of ours uses on this kernel.
    pub(crate) fn used(&self) -> Vec<u32> {
        let always = [
            &self.active,
            &self.rule_counters,
            &self.reason_counters,
            &self.failsafe,
            &self.failsafe_bits,
            &self.monitored,
            &self.monitor,
            &self.monitor_budgets,
            &self.events,
        ];
        let balancing = [&self.flows, &self.placements, &self.ring_blocks].into_iter();
        let balancing = balancing.filter(|_| why_no_balancer().is_none());
        always.into_iter().chain(balancing).map(Map::id).collect()
    }

    /// What a monitor writes and reads: the word that every packet asks for, its order, and what was
    /// not told.
    pub(crate) fn monitored(self) -> [Map; 3] {
        [self.monitored, self.monitor, self.monitor_budgets]
    }

    pub(crate) fn active_slot(&self) -> Result<Slot, KernelError> {
        let asked = || "reading the active slot".to_owned();
        let value = self.active.lookup(&0_u32.to_ne_bytes()).asked(asked)?;
        let value = value
            .try_into()
            .expect("the map was checked to be of its shape");
        Ok(Slot(u32::from_ne_bytes(value) % SLOTS))
    }

    /// Programs read the word once a packet, so this is the moment of change.
    pub(crate) fn flip(&self, slot: Slot) -> Result<(), KernelError> {
        self.active
            .update(&0_u32.to_ne_bytes(), &slot.0.to_ne_bytes())
            .asked(|| format!("making slot {} active", slot.0))
    }
}

impl<'a> Failsafe<'a> {
    pub(crate) fn of(shared: &'a Shared) -> Self {
        Self {
            trie: &shared.failsafe,
            bits: &shared.failsafe_bits,
        }
    }
}
