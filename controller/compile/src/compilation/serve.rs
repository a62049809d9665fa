//! Which services are served here, and by whom.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use headgate_datapath::state::Ifindex;

use headgate_crds::{
    AddressPoolSpec, AttachMode, Forwarding, LoadBalancerServiceSpec, TrafficPolicy,
    WithoutBackends,
};

use super::{
    Compiler,
    fallback::Draft,
    finding,
    summary::{FrontendSummary, Needs, ServiceSummary, SourceRangesSummary},
};
use crate::{
    adopt::{self, Version},
    classifier::Rule,
    counters::Counters,
    endpoints::Member,
    finding::{Finding, FindingReason, Severity},
    node::Interface,
    select::{self, Remark},
    services::{
        Claim, Frontend, Histories, History, admits, claims, elsewhere, members, next_hop,
        protocol, referred, sources,
    },
    snapshot::{BalancedService, Content, Uid},
};

/// One service in an attempt.
pub(super) struct Served<'a> {
    pub uid: &'a Uid,
    pub version: &'a Version,
    pub spec: &'a LoadBalancerServiceSpec,
    pub frontends: Vec<Frontend>,
    /// What drops packets from outside of its source ranges.
    pub refusal: Option<Rule>,
    pub interfaces: Vec<&'a Interface>,
    /// Devices of overlays that lead to some of its backends.
    pub overlays: BTreeSet<Ifindex>,
}

impl Served<'_> {
    /// Whether some of its backends may run on this node, and answer by the stack.
    pub(super) fn needs_egress(&self) -> bool {
        let members = self
            .frontends
            .iter()
            .flat_map(|frontend| &frontend.backends);
        self.spec.backends.service_ref.is_some() || members.into_iter().any(|member| member.here)
    }

    fn needs(&self) -> Needs {
        let arrivals = self.interfaces.iter().map(|interface| interface.ifindex);
        let arrivals: BTreeSet<Ifindex> = arrivals.collect();
        Needs {
            flows: self.needs_flows(),
            overlay: match self.overlays.is_empty() {
                true => BTreeSet::new(),
                false => &arrivals | &self.overlays,
            },
            egress: match self.needs_egress() {
                true => arrivals,
                false => BTreeSet::new(),
            },
        }
    }

    /// Whether packets for it go through Nat.
    pub(super) fn needs_flows(&self) -> bool {
        self.spec.forwarding == Forwarding::Nat
    }
}

impl Compiler<'_> {
    /// Leases a counter to each port, and to the source ranges, of the services that concern the node. One whose address is not
    /// admitted or is taken falls back to its last good content. Of two that want one address, the one
    /// in effect has it, else the older, else the first by name.
    pub(super) fn fall_back_where_not_served(
        &self,
        draft: &mut Draft,
        counters: &mut Counters,
    ) -> BTreeMap<Uid, Vec<u32>> {
        // What nobody has judged for this node must not pass for what was good here.
        draft.versions.retain(|_, version| match &version.content {
            Content::Service(service) => self.is_concerned_by(&service.spec),
            _ => true,
        });
        let mut address_book = AddressBook::of(self, &draft.versions);
        let mut leased = BTreeMap::new();
        for uid in self.services_by_age(&draft.versions) {
            let Some((version, service)) = service_in(&draft.versions, &uid) else {
                continue;
            };
            let good = self
                .last_served(&uid)
                .filter(|(_, good)| address_book.is_free(good));
            let mut chosen = Some((&version, &service.spec));
            if let Some(remark) = self.refusal(&uid, &version, &service.spec, &address_book) {
                chosen = good;
                self.fall_back(&uid, &version, remark, draft, good.map(|(good, _)| good));
            }
            let leased_for = |counters: &mut Counters, spec: &LoadBalancerServiceSpec| {
                counters.of(&uid, counted(spec).iter())
            };
            let mut indices = chosen.and_then(|(_, spec)| leased_for(counters, spec));
            if chosen.is_some() && indices.is_none() {
                chosen = good;
                indices = good.and_then(|(_, spec)| leased_for(counters, spec));
                let good = good.filter(|_| indices.is_some());
                self.fall_back(
                    &uid,
                    &version,
                    no_counter_left(),
                    draft,
                    good.map(|(good, _)| good),
                );
            }
            if let (Some((_, spec)), Some(indices)) = (chosen, indices) {
                address_book.take(spec, &version.name.name);
                leased.insert(uid, indices);
            }
        }
        leased
    }

    fn is_concerned_by(&self, spec: &LoadBalancerServiceSpec) -> bool {
        select::concerns(spec.node_selector.as_ref(), self.node)
    }

    /// The content of a service that is in effect here.
    fn last_served(&self, uid: &Uid) -> Option<(&Version, &LoadBalancerServiceSpec)> {
        let good = self.candidates.get(uid)?.last_good.as_ref()?;
        let Content::Service(service) = &good.content else {
            return None;
        };
        let of_node = |address| self.node.addresses.contains(&address);
        let can_stay = self.node.no_balancer.is_none()
            && self.is_concerned_by(&service.spec)
            && !service.spec.parsed_addresses().any(of_node);
        can_stay.then_some((good, &service.spec))
    }

    fn fall_back(
        &self,
        uid: &Uid,
        version: &Version,
        remark: Remark,
        draft: &mut Draft,
        good: Option<&Version>,
    ) {
        let outcome = adopt::outcome(good, self.memory);
        let message = format!("{}; {outcome}", remark.message);
        draft
            .findings
            .push(finding(version, Remark { message, ..remark }));
        draft.fall_back(uid, good);
    }

    fn services_by_age(&self, versions: &BTreeMap<Uid, Version>) -> Vec<Uid> {
        let services = versions
            .iter()
            .filter_map(|(uid, version)| match &version.content {
                Content::Service(service) => {
                    let in_effect = self.memory.last_good.contains_key(uid);
                    let created = service.created.unwrap_or(i64::MAX);
                    Some((!in_effect, created, version.name.name.clone(), uid.clone()))
                }
                _ => None,
            });
        let mut services: Vec<_> = services.collect();
        services.sort();
        services.into_iter().map(|(.., uid)| uid).collect()
    }

    /// Why this content of a service cannot be in effect here.
    fn refusal(
        &self,
        uid: &Uid,
        version: &Version,
        spec: &LoadBalancerServiceSpec,
        address_book: &AddressBook,
    ) -> Option<Remark> {
        if let Some(reason) = &self.node.no_balancer {
            return Some(Remark {
                severity: Severity::Stalled,
                reason: FindingReason::Unsupported,
                path: String::new(),
                message: format!(
                    "{reason}; leave this node out by nodeSelector, or run another kernel"
                ),
            });
        }
        let namespace = version.name.namespace_and_name().0.unwrap_or_default();
        let stalled = |reason, index: usize, message| Remark {
            severity: Severity::Stalled,
            reason,
            path: format!("spec.addresses[{index}]"),
            message,
        };
        for (index, address) in spec.parsed_addresses().enumerate() {
            if !address_book.admits(&version.name.name, address) {
                let message = format!(
                    "{address} lies in no AddressPool that admits the namespace {namespace}; add it to one, or take an address of one"
                );
                return Some(stalled(FindingReason::NotAdmitted, index, message));
            }
            if self.node.addresses.contains(&address) {
                let message = format!(
                    "{address} is an address of this node itself; take another, or leave this node out by nodeSelector"
                );
                return Some(stalled(FindingReason::AddressTaken, index, message));
            }
            for port in &spec.ports {
                let claim = (address, protocol(port.protocol), port.port);
                if let Some(holder) = address_book.holder(uid, &claim) {
                    let message = format!(
                        "{} port {} of {address} is served by LoadBalancerService/{holder}; take another address or port",
                        port.protocol.as_str(),
                        port.port
                    );
                    return Some(stalled(FindingReason::AddressTaken, index, message));
                }
            }
        }
        None
    }

    /// The services to compile, with everything looked up.
    pub(super) fn serve<'b>(
        &'b self,
        versions: &'b BTreeMap<Uid, Version>,
        leased: &BTreeMap<Uid, Vec<u32>>,
        findings: &mut Vec<Finding>,
    ) -> (Vec<Served<'b>>, Histories) {
        let mut served = Vec::new();
        let known = &self.memory.histories;
        let mut histories = Histories {
            epoch: known.epoch,
            ..Histories::default()
        };
        for (uid, version) in versions {
            let (Content::Service(service), Some(counters)) = (&version.content, leased.get(uid))
            else {
                continue;
            };
            let spec = &service.spec;
            let (of_ports, of_ranges) = counters.split_at(spec.ports.len());
            let ranges = spec.source_ranges.as_ref().zip(of_ranges.first());
            let refusal = ranges.map(|(ranges, counter)| sources::refusal(spec, ranges, *counter));
            let selection = select::interfaces(&spec.interfaces, AttachMode::Auto, self.node);
            let remarks = selection
                .remarks
                .into_iter()
                .chain(self.missing_endpoints(&version.name.name, spec))
                .chain(self.crowded_ring(&version.name.name, spec))
                .chain(self.unknown_next_hops(&version.name.name, spec))
                .chain(self.unseen_replies(&version.name.name, spec, &selection.interfaces));
            findings.extend(remarks.map(|remark| finding(version, remark)));
            let history = histories.note(known, uid, spec, self.now);
            served.push(Served {
                uid,
                version,
                spec,
                frontends: self.frontends(&version.name.name, spec, of_ports, history.as_ref()),
                refusal,
                interfaces: selection.interfaces,
                overlays: self.overlays(&version.name.name, spec),
            });
        }
        (served, histories)
    }

    /// What a service lacks whose backends a Service has.
    fn missing_endpoints(&self, name: &str, spec: &LoadBalancerServiceSpec) -> Option<Remark> {
        let service = referred(name, spec)?;
        let remark = |severity, reason, path: &str, message| Remark {
            severity,
            reason,
            path: path.to_owned(),
            message,
        };
        if !self.endpoints.contains_key(&service) {
            let message = format!(
                "there is no EndpointSlice of Service/{service}, so its packets are dropped and counted as NoBackend; create the Service, or correct the name (a directory of policies has no EndpointSlices: list static backends there)"
            );
            let path = "spec.backends.serviceRef";
            let reason = FindingReason::UnresolvedReferences;
            return Some(remark(Severity::Pending, reason, path, message));
        }
        if spec.external_traffic_policy == TrafficPolicy::Local {
            return None;
        }
        let serves = |address: IpAddr, port| {
            let members = members(name, spec, port, self.endpoints, &self.node.name);
            members
                .iter()
                .any(|m| m.address.is_ipv4() == address.is_ipv4())
        };
        let ports = || spec.ports.iter().enumerate();
        let mut unserved = spec.parsed_addresses().flat_map(|address| {
            let lacking = ports().filter(move |(_, port)| !serves(address, port));
            lacking.map(move |(index, port)| (address, index, port))
        });
        let (address, index, port) = unserved.next()?;
        let message = format!(
            "no endpoint of Service/{service} serves port {} of {} at {address}, so its packets are dropped and counted as NoBackend; wait for a pod that is ready and has an address of that family, or name the port as the Service does",
            port.name,
            port.protocol.as_str()
        );
        let path = format!("spec.ports[{index}]");
        // A Deployment of no replicas is as somebody wants it.
        let reason = FindingReason::NoEndpoints;
        Some(remark(Severity::Warning, reason, &path, message))
    }

    /// A ring with fewer entries than there are endpoints; static backends are never so many.
    fn crowded_ring(&self, name: &str, spec: &LoadBalancerServiceSpec) -> Option<Remark> {
        referred(name, spec)?;
        let most = |port| {
            let members = members(name, spec, port, self.endpoints, &self.node.name);
            let v4 = members.iter().filter(|m| m.address.is_ipv4()).count();
            v4.max(members.len() - v4)
        };
        let most = spec.ports.iter().map(most).max()?;
        let entries = spec.ring_size;
        (most > entries as usize).then(|| Remark {
            severity: Severity::Warning,
            reason: FindingReason::Suspicious,
            path: "spec.ringSize".to_owned(),
            message: format!(
                "{most} endpoints share {entries} entries, so some get no flow; write the next larger size, or use fewer endpoints"
            ),
        })
    }

    fn unknown_next_hops(&self, name: &str, spec: &LoadBalancerServiceSpec) -> Option<Remark> {
        let backends = self.elsewhere(name, spec).into_iter();
        let unknown: Vec<IpAddr> = backends
            .filter(|address| next_hop(spec.forwarding, *address, &self.node.next_hops).is_none())
            .collect();
        let first = unknown.first()?;
        let more = match unknown.len() {
            1 => String::new(),
            count => format!(" and {} others", count - 1),
        };
        Some(Remark {
            severity: Severity::Pending,
            reason: FindingReason::NextHopUnknown,
            path: "spec.backends".to_owned(),
            message: format!(
                "there is no way to {first}{more}, so its flows are dropped and counted as NoNextHop: {}",
                self.why_no_way(*first)
            ),
        })
    }

    /// By Nat a backend's reply must meet a program that serves the service.
    fn unseen_replies(
        &self,
        name: &str,
        spec: &LoadBalancerServiceSpec,
        interfaces: &[&Interface],
    ) -> Option<Remark> {
        if spec.forwarding != Forwarding::Nat || interfaces.is_empty() {
            return None;
        }
        let backends = self.elsewhere(name, spec).into_iter();
        let hops =
            backends.filter_map(|address| Some((address, self.node.next_hops.get(&address)?)));
        // What comes out of an overlay's device is seen there.
        let hops = hops.filter(|(_, hop)| !hop.overlay);
        let mut unseen =
            hops.filter(|(_, hop)| interfaces.iter().all(|i| i.ifindex != hop.ifindex));
        let (backend, hop) = unseen.next()?;
        let name = self.interface_name(hop.ifindex);
        Some(Remark {
            severity: Severity::Pending,
            reason: FindingReason::RepliesUnseen,
            path: "spec.interfaces".to_owned(),
            message: format!(
                "{backend} answers by {name}, which is not selected, so its replies do not get back to clients; add {name} to interfaces"
            ),
        })
    }

    /// Whether the node's stack can take the backend's packets, and get its answers back.
    fn is_here(&self, spec: &LoadBalancerServiceSpec, address: IpAddr) -> bool {
        spec.forwarding == Forwarding::Nat && self.node.here.contains(&address)
    }

    /// Addresses of a service's backends that the programs have to find a way to.
    pub(super) fn elsewhere(&self, name: &str, spec: &LoadBalancerServiceSpec) -> BTreeSet<IpAddr> {
        let backends = elsewhere(name, spec, self.endpoints, &self.node.name).into_iter();
        backends
            .filter(|address| !self.is_here(spec, *address))
            .collect()
    }

    /// Address by address, each with all ports.
    fn frontends(
        &self,
        name: &str,
        spec: &LoadBalancerServiceSpec,
        counters: &[u32],
        history: Option<&Arc<History>>,
    ) -> Vec<Frontend> {
        let ports = spec.ports.iter().zip(counters);
        let ports: Vec<_> = ports
            .map(|(port, counter)| {
                let members = members(name, spec, port, self.endpoints, &self.node.name);
                (port, counter, members)
            })
            .collect();
        let mut frontends = Vec::new();
        for address in spec.parsed_addresses() {
            for (port, counter, members) in &ports {
                let of_family = |member: &&Member| member.address.is_ipv4() == address.is_ipv4();
                let here = |member: &Member| member.here || self.is_here(spec, member.address);
                let backends = members.iter().filter(of_family).map(|member| Member {
                    here: here(member),
                    ..*member
                });
                let mut backends: Vec<_> = backends.collect();
                // Their order in the list must not matter to flows.
                backends.sort();
                frontends.push(Frontend {
                    address,
                    protocol: protocol(port.protocol),
                    port: port.port,
                    counter: **counter,
                    ring_size: spec.ring_size,
                    forwarding: spec.forwarding,
                    rejects: spec.without_backends == WithoutBackends::Reject,
                    backends,
                    history: history.cloned(),
                });
            }
        }
        frontends
    }

    pub(super) fn service_summary(&self, served: &Served<'_>) -> ServiceSummary {
        let candidate = &self.candidates[served.uid];
        let read = candidate.present.as_ref().unwrap_or(served.version);
        let ports = &served.spec.ports;
        let frontends = served
            .frontends
            .iter()
            .enumerate()
            .map(|(index, frontend)| {
                let port = &ports[index % ports.len()];
                FrontendSummary {
                    name: port.name.clone(),
                    address: frontend.address,
                    protocol: port.protocol.as_str().to_owned(),
                    port: frontend.port,
                    forwarding: frontend.forwarding,
                    ring_size: frontend.ring_size,
                    counter: frontend.counter,
                    backends: frontend.backends.clone(),
                    settling: frontend.settling().cloned(),
                }
            });
        let ranges = served.spec.source_ranges.as_ref();
        let source_ranges = ranges.zip(served.refusal.as_ref());
        ServiceSummary {
            name: served.version.name.name.clone(),
            place: read.place.clone(),
            generation: candidate.generation,
            effective: Some(served.version.generation),
            selected: true,
            interfaces: served.interfaces.iter().map(|i| i.name.clone()).collect(),
            frontends: frontends.collect(),
            source_ranges: source_ranges.map(|(ranges, rule)| SourceRangesSummary {
                ranges: ranges.clone(),
                counter: rule.counter,
            }),
            needs: served.needs(),
        }
    }

    /// Services that exist and have nothing in effect here.
    pub(super) fn services_not_in_effect(&self, listed: &[ServiceSummary]) -> Vec<ServiceSummary> {
        let listed: BTreeSet<&str> = listed.iter().map(|service| service.name.as_str()).collect();
        let candidates = self.candidates.values().filter_map(|candidate| {
            let version = candidate
                .present
                .as_ref()
                .or(candidate.last_good.as_ref())?;
            let Content::Service(service) = &version.content else {
                return None;
            };
            let unlisted = !listed.contains(version.name.name.as_str());
            unlisted.then(|| ServiceSummary {
                name: version.name.name.clone(),
                place: version.place.clone(),
                generation: candidate.generation,
                effective: None,
                selected: select::concerns(service.spec.node_selector.as_ref(), self.node),
                interfaces: Vec::new(),
                frontends: Vec::new(),
                source_ranges: None,
                needs: Needs::default(),
            })
        });
        candidates.collect()
    }
}

/// Names of what counts: the ports, then the source ranges, which no port is called, for a port's name has
/// no capital letter.
fn counted(spec: &LoadBalancerServiceSpec) -> Vec<String> {
    let ranges = spec.source_ranges.iter();
    let ports = spec.ports.iter().map(|port| port.name.clone());
    ports
        .chain(ranges.map(|_| "sourceRanges".to_owned()))
        .collect()
}

/// Who has which address.
struct AddressBook {
    pools: Vec<Arc<AddressPoolSpec>>,
    /// What is in effect and still asked for by its holder, who is not asked to give it up.
    held: BTreeMap<Claim, (Uid, String)>,
    /// What was given in this attempt.
    taken: BTreeMap<Claim, String>,
}

impl AddressBook {
    fn of(compiler: &Compiler<'_>, versions: &BTreeMap<Uid, Version>) -> Self {
        let mut book = Self {
            pools: Vec::new(),
            held: BTreeMap::new(),
            taken: BTreeMap::new(),
        };
        for (uid, version) in versions {
            match &version.content {
                Content::Pool(pool) => book.pools.push(Arc::clone(pool)),
                Content::Service(service) => {
                    let Some((_, good)) = compiler.last_served(uid) else {
                        continue;
                    };
                    let asked: BTreeSet<Claim> = claims(&service.spec).collect();
                    for claim in claims(good).filter(|claim| asked.contains(claim)) {
                        book.held
                            .insert(claim, (uid.clone(), version.name.name.clone()));
                    }
                }
                _ => {}
            }
        }
        book
    }

    fn admits(&self, name: &str, address: IpAddr) -> bool {
        self.pools.iter().any(|pool| admits(pool, name, address))
    }

    /// The service other than this one that has an address and port.
    fn holder(&self, uid: &Uid, claim: &Claim) -> Option<&String> {
        let held = self.held.get(claim).filter(|(holder, _)| holder != uid);
        self.taken.get(claim).or(held.map(|(_, name)| name))
    }

    fn is_free(&self, spec: &LoadBalancerServiceSpec) -> bool {
        claims(spec).all(|claim| !self.taken.contains_key(&claim))
    }

    fn take(&mut self, spec: &LoadBalancerServiceSpec, name: &str) {
        self.taken
            .extend(claims(spec).map(|claim| (claim, name.to_owned())));
    }
}

fn service_in(
    versions: &BTreeMap<Uid, Version>,
    uid: &Uid,
) -> Option<(Version, Arc<BalancedService>)> {
    let version = versions.get(uid)?;
    match &version.content {
        Content::Service(service) => Some((version.clone(), Arc::clone(service))),
        _ => None,
    }
}

fn no_counter_left() -> Remark {
    Remark {
        severity: Severity::Stalled,
        reason: FindingReason::OutOfCapacity,
        path: "spec.ports".to_owned(),
        message: format!(
            "too few of the {} rule counters of this node are left; remove rules or ports that are not needed",
            headgate_layout::maps::MAX_COUNTERS
        ),
    }
}
