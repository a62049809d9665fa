//! What is accepted and hardly meant, or not in effect as things are: by other objects, and by nodes.

use headgate_compile::services;
use headgate_crds::{
    Checked, CidrGroupReference, Kind, LoadBalancerService, Problem, Resource, TunnelPeer,
    XdpPolicy,
};

use super::{
    fleet_index::FleetIndex,
    shadowed::{drops_everything, shadowed},
};

/// Kubernetes cuts longer ones off where all of them together are too long.
const LONGEST: usize = 255;
/// The most that all of them may have together.
const MOST: usize = 4_096;
/// Room for the words that others are left out.
const ROOM: usize = 64;

/// The warnings for an accepted object, the most telling first.
pub(super) fn of(checked: &Checked, known: &FleetIndex) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Resource::XdpPolicy(policy) = &checked.resource {
        let mut policy = OfPolicy {
            policy,
            warnings: &mut warnings,
        };
        policy.by_itself();
        if known.is_known() {
            policy.among(known);
        }
    }
    if let Resource::LoadBalancerService(service) = &checked.resource
        && known.is_known()
    {
        warnings.extend(of_service(service, known));
    }
    if let Resource::TunnelPeer(peer) = &checked.resource
        && known.is_known()
    {
        warnings.extend(of_peer(peer, known));
    }
    warnings.extend(checked.warnings.iter().map(Problem::to_string));
    bounded(warnings)
}

struct OfPolicy<'a> {
    policy: &'a XdpPolicy,
    warnings: &'a mut Vec<String>,
}

impl OfPolicy<'_> {
    fn warn(&mut self, path: &str, words: &str) {
        self.warnings.push(format!("{path}: {words}"));
    }

    fn by_itself(&mut self) {
        let spec = &self.policy.spec;
        if let Some(path) = drops_everything(spec) {
            self.warn(
                &path,
                "allows nothing but the failsafe: replies of API servers and their way to the kubelet, \
                 DHCP, neighbour discovery, --failsafe-cidr peers; add Allow rules for what nodes need",
            );
        }
        for rule in shadowed(spec) {
            let path = format!("spec.rules[{}]", rule.index);
            let more = match rule.more {
                0 => String::new(),
                more => format!(", as are the {more} behind it"),
            };
            let words = if rule.by_all {
                format!(
                    "is hidden{more}: rule {} matches every packet; move that to the end",
                    rule.by
                )
            } else {
                format!(
                    "is hidden: rule {} has the same conditions; remove one",
                    rule.by
                )
            };
            self.warn(&path, &words);
        }
    }

    fn among(&mut self, known: &FleetIndex) {
        let spec = &self.policy.spec;
        let selector = spec.node_selector.as_ref();
        if selector.is_some_and(|selector| !known.selects_a_node(selector)) {
            let words = format!(
                "selects none of the {} nodes, so nothing enforces the policy; label a node or correct the selector",
                known.nodes()
            );
            self.warn("spec.nodeSelector", &words);
        }
        for (index, rule) in spec.rules.iter().enumerate() {
            for (side, endpoint) in [("from", &rule.from), ("to", &rule.to)] {
                let groups = endpoint.as_ref().and_then(|end| end.cidr_groups.as_ref());
                if let Some(groups) = groups {
                    self.groups(
                        &format!("spec.rules[{index}].{side}.cidrGroups"),
                        groups,
                        known,
                    );
                }
            }
        }
        let name = self.policy.metadata.name.as_deref().unwrap_or_default();
        if let Some(other) = known.decided_before(name, spec) {
            let ((priority, policy), rule) = (&other.place, &other.rule);
            let words = format!(
                "has no effect: XdpPolicy {policy} (priority {priority}) is read first and its rule {rule} matches every packet; give this one a lower number"
            );
            self.warn("spec.priority", &words);
        }
    }

    fn groups(&mut self, path: &str, groups: &CidrGroupReference, known: &FleetIndex) {
        for (index, name) in groups.names.iter().enumerate() {
            if !known.has_group(name) {
                let words = format!(
                    "there is no CidrGroup {name}, and until there is the policy is not in effect as written; create it or correct the name"
                );
                self.warn(&format!("{path}.names[{index}]"), &words);
            }
        }
        let selector = groups.selector.as_ref();
        if selector.is_some_and(|selector| !known.selects_a_group(selector)) {
            let words = "selects no CidrGroup, so it adds no address; label a group or correct the selector";
            self.warn(&format!("{path}.selector"), words);
        }
    }
}

fn of_service(service: &LoadBalancerService, known: &FleetIndex) -> Vec<String> {
    let metadata = &service.metadata;
    let name = metadata.name.as_deref().unwrap_or_default();
    let name = Kind::LoadBalancerService.full_name(metadata.namespace.as_deref(), name);
    let mut warnings = Vec::new();
    let selector = service.spec.node_selector.as_ref();
    if selector.is_some_and(|selector| !known.selects_a_node(selector)) {
        warnings.push(format!(
            "spec.nodeSelector: selects none of the {} nodes, so nothing serves it; label a node or correct the selector",
            known.nodes()
        ));
    }
    for (index, address) in service.spec.parsed_addresses().enumerate() {
        if !known.admits(&name, address) {
            warnings.push(format!(
                "spec.addresses[{index}]: lies in no AddressPool that admits this namespace, and until it does the service is not served; add it to one"
            ));
        }
    }
    let mut claims = services::claims(&service.spec);
    if let Some(rival) = claims.find_map(|claim| known.rival(&claim, &name)) {
        warnings.push(format!(
            "spec.addresses: LoadBalancerService {rival} wants an address and port of it as well, and on a node of both only one has it; take another address or port"
        ));
    }
    warnings
}

fn of_peer(peer: &TunnelPeer, known: &FleetIndex) -> Vec<String> {
    let name = peer.metadata.name.as_deref().unwrap_or_default();
    let mut warnings = Vec::new();
    let selector = peer.spec.node_selector.as_ref();
    if selector.is_some_and(|selector| !known.selects_a_node(selector)) {
        warnings.push(format!(
            "spec.nodeSelector: selects none of the {} nodes, so nobody reaches the peer; label a node or correct the selector",
            known.nodes()
        ));
    }
    for network in peer.spec.networks() {
        if let Some(rival) = known.rival_for(&network.to_string(), name) {
            warnings.push(format!(
                "spec.podCIDRs: TunnelPeer {rival} wants {network} as well, and on a node of both only one has it; take another network"
            ));
        }
    }
    warnings
}

/// Cuts what is too long, and says how much is left out.
fn bounded(warnings: Vec<String>) -> Vec<String> {
    let count = warnings.len();
    let mut room = MOST - ROOM;
    let mut kept = Vec::new();
    for warning in warnings {
        let warning = shortened(warning);
        if warning.len() > room {
            break;
        }
        room -= warning.len();
        kept.push(warning);
    }
    if kept.len() < count {
        kept.push(format!(
            "{} more warnings are not shown",
            count - kept.len()
        ));
    }
    kept
}

fn shortened(mut warning: String) -> String {
    const CUT: &str = "...";
    if warning.len() > LONGEST {
        warning.truncate(warning.floor_char_boundary(LONGEST - CUT.len()));
        warning.push_str(CUT);
    }
    warning
}
