//! What a node's revision is compiled from, in a form that compares across nodes: who knows the
//! cluster's resources and a node's labels can reckon it as well.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use headgate_crds::{
    CidrGroupReference, Kind, LabelSelector, LoadBalancerServiceSpec, XdpPolicySpec,
};
use headgate_datapath::state::Digest;

use crate::{
    services,
    snapshot::{Content, Snapshot, Submitted, Uid},
};

/// Labels of a node.
pub type Labels = BTreeMap<String, String>;

/// Whether `policy`, on a node with these labels, names or selects CidrGroups.
#[must_use]
pub fn uses_groups(policy: &XdpPolicySpec, labels: &Labels) -> bool {
    let selector = policy.node_selector.as_ref();
    selector.is_none_or(|selector| selector.matches(labels)) && references(policy).next().is_some()
}

/// Digest over uid and generation of each resource that concerns a node with these labels, the uids
/// that its references resolve to, and the labels; `None` where part of the resources is not known.
///
/// A resource that is refused counts as any other, with the generation that was refused: whether it
/// is in effect is told beside the digest.
#[must_use]
pub fn inputs_digest(snapshot: &Snapshot, labels: &Labels) -> Option<Digest> {
    if !snapshot.unreadable.is_empty() {
        return None;
    }
    let catalog = Catalog::of(snapshot.submitted.iter().filter_map(Entry::of));
    let resources = catalog.digest(&catalog.select(labels));
    Some(of_node(resources, labels_digest(labels)))
}

/// The inputs digest of a node, from [`Catalog::digest`] and [`labels_digest`].
#[must_use]
pub fn of_node(resources: Digest, labels: Digest) -> Digest {
    let both = [resources.bytes(), labels.bytes()];
    Digest::of(&both.concat())
}

/// Digest of a node's labels.
#[must_use]
pub fn labels_digest(labels: &Labels) -> Digest {
    let lines = labels.iter().map(|(key, value)| format!("{key}={value}\n"));
    Digest::of(lines.collect::<String>().as_bytes())
}

/// A resource, as far as inputs go.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: &'a str,
    /// Its uid.
    pub uid: &'a str,
    /// Its generation, where an API counts them.
    pub generation: Option<u64>,
    /// Digest of what was written.
    pub written: Digest,
    /// What it says; `None` where it is refused.
    pub content: Option<&'a Content>,
}

impl<'a> Entry<'a> {
    fn of(submitted: &'a Submitted) -> Option<Self> {
        Some(Self {
            kind: Kind::from_name(&submitted.name.kind)?,
            name: &submitted.name.name,
            uid: &submitted.uid,
            generation: submitted.generation,
            written: submitted.written,
            content: submitted.content.as_ref().ok(),
        })
    }
}

/// All resources of a cluster at one time, made ready to be asked what concerns a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalog {
    /// Each distinct one once: many policies select the same nodes.
    selectors: Vec<LabelSelector>,
    resources: BTreeMap<Uid, Listed>,
}

/// A resource in a catalog.
#[derive(Clone, Debug, PartialEq)]
struct Listed {
    line: String,
    concerns: Concerns,
}

/// The nodes that a resource concerns.
#[derive(Clone, Debug, PartialEq)]
enum Concerns {
    Every,
    /// Those that this selector of the catalog selects.
    Selected(usize),
    /// Those of the resources that use it.
    OfUsers(BTreeSet<Uid>),
}

/// Which selectors of a [`Catalog`] select a node: nodes with the same selection have the same
/// resources.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selection(Vec<bool>);

impl Catalog {
    /// The catalog of these resources.
    #[must_use]
    pub fn of<'a>(entries: impl Iterator<Item = Entry<'a>>) -> Self {
        let (referred, selecting): (Vec<_>, Vec<_>) =
            entries.partition(|entry| matches!(entry.kind, Kind::CidrGroup | Kind::AddressPool));
        let mut catalog = Self::default();
        let mut users: BTreeMap<&str, BTreeSet<Uid>> = BTreeMap::new();
        for entry in &selecting {
            let (selector, used) = match entry.content {
                Some(Content::Policy(spec)) => (&spec.node_selector, groups_of(spec, &referred)),
                Some(Content::Service(service)) => {
                    let pools = pools_of(entry.name, &service.spec, &referred);
                    (&service.spec.node_selector, pools)
                }
                Some(Content::Peer(peer)) => (&peer.spec.node_selector, BTreeSet::new()),
                _ => (&None, BTreeSet::new()),
            };
            for uid in &used {
                users.entry(uid).or_default().insert(entry.uid.to_owned());
            }
            let concerns = match selector {
                Some(selector) => Concerns::Selected(catalog.number_of(selector)),
                None => Concerns::Every,
            };
            catalog.list(entry, concerns, &used);
        }
        for entry in &referred {
            let users = users.remove(entry.uid).unwrap_or_default();
            catalog.list(entry, Concerns::OfUsers(users), &BTreeSet::new());
        }
        catalog
    }

    fn number_of(&mut self, selector: &LabelSelector) -> usize {
        let known = self.selectors.iter().position(|known| known == selector);
        known.unwrap_or_else(|| {
            self.selectors.push(selector.clone());
            self.selectors.len() - 1
        })
    }

    fn list(&mut self, entry: &Entry<'_>, concerns: Concerns, references: &BTreeSet<&str>) {
        let listed = Listed {
            line: line(entry, references),
            concerns,
        };
        self.resources.insert(entry.uid.to_owned(), listed);
    }

    /// What selects a node with these labels.
    #[must_use]
    pub fn select(&self, labels: &Labels) -> Selection {
        let selectors = self.selectors.iter();
        Selection(selectors.map(|selector| selector.matches(labels)).collect())
    }

    /// Digest over everything that concerns a node that is selected so.
    #[must_use]
    pub fn digest(&self, selection: &Selection) -> Digest {
        let concerning = self.resources.values();
        let concerning = concerning.filter(|listed| self.is_of(listed, selection));
        let lines: String = concerning.map(|listed| listed.line.as_str()).collect();
        Digest::of(lines.as_bytes())
    }

    /// Whether the resource concerns a node that is selected so.
    #[must_use]
    pub fn concerns(&self, uid: &str, selection: &Selection) -> bool {
        let listed = self.resources.get(uid);
        listed.is_some_and(|listed| self.is_of(listed, selection))
    }

    /// Whether a resource is the same in both: its generation, and what its references resolve to.
    #[must_use]
    pub fn has_same(&self, other: &Self, uid: &str) -> bool {
        let listed = self.resources.get(uid);
        let in_other = other.resources.get(uid);
        listed.is_some_and(|listed| in_other.is_some_and(|other| other.line == listed.line))
    }

    fn is_of(&self, listed: &Listed, selection: &Selection) -> bool {
        match &listed.concerns {
            Concerns::Every => true,
            Concerns::Selected(number) => selection.0.get(*number).copied().unwrap_or(false),
            Concerns::OfUsers(users) => users.iter().any(|user| self.concerns(user, selection)),
        }
    }
}

fn references(policy: &XdpPolicySpec) -> impl Iterator<Item = &CidrGroupReference> {
    let sides = policy.rules.iter().flat_map(|rule| [&rule.from, &rule.to]);
    sides.flatten().filter_map(|side| side.cidr_groups.as_ref())
}

/// The pools that admit an address of the service `name`.
fn pools_of<'a>(
    name: &str,
    service: &LoadBalancerServiceSpec,
    referred: &[Entry<'a>],
) -> BTreeSet<&'a str> {
    let admits = |pool: &&Entry<'_>| match pool.content {
        Some(Content::Pool(spec)) => {
            let mut addresses = service.parsed_addresses();
            addresses.any(|address| services::admits(spec, name, address))
        }
        _ => false,
    };
    referred
        .iter()
        .filter(admits)
        .map(|pool| pool.uid)
        .collect()
}

fn groups_of<'a>(policy: &XdpPolicySpec, referred: &[Entry<'a>]) -> BTreeSet<&'a str> {
    let mut uids = BTreeSet::new();
    for reference in references(policy) {
        let is_meant = |group: &&Entry<'_>| {
            if group.kind != Kind::CidrGroup {
                return false;
            }
            let selects = |labels| {
                let selector = reference.selector.as_ref();
                selector.is_some_and(|selector| selector.matches(labels))
            };
            let labels = match group.content {
                Some(Content::Group(group)) => Some(&group.labels),
                _ => None,
            };
            reference.names.iter().any(|name| name == group.name) || labels.is_some_and(selects)
        };
        uids.extend(referred.iter().filter(is_meant).map(|group| group.uid));
    }
    uids
}

fn line(entry: &Entry<'_>, references: &BTreeSet<&str>) -> String {
    let generation = match entry.generation {
        Some(number) => number.to_string(),
        None => entry.written.to_string(),
    };
    let mut line = format!("{} {generation}", entry.uid);
    for uid in references {
        let _ = write!(line, " {uid}");
    }
    line.push('\n');
    line
}
