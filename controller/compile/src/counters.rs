//! Stable counter indices.

use std::collections::{BTreeMap, BTreeSet};

use headgate_layout::maps::MAX_COUNTERS;

use crate::{
    memory::{CounterLease, CounterOwner, Memory, Seconds},
    snapshot::Uid,
};

/// How long a counter is kept for a rule that is gone, in seconds: long enough for a rule that is
/// taken out and put back to go on counting.
const GRACE: u64 = 3600;

/// Hands out counters.
pub struct Counters {
    leases: BTreeMap<u32, CounterLease>,
    by_owner: BTreeMap<CounterOwner, u32>,
    used: BTreeSet<u32>,
    next: u32,
    now: Seconds,
}

impl Counters {
    pub fn new(memory: &Memory, now: Seconds) -> Self {
        let grace_is_over = |lease: &CounterLease| {
            lease
                .unused_since
                .is_some_and(|since| now.0.saturating_sub(since.0) >= GRACE)
        };
        let kept = memory
            .counters
            .iter()
            .filter(|(_, lease)| !grace_is_over(lease));
        let leases: BTreeMap<u32, CounterLease> =
            kept.map(|(index, lease)| (*index, lease.clone())).collect();
        let owned = leases
            .iter()
            .filter_map(|(index, lease)| Some((lease.owner.clone()?, *index)));
        Self {
            by_owner: owned.collect(),
            leases,
            used: BTreeSet::new(),
            next: 0,
            now,
        }
    }

    /// The counters of a policy's rules or a service's ports, by their names; or `None`, and none is
    /// taken, where too few are left.
    pub fn of<'a>(
        &mut self,
        resource: &Uid,
        names: impl Iterator<Item = &'a String> + Clone,
    ) -> Option<Vec<u32>> {
        let owners = names.map(|name| CounterOwner {
            policy: resource.clone(),
            rule: name.clone(),
        });
        let new = owners
            .clone()
            .filter(|owner| !self.by_owner.contains_key(owner));
        if new.count() > MAX_COUNTERS as usize - self.leases.len() {
            return None;
        }
        Some(owners.map(|owner| self.index(owner)).collect())
    }

    fn index(&mut self, owner: CounterOwner) -> u32 {
        let index = match self.by_owner.get(&owner) {
            Some(index) => *index,
            None => self.take(owner),
        };
        self.used.insert(index);
        index
    }

    /// Takes the lowest counter that is free; the caller has seen that there is one.
    fn take(&mut self, owner: CounterOwner) -> u32 {
        while self.leases.contains_key(&self.next) {
            self.next += 1;
        }
        let lease = CounterLease {
            owner: Some(owner.clone()),
            unused_since: None,
            fresh: true,
        };
        self.leases.insert(self.next, lease);
        self.by_owner.insert(owner, self.next);
        self.next
    }

    /// The leases to remember.
    pub fn finish(mut self) -> BTreeMap<u32, CounterLease> {
        for (index, lease) in &mut self.leases {
            lease.unused_since = if self.used.contains(index) {
                None
            } else {
                lease.unused_since.or(Some(self.now))
            };
        }
        self.leases
    }
}
