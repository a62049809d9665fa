//! Plain routes to the networks of peers that share a link with the node, as plain data.

use std::{collections::BTreeMap, net::IpAddr};

use crate::{
    failsafe::Prefix,
    state::{Digest, Ifindex},
    tunnel::Diversion,
};

/// A route by a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NativeRoute {
    /// The peer's endpoint, of either family.
    pub gateway: IpAddr,
    /// The interface that shares a link with it.
    pub ifindex: Ifindex,
    /// What the node's own packets on this way have for their source.
    pub source: Option<IpAddr>,
}

/// Routes to peers' networks. A network is in these or in the tunnel's, not in both.
pub type NativeRoutes = BTreeMap<Prefix, NativeRoute>;

/// What the kernel was found to hold of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedNative {
    /// Routes of ours that are not the tunnel's.
    pub routes: NativeRoutes,
    /// Networks of these that packets do not reach by them.
    pub diverted: BTreeMap<Prefix, Diversion>,
}

impl ObservedNative {
    /// Why packets to these networks do not take these routes; nothing where all do.
    #[must_use]
    pub fn amiss(&self, wanted: &NativeRoutes) -> Option<String> {
        wanted.iter().find_map(|(network, route)| {
            if self.routes.get(network) != Some(route) {
                let gateway = route.gateway;
                return Some(format!("the route to {network} via {gateway} is not there"));
            }
            let way = self.diverted.get(network)?;
            Some(way.words(*network, "this one"))
        })
    }

    /// Digest of the routes, the same as of the wanted ones where they are as wanted; `None` where there is nothing.
    /// What somebody else's routes divert concerns single networks, and is no part of it.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        wanted_digest(&self.routes)
    }
}

/// Digest of wanted routes, where there are any.
#[must_use]
pub fn wanted_digest(routes: &NativeRoutes) -> Option<Digest> {
    let text = format!("native {routes:?}");
    (!routes.is_empty()).then(|| Digest::of(text.as_bytes()))
}
