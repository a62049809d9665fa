//! What compile must remember between runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use headgate_datapath::state::{Digest, PortIndex};
use serde::{Deserialize, Serialize};

use crate::{
    endpoints::Endpoints,
    services::Histories,
    snapshot::{Content, ResourceName, Uid},
    uplinks::Uplinks,
};

/// Seconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seconds(pub u64);

/// The number of a resource's content, counted up by one with each change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Generation {
    /// The number, from 1.
    pub number: u64,
    /// Digest of what was written.
    pub written: Digest,
}

/// The last content of a resource that was good.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastGood {
    /// Kind and name.
    pub name: ResourceName,
    /// Number of that content.
    pub generation: u64,
    /// The file or list that it was read from.
    pub list: String,
    /// The content.
    pub content: Content,
}

/// Who a counter belongs to, a rule of a policy or a port of a service: it stays the same over
/// revisions and restarts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CounterOwner {
    /// The policy's or service's uid.
    pub policy: Uid,
    /// The rule's or port's name.
    pub rule: String,
}

/// A counter's owner, or former owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterLease {
    /// `None` where a live table counts into it and nobody knows for whom.
    pub owner: Option<CounterOwner>,
    /// Since when no rule uses it.
    pub unused_since: Option<Seconds>,
    /// Whether it must be set to zero before use.
    pub fresh: bool,
}

/// What compile must remember between runs: plain data, kept on disk by the agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// The disk held no memory although the kernel holds a revision. Until everything is good,
    /// that revision stays whole.
    pub lost: bool,
    /// Counters by index.
    pub counters: BTreeMap<u32, CounterLease>,
    /// Port indices by interface name.
    pub ports: BTreeMap<String, PortIndex>,
    /// Interfaces that have or had a default route.
    #[serde(default)]
    pub uplinks: Uplinks,
    /// The endpoints that services in effect use.
    #[serde(default)]
    pub endpoints: Arc<Endpoints>,
    /// Backends of services, and those that they had.
    #[serde(default)]
    pub histories: Histories,
    /// Numbers of all resources' contents.
    pub generations: BTreeMap<Uid, Generation>,
    /// Last good contents.
    #[serde(skip)]
    pub last_good: BTreeMap<Uid, LastGood>,
}

impl Memory {
    /// The memory of an agent that finds a revision in the kernel and nothing on its disk.
    #[must_use]
    pub fn lost(
        ports: BTreeMap<String, PortIndex>,
        counters_in_use: &BTreeSet<u32>,
        now: Seconds,
    ) -> Self {
        let unknown = CounterLease {
            owner: None,
            unused_since: Some(now),
            fresh: true,
        };
        let counters = counters_in_use.iter();
        Self {
            lost: true,
            counters: counters.map(|index| (*index, unknown.clone())).collect(),
            ports,
            // Not where a former memory began: what the kernel keeps is told from what comes by the number.
            histories: Histories {
                epoch: now.0 as u16,
                ..Histories::default()
            },
            ..Self::default()
        }
    }

    /// Notes that these counters were set to zero.
    pub fn counters_were_reset(&mut self, counters: &BTreeSet<u32>) {
        for index in counters {
            if let Some(lease) = self.counters.get_mut(index) {
                lease.fresh = false;
            }
        }
    }
}
