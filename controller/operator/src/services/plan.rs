//! From Services and pools to the LoadBalancerServices that there are to be, and what Services are told.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use headgate_compile::{services::admits, snapshot::Content};
use headgate_crds::{
    AddressPoolSpec, Backends, Forwarding, Kind, LoadBalancerServiceSpec, MAX_SOURCE_RANGES,
    ServiceReference, WithoutBackends, parse_cidr,
};

use super::asked::Asked;
use crate::fleet::{Fleet, Resource, Told};

/// What has to be done about a LoadBalancerService, of the same name as its Service.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Make it so, for this Service.
    Apply(Box<LoadBalancerServiceSpec>),
    /// Remove it, if it is still the one of this uid.
    Delete(String),
}

/// What a Service is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Its addresses, where a node serves them.
    pub addresses: BTreeSet<String>,
    /// Whether that is all it asked for.
    pub is_served: bool,
    /// Why or why not, in one word.
    pub reason: &'static str,
    /// In a sentence.
    pub message: String,
}

impl Word {
    /// That the API has refused what was to be made.
    #[must_use]
    pub fn refused(asked: &Asked, error: &str) -> Self {
        Self {
            addresses: asked.told.clone(),
            is_served: false,
            reason: "Refused",
            message: format!("the API refuses the LoadBalancerService of this name: {error}"),
        }
    }

    /// Whether the Service has been told so.
    #[must_use]
    pub fn is_known_to(&self, asked: &Asked) -> bool {
        let said = asked.said.as_ref();
        let is_said = said.is_some_and(|c| c.reason == self.reason && c.message == self.message);
        is_said && asked.told == self.addresses
    }
}

/// All that is to be done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// By `NAMESPACE/NAME`.
    pub steps: BTreeMap<String, Step>,
    /// What Services are told that they are not told yet, by `NAMESPACE/NAME`.
    pub words: BTreeMap<String, Word>,
}

/// Addresses given, by the uid of the Service.
pub type Given = BTreeMap<String, Vec<IpAddr>>;

/// The plan for `fleet`. `given` is what was given before and may not be seen yet; what is given now is added.
#[must_use]
pub fn plan(fleet: &Fleet, given: &mut Given) -> Plan {
    let mut planner = Planner::new(fleet, given);
    let mut plan = Plan::default();
    for (name, asked) in &fleet.services {
        let (step, word) = planner.decide(name, asked);
        plan.steps.extend(step.map(|step| (name.clone(), step)));
        if !word.is_known_to(asked) {
            plan.words.insert(name.clone(), word);
        }
    }
    let of_nobody = planner.owned.iter().filter(|(_, (resource, owner))| {
        let service = fleet.services.get(&resource.name);
        service.is_none_or(|service| service.uid != *owner)
    });
    let deleted = of_nobody.map(|(name, (resource, _))| {
        let delete = Step::Delete(resource.uid.clone());
        ((*name).to_owned(), delete)
    });
    plan.steps.extend(deleted);
    let services = fleet.services.values();
    let known: BTreeSet<&str> = services.map(|asked| asked.uid.as_str()).collect();
    given.retain(|uid, _| known.contains(uid.as_str()));
    plan
}

struct Planner<'a> {
    fleet: &'a Fleet,
    given: &'a mut Given,
    pools: Vec<(&'a str, &'a AddressPoolSpec)>,
    /// LoadBalancerServices that a Service owns, with the Service's uid, by name.
    owned: BTreeMap<&'a str, (&'a Resource, &'a str)>,
    /// LoadBalancerServices that somebody else made.
    others: BTreeSet<&'a str>,
    /// Who has an address, by name.
    taken: BTreeMap<IpAddr, String>,
}

impl<'a> Planner<'a> {
    fn new(fleet: &'a Fleet, given: &'a mut Given) -> Self {
        let mut pools = Vec::new();
        let mut owned = BTreeMap::new();
        let mut others = BTreeSet::new();
        // Of two that want one address, the first that is asked here has it.
        let mut of_owned = BTreeMap::new();
        let mut of_others = BTreeMap::new();
        for resource in fleet.resources.values() {
            let told = fleet.told.get(&resource.uid);
            let owner = told.and_then(|told| told.owner.as_deref());
            match &resource.content {
                Ok(Content::Pool(pool)) => pools.push((resource.name.as_str(), &**pool)),
                Ok(Content::Service(service)) => {
                    let addresses = service.spec.parsed_addresses();
                    let held = addresses.map(|address| (address, resource.name.clone()));
                    match owner {
                        Some(_) => of_owned.extend(held),
                        None => of_others.extend(held),
                    }
                }
                _ => {}
            }
            if resource.kind == Kind::LoadBalancerService {
                match owner {
                    Some(owner) => drop(owned.insert(resource.name.as_str(), (&**resource, owner))),
                    None => drop(others.insert(resource.name.as_str())),
                }
            }
        }
        let nodes = fleet.nodes.iter();
        let of_nodes = nodes.flat_map(|(name, node)| {
            let addresses = node.addresses.iter();
            addresses.map(move |address| (*address, format!("the node {name}")))
        });
        let services = fleet.services.iter();
        let unseen = services.flat_map(|(name, asked)| {
            let unseen = given.get(&asked.uid).into_iter().flatten();
            unseen.map(move |address| (*address, name.clone()))
        });
        let mut taken: BTreeMap<IpAddr, String> = of_nodes.collect();
        for (address, name) in of_owned.into_iter().chain(unseen).chain(of_others) {
            taken.entry(address).or_insert(name);
        }
        pools.sort_by_key(|(name, _)| *name);
        Self {
            fleet,
            given,
            pools,
            owned,
            others,
            taken,
        }
    }

    fn decide(&mut self, name: &str, asked: &Asked) -> (Option<Step>, Word) {
        let stays = self
            .owned
            .get(name)
            .filter(|(_, owner)| *owner == asked.uid);
        let stays = stays.map(|(resource, _)| *resource);
        let refused = |reason, message: &str| refused(asked, stays, reason, message);
        if self.others.contains(name) {
            let message = format!(
                "a LoadBalancerService {name} exists that is not this Service's; delete it, or rename one of the two"
            );
            return refused("NameTaken", &message);
        }
        let ranges = asked.source_ranges.as_ref().map_or(0, Vec::len);
        if ranges > MAX_SOURCE_RANGES {
            let message = format!(
                "{ranges} loadBalancerSourceRanges are too many, the first {MAX_SOURCE_RANGES} alone can hold; sum them up in fewer"
            );
            return refused("Unsupported", &message);
        }
        let ports = match &asked.ports {
            Ok(ports) => ports.clone(),
            Err(message) => return refused("Unsupported", message),
        };
        let addresses = match self.addresses(name, asked) {
            Ok(addresses) => addresses,
            Err(message) => return refused("NoAddress", &message),
        };
        for address in &addresses {
            self.taken.insert(*address, name.to_owned());
        }
        self.given.insert(asked.uid.clone(), addresses.clone());
        let existing = self.owned.get(name).map(|(resource, _)| *resource);
        let former = existing.and_then(spec_of);
        let spec = LoadBalancerServiceSpec {
            // Which nodes serve is for people to choose.
            node_selector: former.and_then(|former| former.node_selector.clone()),
            interfaces: vec![headgate_crds::DEFAULT_ROUTE.to_owned()],
            addresses: addresses.iter().map(ToString::to_string).collect(),
            ports,
            backends: Backends {
                fixed: Vec::new(),
                service_ref: Some(ServiceReference {
                    name: asked.name.clone(),
                }),
            },
            forwarding: Forwarding::Nat,
            source_ranges: asked.source_ranges.clone(),
            external_traffic_policy: asked.traffic_policy,
            without_backends: WithoutBackends::Drop,
            ring_size: 16_381,
        };
        let is_so = former == Some(&spec);
        let told = existing.filter(|_| is_so).and_then(|resource| {
            let told = self.fleet.told.get(&resource.uid)?;
            let generation = i64::try_from(resource.generation?).ok()?;
            (told.status.observed_generation == generation).then_some(&**told)
        });
        let word = word(asked, &spec, told);
        ((!is_so).then(|| Step::Apply(Box::new(spec))), word)
    }

    /// Those that it asks for by name; else those that it has; else the first that are free.
    fn addresses(&self, name: &str, asked: &Asked) -> Result<Vec<IpAddr>, String> {
        let named = asked.addresses.as_ref().map_err(Clone::clone)?;
        let mut addresses = Vec::new();
        for (is_asked, is_v4) in asked.families.into_iter().zip([true, false]) {
            if !is_asked {
                continue;
            }
            let mut of_family = named.iter().filter(|address| address.is_ipv4() == is_v4);
            addresses.push(match of_family.next() {
                Some(address) => self.named(name, *address)?,
                None => self.kept_or_free(name, &asked.uid, is_v4)?,
            });
        }
        match named.iter().find(|address| !addresses.contains(address)) {
            Some(other) => Err(format!(
                "{other} is not used: a Service gets one address of each of its ipFamilies; ask for no more"
            )),
            None => Ok(addresses),
        }
    }

    fn named(&self, name: &str, address: IpAddr) -> Result<IpAddr, String> {
        if !self.is_admitted(name, address) {
            return Err(format!(
                "{address} lies in no AddressPool that admits this namespace; add it to one, or ask for an address of one"
            ));
        }
        match self.taken.get(&address).filter(|holder| *holder != name) {
            Some(holder) => Err(format!("{holder} has {address}; ask for another address")),
            None => Ok(address),
        }
    }

    fn kept_or_free(&self, name: &str, uid: &str, is_v4: bool) -> Result<IpAddr, String> {
        let seen = self.owned.get(name).filter(|(_, owner)| *owner == uid);
        let seen = seen.and_then(|(resource, _)| match &resource.content {
            Ok(Content::Service(service)) => Some(service.spec.parsed_addresses()),
            _ => None,
        });
        let given = self.given.get(uid).into_iter().flatten().copied();
        let mut kept = given.chain(seen.into_iter().flatten());
        let may_stay = |address: &IpAddr| {
            address.is_ipv4() == is_v4
                && self.is_admitted(name, *address)
                && self.taken.get(address).is_none_or(|holder| holder == name)
        };
        kept.find(may_stay)
            .or_else(|| self.free(name, is_v4))
            .ok_or_else(|| {
                let family = if is_v4 { "IPv4" } else { "IPv6" };
                format!(
                    "no AddressPool that admits this namespace has a free {family} address; add a range to one"
                )
            })
    }

    /// The first address that nobody has, by the names of pools.
    fn free(&self, name: &str, is_v4: bool) -> Option<IpAddr> {
        let namespace = Kind::split_name(name).0.unwrap_or_default();
        let pools = self.pools.iter().filter(|(_, pool)| pool.admits(namespace));
        let ranges = pools.flat_map(|(_, pool)| &pool.cidrs);
        let ranges = ranges.filter_map(|cidr| parse_cidr(cidr).ok());
        let of_family = ranges.filter(|range| range.addr().is_ipv4() == is_v4);
        of_family
            .flat_map(|range| range.hosts())
            .find(|address| !self.taken.contains_key(address))
    }

    fn is_admitted(&self, name: &str, address: IpAddr) -> bool {
        self.pools
            .iter()
            .any(|(_, pool)| admits(pool, name, address))
    }
}

fn spec_of(resource: &Resource) -> Option<&LoadBalancerServiceSpec> {
    match &resource.content {
        Ok(Content::Service(service)) => Some(&service.spec),
        _ => None,
    }
}

/// What cannot be done takes nothing away from what `stays`, except from clients who are outside of the ranges
/// that the Service has now: nothing else that is wrong with it may leave it open to them.
fn refused(
    asked: &Asked,
    stays: Option<&Resource>,
    reason: &'static str,
    message: &str,
) -> (Option<Step>, Word) {
    let mut ranges = asked.source_ranges.clone();
    if let Some(ranges) = &mut ranges {
        ranges.truncate(MAX_SOURCE_RANGES);
    }
    let outcome = match (stays, &ranges) {
        (None, _) => "",
        (_, None) => "; what it was before stays in effect",
        (_, Some(_)) => "; what it was before stays in effect, but for the source ranges",
    };
    let former = stays.and_then(spec_of).filter(|_| ranges.is_some());
    let former = former.filter(|former| former.source_ranges != ranges);
    let step = former.map(|former| {
        let spec = LoadBalancerServiceSpec {
            source_ranges: ranges,
            ..former.clone()
        };
        Step::Apply(Box::new(spec))
    });
    let word = Word {
        addresses: stays.map_or_else(BTreeSet::new, |_| asked.told.clone()),
        is_served: false,
        reason,
        message: format!("{message}{outcome}"),
    };
    (step, word)
}

/// An address is told from when a node was found to serve it, and as long as it stays the same.
fn word(asked: &Asked, spec: &LoadBalancerServiceSpec, told: Option<&Told>) -> Word {
    let addresses: BTreeSet<String> = spec.addresses.iter().cloned().collect();
    let live = told.and_then(|told| told.status.nodes);
    let is_live = live.is_some_and(|nodes| nodes.live > 0);
    let list = spec.addresses.join(" and ");
    let ready = told.and_then(|told| {
        let mut conditions = told.status.conditions.iter();
        conditions.find(|condition| condition.type_ == "Ready")
    });
    let is_ready = ready.is_some_and(|ready| ready.status == "True");
    let name = format!("LoadBalancerService/{}/{}", asked.namespace, asked.name);
    let (reason, message) = match (is_live, is_ready, ready) {
        (true, true, _) => ("Served", format!("{list} by {name}")),
        (_, _, Some(ready)) => (
            "NotReady",
            format!("{list} by {name}, which is not Ready ({})", ready.reason),
        ),
        (_, _, None) => ("Waiting", format!("{list}: no node has shown {name} yet")),
    };
    Word {
        addresses: match is_live || asked.told == addresses {
            true => addresses,
            false => BTreeSet::new(),
        },
        is_served: is_live && is_ready,
        reason,
        message,
    }
}
