//! Whether peers are reached by plain routes, by what was read back.

use std::collections::BTreeMap;

use headgate_compile::compilation::PeerSummary;
use headgate_crds::TunnelMode;
use headgate_datapath::{
    native::{NativeRoute, NativeRoutes, ObservedNative},
    observed::Observed,
};

use crate::report::PortStatus;

/// Each that packets go to by plain routes. One whose endpoint there is no way to has none: it is pending.
pub(crate) fn report(
    peers: &[PeerSummary],
    observed: Option<&Observed>,
    reason: Option<&String>,
) -> BTreeMap<String, PortStatus> {
    let plain = peers
        .iter()
        .filter(|peer| peer.mode == TunnelMode::Native && peer.is_joined())
        .filter(|peer| !peer.native.is_empty());
    let status = |peer: &PeerSummary| match observed {
        None => {
            let unread = || "the kernel could not be read".to_owned();
            PortStatus::NotEnforced(reason.cloned().unwrap_or_else(unread))
        }
        Some(observed) => match amiss(peer, &observed.native) {
            None => PortStatus::Enforced,
            Some(found) => PortStatus::Outdated(reason.cloned().unwrap_or(found)),
        },
    };
    plain
        .map(|peer| (peer.name.clone(), status(peer)))
        .collect()
}

/// Why a peer is not reached as it should be. One whose endpoint there is no way to needs no routes: it is
/// pending, and says so itself.
#[must_use]
pub fn amiss(peer: &PeerSummary, observed: &ObservedNative) -> Option<String> {
    let wanted: NativeRoutes = peer
        .native
        .iter()
        .map(|route| {
            let way = NativeRoute {
                gateway: route.gateway,
                ifindex: route.ifindex,
                source: route.source,
            };
            (route.network, way)
        })
        .collect();
    observed.amiss(&wanted)
}
