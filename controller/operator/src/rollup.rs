//! What the nodes show, a resource at a time.
//!
//! A node shows one digest of everything that it was compiled from. The operator reckons the same
//! digest from the resources, now and as they were of late, and so knows which generation of each
//! resource is in a node's kernel, whatever else changed since.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Instant,
};

use headgate_compile::inputs::{Catalog, Selection, of_node};
use headgate_crds::{FailingNode, MOST_NAMES, NodeCounts};
use headgate_datapath::state::Digest;

use crate::fleet::{Exception, Fleet, Node, Resource};

/// Former sets of resources that nodes may still show. A node that shows an older one is pending
/// until it has caught up.
const REMEMBERED: usize = 64;

/// The resources of the cluster as they were of late, the present ones first.
#[derive(Debug, Default)]
pub struct History {
    moments: VecDeque<Moment>,
    /// How many there were.
    number: u64,
    /// What each node was last known to show, by the node's uid.
    last: BTreeMap<String, Known>,
}

/// The resources at one time, with the digests that were reckoned from them.
#[derive(Debug)]
struct Moment {
    number: u64,
    catalog: Arc<Catalog>,
    digests: BTreeMap<Selection, Digest>,
}

/// A moment, and what selected a node in it.
#[derive(Clone, Debug)]
struct Known {
    number: u64,
    catalog: Arc<Catalog>,
    selection: Selection,
}

/// How a resource stands on the nodes that it selects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// Numbers.
    pub counts: NodeCounts,
    /// Selected nodes whose agent is alive.
    pub alive: u32,
    /// The first nodes on which it is not in effect, by name.
    pub failing: Vec<FailingNode>,
    /// The first nodes that have not shown it yet.
    pub pending: Vec<String>,
    /// Why the first of them has not, where its agent says.
    pub pending_because: Option<String>,
    /// The first nodes that nothing waits for.
    pub unreachable: Vec<String>,
}

/// Nodes that stand alike: of them, everything but their exceptions and their names is the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cohort {
    agent: Agent,
    selection: Selection,
    shown: Option<(u64, Selection)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Agent {
    Alive,
    /// It ought to be.
    Missing,
    /// The node is down, or is not meant to run one.
    Unreachable,
}

impl History {
    /// Takes in the resources as they are now.
    pub fn remember(&mut self, catalog: Catalog) {
        if self
            .moments
            .front()
            .is_some_and(|now| *now.catalog == catalog)
        {
            return;
        }
        self.number += 1;
        self.moments.push_front(Moment {
            number: self.number,
            catalog: Arc::new(catalog),
            digests: BTreeMap::new(),
        });
        self.moments.truncate(REMEMBERED);
    }

    /// The moment whose resources the node shows. Where it shows a set that was never seen here, as
    /// an agent may amid a burst of changes, the last that is known: what has not changed between
    /// that one and now is in the unseen one too.
    fn shown(&mut self, node: &Node, inputs: Digest) -> Option<Known> {
        let labels = &node.labels;
        let found = self.moments.iter_mut().find_map(|moment| {
            let selection = moment.catalog.select(labels);
            let known = moment.digests.get(&selection).copied();
            let resources = known.unwrap_or_else(|| {
                let resources = moment.catalog.digest(&selection);
                moment.digests.insert(selection.clone(), resources);
                resources
            });
            (of_node(resources, node.labels_digest) == inputs).then(|| Known {
                number: moment.number,
                catalog: Arc::clone(&moment.catalog),
                selection,
            })
        });
        match found {
            Some(known) => {
                self.last.insert(node.uid.clone(), known.clone());
                Some(known)
            }
            None => self.last.get(&node.uid).cloned(),
        }
    }

    fn forget(&mut self, fleet: &Fleet) {
        let uids: BTreeSet<&str> = fleet.nodes.values().map(|node| node.uid.as_str()).collect();
        self.last.retain(|uid, _| uids.contains(uid.as_str()));
    }
}

/// Everything that is asked a resource at a time.
pub struct Rollup<'a> {
    history: &'a History,
    fleet: &'a Fleet,
    cohorts: BTreeMap<Cohort, Vec<&'a str>>,
    /// Former resources that some node shows, by the number of their moment.
    shown: BTreeMap<u64, Arc<Catalog>>,
    of_node: BTreeMap<&'a str, Cohort>,
    exceptions: BTreeMap<(&'a str, &'a str), Vec<(&'a str, &'a Exception)>>,
}

impl<'a> Rollup<'a> {
    /// Looks at every node once.
    #[must_use]
    pub fn new(history: &'a mut History, fleet: &'a Fleet, now: Instant) -> Self {
        let mut cohorts: BTreeMap<Cohort, Vec<&str>> = BTreeMap::new();
        let mut of_node = BTreeMap::new();
        let mut catalogs = BTreeMap::new();
        history.forget(fleet);
        let mut exceptions: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for name in fleet.nodes.keys().map(String::as_str) {
            let (cohort, shown) = cohort(history, fleet, name, now);
            catalogs.extend(shown.map(|shown| (shown.number, shown.catalog)));
            cohorts.entry(cohort.clone()).or_default().push(name);
            of_node.insert(name, cohort);
            let shown = fleet.datapaths.get(name);
            for exception in shown.iter().flat_map(|shown| &shown.exceptions) {
                let of = (exception.kind.as_str(), exception.name.as_str());
                exceptions.entry(of).or_default().push((name, exception));
            }
        }
        Self {
            history,
            fleet,
            cohorts,
            shown: catalogs,
            of_node,
            exceptions,
        }
    }

    /// How this resource stands.
    #[must_use]
    pub fn of(&self, resource: &Resource) -> Standing {
        let mut standing = Standing::default();
        let excepted = self.excepted(resource, &mut standing);
        for (cohort, nodes) in &self.cohorts {
            if !self.concerns(resource, cohort) {
                continue;
            }
            let others = nodes.iter().filter(|node| !excepted.contains(*node));
            let names = || {
                others
                    .clone()
                    .take(MOST_NAMES)
                    .map(|node| (*node).to_owned())
            };
            let number = count(others.clone().count());
            match cohort.agent {
                Agent::Unreachable => {
                    standing.counts.unreachable += number;
                    standing.unreachable.extend(names());
                }
                Agent::Missing => {
                    standing.counts.failing += number;
                    standing.failing.extend(names().map(without_agent));
                }
                Agent::Alive if self.shows(resource, cohort) => standing.counts.live += number,
                Agent::Alive => {
                    standing.counts.pending += number;
                    standing.pending.extend(names());
                }
            }
            if cohort.agent == Agent::Alive {
                standing.alive += count(nodes.len());
            }
            standing.counts.selected += count(nodes.len());
        }
        self.shorten(&mut standing);
        standing
    }

    /// Puts the nodes that list exceptions for it where they belong; gives their names.
    fn excepted(&self, resource: &Resource, standing: &mut Standing) -> BTreeSet<&'a str> {
        let of = (resource.kind.as_str(), resource.name.as_str());
        let mut excepted = BTreeSet::new();
        for (node, exception) in self.exceptions.get(&of).into_iter().flatten() {
            let Some(cohort) = self.of_node.get(node) else {
                continue;
            };
            // What it says of another generation is not taken for this one's.
            let is_told = exception.is_of_interface || self.shows(resource, cohort);
            if cohort.agent != Agent::Alive || !self.concerns(resource, cohort) || !is_told {
                continue;
            }
            excepted.insert(*node);
            if exception.is_stalled {
                standing.counts.failing += 1;
                standing.failing.push(FailingNode {
                    node: (*node).to_owned(),
                    reason: exception.reason.clone(),
                    message: exception.message.clone(),
                });
            } else {
                standing.counts.pending += 1;
                standing.pending.push((*node).to_owned());
                let because = || format!("{node}: {}", exception.message);
                standing.pending_because.get_or_insert_with(because);
            }
        }
        excepted
    }

    fn concerns(&self, resource: &Resource, cohort: &Cohort) -> bool {
        let now = self.history.moments.front();
        now.is_some_and(|now| now.catalog.concerns(&resource.uid, &cohort.selection))
    }

    /// Whether the resource, as it is and with all that it refers to, is among what the cohort
    /// shows.
    fn shows(&self, resource: &Resource, cohort: &Cohort) -> bool {
        let (Some((number, selection)), Some(now)) = (&cohort.shown, self.history.moments.front())
        else {
            return false;
        };
        let shown = self.shown.get(number);
        shown.is_some_and(|shown| {
            shown.concerns(&resource.uid, selection) && shown.has_same(&now.catalog, &resource.uid)
        })
    }

    fn shorten(&self, standing: &mut Standing) {
        standing.failing.sort_by(|a, b| a.node.cmp(&b.node));
        standing.failing.truncate(MOST_NAMES);
        for names in [&mut standing.pending, &mut standing.unreachable] {
            names.sort();
            names.truncate(MOST_NAMES);
        }
        if let (None, Some(node)) = (&standing.pending_because, standing.pending.first()) {
            let shown = self.fleet.datapaths.get(node);
            let not_ready = shown.and_then(|shown| shown.not_ready.as_ref());
            standing.pending_because = not_ready.map(|(_, message)| format!("{node}: {message}"));
        }
    }
}

fn cohort(
    history: &mut History,
    fleet: &Fleet,
    name: &str,
    now: Instant,
) -> (Cohort, Option<Known>) {
    let node = &fleet.nodes[name];
    let shown = fleet.datapaths.get(name);
    // What another machine of the same name has shown is not this one's.
    let shown = shown.filter(|shown| shown.owner.is_empty() || shown.owner == node.uid);
    let agent = if fleet.has_agent(name, now) {
        Agent::Alive
    } else if node.is_down || !node.is_covered.unwrap_or(shown.is_some()) {
        Agent::Unreachable
    } else {
        Agent::Missing
    };
    let inputs = shown
        .filter(|shown| !shown.has_failed)
        .and_then(|shown| shown.inputs);
    let known = inputs.and_then(|inputs| history.shown(node, inputs));
    let cohort = Cohort {
        agent,
        shown: known
            .as_ref()
            .map(|known| (known.number, known.selection.clone())),
        selection: history
            .moments
            .front()
            .map(|now| now.catalog.select(&node.labels))
            .unwrap_or_default(),
    };
    (cohort, known)
}

fn without_agent(node: String) -> FailingNode {
    FailingNode {
        node,
        reason: "AgentMissing".to_owned(),
        message: "no agent is alive there: what its kernel holds stays in force, and nothing that \
                  changes gets there; look at the agent's pod on the node, or at its log"
            .to_owned(),
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
