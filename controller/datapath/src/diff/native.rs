//! The part of plain routes to peers in a plan.
//!
//! A network that moves between the tunnel and a plain route is never without a route: the kernel puts the one
//! in the place of the other, for both have the network's metric. So routes are set before the tunnel loses
//! its own, and removed after the tunnel has what it wants.

use std::collections::BTreeSet;

use super::Planner;
use crate::{failsafe::Prefix, native::NativeRoutes, plan::Step};

impl Planner<'_> {
    pub(super) fn set_native(&mut self) {
        let present = &self.observed.native.routes;
        let wanted = self.wanted.native_routes.iter();
        let lacking: NativeRoutes = wanted
            .filter(|(prefix, route)| present.get(prefix) != Some(route))
            .map(|(prefix, route)| (*prefix, *route))
            .collect();
        if !lacking.is_empty() {
            self.steps.push(Step::SetNativeRoutes(lacking));
        }
    }

    pub(super) fn remove_native(&mut self) {
        let replaced: BTreeSet<Prefix> = self.set_by_tunnel().collect();
        let present = self.observed.native.routes.keys();
        let stale: BTreeSet<Prefix> = present
            .filter(|prefix| !self.wanted.native_routes.contains_key(prefix))
            .filter(|prefix| !replaced.contains(prefix))
            .copied()
            .collect();
        if !stale.is_empty() {
            self.steps.push(Step::RemoveNativeRoutes(stale));
        }
    }

    /// Whether a plain route has been put in the place of the tunnel's.
    pub(super) fn is_native_now(&self, prefix: &Prefix) -> bool {
        self.steps.iter().any(
            |step| matches!(step, Step::SetNativeRoutes(routes) if routes.contains_key(prefix)),
        )
    }

    fn set_by_tunnel(&self) -> impl Iterator<Item = Prefix> {
        let set = self.steps.iter().filter_map(|step| match step {
            Step::SetTunnelRoutes { routes, .. } => Some(routes.keys().copied()),
            _ => None,
        });
        set.flatten()
    }
}
