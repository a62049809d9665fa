//! What a service by DirectReturn settles from after a change of its backends, so that connections of backends
//! that live stay where they are. `headgate_layout::settling` describes what comes of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use headgate_crds::{Forwarding, LoadBalancerServiceSpec};
use headgate_layout::{services::MAX_BACKENDS, settling::MAX_NUMBERS};
use serde::{Deserialize, Serialize};

use super::rings::{Ring, Rings, Weighted};
use crate::{memory::Seconds, snapshot::Uid};

/// For how long connections stay with their former backends.
pub const SETTLING: u64 = 3_600;

/// Former rings at most: of more changes within [`SETTLING`] the oldest is forgotten.
const MAX_ERAS: usize = 8;

/// Numbers of backends at most, with those that are gone.
const MAX_LISTED: usize = 2 * MAX_BACKENDS as usize;

#[cfg(test)]
mod tests;

/// Histories of all services in effect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histories {
    /// By service.
    pub of: BTreeMap<Uid, Arc<History>>,
    /// The numbering of backends that was begun last, of any service.
    pub epoch: u16,
}

/// The backends that a service has, and those that it had.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    ring_size: u32,
    backends: Weighted,
    /// Oldest first; empty at rest.
    former: Vec<Era>,
    /// Backends by the number that they have while the service settles. Who has gone keeps it.
    numbers: Vec<IpAddr>,
    /// Which numbering it is, from 1.
    epoch: u16,
}

/// The backends of a time that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Era {
    backends: Weighted,
    ended: Seconds,
}

impl Histories {
    /// Notes what a service has now. `None`: it keeps no connections so.
    pub(crate) fn note(
        &mut self,
        known: &Self,
        uid: &Uid,
        spec: &LoadBalancerServiceSpec,
        now: Seconds,
    ) -> Option<Arc<History>> {
        if spec.forwarding != Forwarding::DirectReturn {
            return None;
        }
        let former = known.of.get(uid);
        let mut history = former.map_or_else(History::default, |history| (**history).clone());
        let backends = spec.living_backends().collect();
        history.go_on(spec.ring_size, backends, now, &mut self.epoch);
        let history = match former {
            Some(former) if **former == history => Arc::clone(former),
            _ => Arc::new(history),
        };
        self.of.insert(uid.clone(), Arc::clone(&history));
        Some(history)
    }
}

impl History {
    fn go_on(&mut self, ring_size: u32, mut backends: Weighted, now: Seconds, epoch: &mut u16) {
        backends.sort();
        self.former
            .retain(|era| now.0.saturating_sub(era.ended.0) < SETTLING);
        if self.ring_size != ring_size {
            // Entries of rings of two sizes have nothing to do with each other.
            self.former.clear();
        } else if self.backends != backends {
            self.former.push(Era {
                backends: std::mem::take(&mut self.backends),
                ended: now,
            });
            let too_many = self.former.len().saturating_sub(MAX_ERAS);
            self.former.drain(..too_many);
        }
        self.ring_size = ring_size;
        self.backends = backends;
        self.number(epoch);
    }

    /// Gives a number to each backend that has none. Only backends that live are ever looked for.
    fn number(&mut self, epoch: &mut u16) {
        if self.former.is_empty() {
            self.numbers.clear();
            self.epoch = 0;
            return;
        }
        let known: BTreeSet<IpAddr> = self.numbers.iter().copied().collect();
        let living = self.backends.iter().map(|(address, _)| *address);
        let unknown: Vec<IpAddr> = living.clone().filter(|a| !known.contains(a)).collect();
        let is_full = self.numbers.len() + unknown.len() > MAX_LISTED;
        if self.epoch == 0 || is_full {
            *epoch = *epoch % u16::MAX + 1;
            self.epoch = *epoch;
            self.numbers = living.collect();
        } else {
            self.numbers.extend(unknown);
        }
    }

    /// When it has settled, if nothing changes until then; `None` at rest.
    #[must_use]
    pub fn settles_at(&self) -> Option<Seconds> {
        let last = self.former.last()?;
        Some(Seconds(last.ended.0 + SETTLING))
    }

    /// Which numbering of backends it is.
    pub(super) fn epoch(&self) -> u16 {
        self.epoch
    }

    /// Backends of one family that keep connections and get no new ones.
    pub fn draining(&self, is_ipv4: bool) -> impl Iterator<Item = IpAddr> {
        let of_family = self
            .backends
            .iter()
            .filter(move |b| b.0.is_ipv4() == is_ipv4);
        let drained = of_family.filter(|(_, weight)| *weight == 0);
        drained.map(|(address, _)| *address)
    }

    /// The ring of one family; `None` where it is as at rest.
    pub(super) fn settle(&self, is_ipv4: bool, rings: &mut Rings) -> Option<Settling> {
        let former = self.former.iter().map(|era| &era.backends);
        let has_new =
            |(address, weight): &(IpAddr, u16)| address.is_ipv4() == is_ipv4 && *weight > 0;
        if self.former.is_empty() || !self.backends.iter().any(has_new) {
            return None;
        }
        let mut entries = Entries::new(self.ring_size);
        for backends in former.chain([&self.backends]) {
            let of_family = backends.iter().filter(|b| b.0.is_ipv4() == is_ipv4);
            let of_family: Weighted = of_family.copied().collect();
            entries.go_on(&of_family, rings);
        }
        entries
            .are_changed()
            .then(|| self.number_entries(&entries, is_ipv4))
    }

    fn number_entries(&self, entries: &Entries, is_ipv4: bool) -> Settling {
        let weights: BTreeMap<IpAddr, u16> = self.backends.iter().copied().collect();
        let living = |address: &IpAddr| {
            let weight = *weights.get(address)?;
            (address.is_ipv4() == is_ipv4).then_some((*address, weight))
        };
        let numbers = self.numbers.iter().enumerate();
        let numbers: BTreeMap<IpAddr, u16> = numbers.map(|(n, a)| (*a, n as u16)).collect();
        let mut known: BTreeMap<[u16; 2], u16> = BTreeMap::new();
        let mut settling = Settling {
            listed: self.numbers.iter().map(living).collect(),
            ring: Arc::default(),
            choices: Vec::new(),
        };
        let ring = entries.of.iter().map(|entry| {
            let [new, former] = [entry.new, entry.former].map(|id| numbers[&entries.ids[id]]);
            let is_full = settling.listed.len() + settling.choices.len() >= MAX_NUMBERS;
            match known.get(&[new, former]) {
                _ if !entry.is_changed => new,
                Some(choice) => *choice,
                // Some 60,000 pairs of backends: what is left goes with the new ring.
                None if is_full => new,
                None => {
                    let choice = (settling.listed.len() + settling.choices.len()) as u16;
                    settling.choices.push([new, former]);
                    known.insert([new, former], choice);
                    choice
                }
            }
        });
        settling.ring = ring.collect();
        settling
    }
}

/// A ring while a service settles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settling {
    /// Backends with their weights, by number; `None` where one is gone, or of another family.
    pub listed: Vec<Option<(IpAddr, u16)>>,
    /// For each entry a number of those listed, or, above these, of a choice.
    pub ring: Ring,
    /// New and former backend.
    pub choices: Vec<[u16; 2]>,
}

impl Settling {
    /// The backend of connections that begin, and that of others, at a ring entry.
    pub(super) fn at(&self, entry: u32) -> Option<(IpAddr, IpAddr)> {
        let number = usize::from(*self.ring.get(entry as usize)?);
        let [new, former] = match number.checked_sub(self.listed.len()) {
            Some(choice) => self.choices.get(choice)?.map(usize::from),
            None => [number; 2],
        };
        let address = |number: usize| Some((*self.listed.get(number)?)?.0);
        Some((address(new)?, address(former)?))
    }
}

/// Ring entries, followed from era to era.
struct Entries {
    of: Vec<Entry>,
    /// Backends that ever were, and their places in this list.
    ids: Vec<IpAddr>,
    places: BTreeMap<IpAddr, usize>,
}

#[derive(Clone, Copy)]
struct Entry {
    /// The backend of connections that begin.
    new: usize,
    /// The backend of those that no placement is kept of.
    former: usize,
    /// Whether there are or may be placements.
    is_changed: bool,
}

impl Entries {
    const NONE: usize = usize::MAX;

    fn new(ring_size: u32) -> Self {
        let entry = Entry {
            new: Self::NONE,
            former: Self::NONE,
            is_changed: false,
        };
        Self {
            of: vec![entry; ring_size as usize],
            ids: Vec::new(),
            places: BTreeMap::new(),
        }
    }

    /// Where an entry's former backend is gone, connections that were there go with the ring of this era.
    fn go_on(&mut self, backends: &Weighted, rings: &mut Rings) {
        let weighted: Weighted = backends.iter().filter(|b| b.1 > 0).copied().collect();
        if weighted.is_empty() {
            // Nothing goes anywhere.
            return;
        }
        let ring = rings.of(&weighted, self.of.len() as u32);
        let drained = backends.iter().filter(|b| b.1 == 0);
        let all = weighted.iter().chain(drained);
        let ids: Vec<usize> = all.map(|(address, _)| self.id(*address)).collect();
        let mut lives = vec![false; self.ids.len()];
        for id in &ids {
            lives[*id] = true;
        }
        for (entry, number) in self.of.iter_mut().zip(ring.iter()) {
            entry.new = ids[usize::from(*number)];
            if entry.former == Self::NONE || !lives[entry.former] {
                entry.former = entry.new;
            }
            entry.is_changed |= entry.former != entry.new;
        }
    }

    fn id(&mut self, address: IpAddr) -> usize {
        *self.places.entry(address).or_insert_with(|| {
            self.ids.push(address);
            self.ids.len() - 1
        })
    }

    fn are_changed(&self) -> bool {
        self.of.iter().any(|entry| entry.is_changed)
    }
}
