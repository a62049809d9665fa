//! Backends behind an overlay: who gets the program that sends packets on to them, and what stands in the way.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use headgate_crds::{Forwarding, LoadBalancerServiceSpec};
use headgate_datapath::state::Ifindex;

use super::{Compiler, serve::Served};
use crate::services::next_hop;

impl Compiler<'_> {
    /// Devices of overlays that lead to backends of a service.
    pub(super) fn overlays(&self, name: &str, spec: &LoadBalancerServiceSpec) -> BTreeSet<Ifindex> {
        if spec.forwarding != Forwarding::Nat {
            return BTreeSet::new();
        }
        let backends = self.elsewhere(name, spec).into_iter();
        let hops = backends.filter_map(|address| {
            next_hop(spec.forwarding, address, &self.node.next_hops).copied()
        });
        let overlays = hops.filter(|hop| hop.overlay);
        overlays.map(|hop| hop.ifindex).collect()
    }

    /// Interfaces that send packets on to overlays: those that services with backends there are served on, and the
    /// overlays' own devices.
    pub(super) fn at_overlays(&self, served: &[Served<'_>]) -> BTreeMap<Ifindex, String> {
        let with_overlays = served.iter().filter(|service| !service.overlays.is_empty());
        let all = with_overlays.flat_map(|service| {
            let arrivals = service.interfaces.iter().map(|interface| interface.ifindex);
            arrivals.chain(service.overlays.iter().copied())
        });
        all.map(|ifindex| (ifindex, self.interface_name(ifindex)))
            .collect()
    }

    /// The name of an interface, for people.
    pub(super) fn interface_name(&self, ifindex: Ifindex) -> String {
        let mut all = self.node.interfaces.iter();
        let found = all.find(|interface| interface.ifindex == ifindex);
        found.map_or_else(
            || format!("interface {}", ifindex.0),
            |interface| interface.name.clone(),
        )
    }

    /// Why no frames get to a backend, and what to do about it.
    pub(super) fn why_no_way(&self, backend: IpAddr) -> String {
        match self.node.next_hops.get(&backend) {
            Some(hop) if hop.overlay && hop.local.is_some() => format!(
                "it lies behind the overlay of {}, which DirectReturn does not go by; write forwarding: Nat, or give the node a route to it that leads by no overlay",
                self.interface_name(hop.ifindex)
            ),
            Some(hop) => format!(
                "the node has no address of its own on the way there by {}; give that interface an address, or the route a source address",
                self.interface_name(hop.ifindex)
            ),
            None => "no route, no neighbour that answers, or a device that takes no frames from XDP, such as a bridge or a VLAN; start the backend, or correct the route or the address".to_owned(),
        }
    }
}
