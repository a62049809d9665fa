//! Peers that are reached by plain routes.

use headgate_crds::{IpNet, TunnelMode, TunnelPeerSpec};
use headgate_datapath::{
    failsafe::Prefix,
    native::{NativeRoute, NativeRoutes},
};

use super::{Own, Standing, stalled};
use crate::{
    compilation::{Compiler, NativeRouteSummary},
    finding::FindingReason,
    node::Access,
    select::Remark,
};

pub(super) fn is_native(spec: &TunnelPeerSpec) -> bool {
    spec.mode == TunnelMode::Native
}

pub(super) fn prefix(network: IpNet) -> Prefix {
    Prefix {
        address: network.network(),
        length: network.prefix_len(),
    }
}

impl Compiler<'_> {
    /// Why no plain route leads to a peer.
    pub(super) fn not_on_link(&self, spec: &TunnelPeerSpec) -> Option<Remark> {
        if !is_native(spec) || self.is_own(spec) {
            return None;
        }
        let endpoint = spec.endpoint_address();
        let way = match self.node.underlays.get(&endpoint)?.access {
            Access::OnLink => return None,
            Access::ByGateway(gateway) => format!("by the gateway {gateway}"),
            Access::WithoutLink => "by an interface without a link layer".to_owned(),
        };
        let message = format!(
            "the way to {endpoint} leads {way}, and who is there knows no way to the peer's networks: Native wants an endpoint on a link of this node; set mode to Vxlan, give an address on a link, or leave this node out by nodeSelector"
        );
        let reason = FindingReason::NotOnLink;
        Some(stalled(reason, "spec.endpoint", message))
    }

    /// Plain routes to the networks of all that are so reached. While there is no way to an endpoint, there
    /// is no route by it either.
    pub(super) fn native_routes(&self, own: &Own, standing: &[Standing<'_>]) -> NativeRoutes {
        let peers = standing.iter().filter(|peer| !peer.is_own);
        let peers = peers.filter(|peer| is_native(peer.spec));
        let routes = peers.flat_map(|peer| {
            let gateway = peer.spec.endpoint_address();
            let way = self.node.underlays.get(&gateway);
            let networks = peer.networks.iter();
            networks.filter_map(move |network| {
                let way = way?;
                let route = NativeRoute {
                    gateway,
                    ifindex: way.ifindex,
                    source: self.source(own, *network, way.local),
                };
                Some((prefix(*network), route))
            })
        });
        routes.collect()
    }

    /// The routes to a peer's networks, for people.
    pub(super) fn native_summary(
        &self,
        networks: &[IpNet],
        routes: &NativeRoutes,
    ) -> Vec<NativeRouteSummary> {
        let routes = networks.iter().filter_map(|network| {
            let network = prefix(*network);
            let route = routes.get(&network)?;
            let interfaces = self.node.interfaces.iter();
            let mut named = interfaces.filter(|interface| interface.ifindex == route.ifindex);
            Some(NativeRouteSummary {
                network,
                gateway: route.gateway,
                interface: named.next().map_or_else(String::new, |i| i.name.clone()),
                ifindex: route.ifindex,
                source: route.source,
            })
        });
        routes.collect()
    }
}
