//! The tunnel's part of a plan.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::Planner;
use crate::{failsafe::Prefix, plan::Step, tunnel::Pods};

impl Planner<'_> {
    pub(super) fn tunnel(&mut self) {
        let observed = &self.observed.tunnel;
        let Some(wanted) = &self.wanted.tunnel else {
            self.remove_tunnel();
            return;
        };
        self.set_pods(&wanted.pods);
        let found = observed
            .device
            .filter(|f| f.device.port == wanted.device.port);
        let judges = observed.programs.is_some() && observed.tables.is_some();
        let is_up = found.is_some_and(|found| found.is_up);
        if is_up && !judges {
            self.steps.push(Step::LowerTunnel);
        }
        let keeps_routes = is_up && judges;
        let keeps_neighbours =
            keeps_routes && found.is_some_and(|found| found.device.mac == wanted.device.mac);
        if keeps_routes {
            let stale = observed.routes.keys();
            let stale = stale.filter(|prefix| !wanted.routes.contains_key(prefix));
            let stale = stale.filter(|prefix| !self.is_native_now(prefix));
            self.remove_tunnel_routes(stale.copied().collect(), BTreeSet::new());
        }
        if found.is_none_or(|found| found.device != wanted.device) {
            self.steps.push(Step::MakeTunnelDevice(wanted.device));
        }
        if observed.tables != Some(wanted.tables) {
            self.steps.push(Step::WriteTunnel(wanted.tables));
        }
        if found.is_none() || observed.programs != Some(self.object) {
            self.steps.push(Step::AttachTunnel);
        }
        if !keeps_routes {
            self.steps.push(Step::RaiseTunnel);
        }
        let neighbours = keeps_neighbours.then_some(&observed.neighbours);
        let neighbours = lacking(&wanted.neighbours, neighbours);
        let routes = lacking(&wanted.routes, keeps_routes.then_some(&observed.routes));
        if !neighbours.is_empty() || !routes.is_empty() {
            self.steps
                .push(Step::SetTunnelRoutes { neighbours, routes });
        }
        if keeps_neighbours {
            let stale = observed.neighbours.keys();
            let stale = stale.filter(|address| !wanted.neighbours.contains_key(address));
            self.remove_tunnel_routes(BTreeSet::new(), stale.copied().collect());
        }
    }

    /// Comes before all that may be refused: what is given to a pod that is gone is lost.
    fn set_pods(&mut self, wanted: &Pods) {
        let present = &self.observed.tunnel.pods;
        let pods = lacking(wanted, Some(present));
        let gone = present.keys();
        let gone = gone.filter(|address| !wanted.contains_key(address));
        let gone: BTreeSet<IpAddr> = gone.copied().collect();
        if !pods.is_empty() || !gone.is_empty() {
            self.steps.push(Step::SetTunnelPods { pods, gone });
        }
    }

    fn remove_tunnel(&mut self) {
        let observed = &self.observed.tunnel;
        if observed.is_absent() {
            return;
        }
        let routes = observed.routes.keys();
        let routes = routes.filter(|prefix| !self.is_native_now(prefix));
        let routes = routes.copied().collect();
        self.remove_tunnel_routes(routes, BTreeSet::new());
        self.steps.push(Step::RemoveTunnel);
    }

    fn remove_tunnel_routes(&mut self, routes: BTreeSet<Prefix>, neighbours: BTreeSet<IpAddr>) {
        if !routes.is_empty() || !neighbours.is_empty() {
            let step = Step::RemoveTunnelRoutes { routes, neighbours };
            self.steps.push(step);
        }
    }
}

/// Of `wanted`, what is not there just so.
fn lacking<K: Ord + Copy, V: PartialEq + Copy>(
    wanted: &BTreeMap<K, V>,
    present: Option<&BTreeMap<K, V>>,
) -> BTreeMap<K, V> {
    let is_there = |key: &K, value: &V| present.and_then(|p| p.get(key)) == Some(value);
    let lacking = wanted.iter().filter(|(key, value)| !is_there(key, value));
    lacking.map(|(key, value)| (*key, *value)).collect()
}
