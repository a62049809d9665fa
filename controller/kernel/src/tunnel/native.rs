//! Plain routes to peers that share a link with the node. A route is ours by its protocol and its metric, where
//! it is not by a tunnel's device; and only where this instance has set any.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::IpAddr,
};

use headgate_datapath::{
    failsafe::Prefix,
    kernel::KernelError,
    native::{NativeRoute, NativeRoutes, ObservedNative},
    plan::Step,
    state::Ifindex,
    tunnel::DEVICE,
};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    RouteNetlinkMessage,
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteScope, RouteType, RouteVia},
};

use super::{
    diverted::{Ways, names},
    routes::{Metrics, PROTOCOL, ip, is_gone, ours, told},
};
use crate::{
    error::{Asked, if_present},
    netlink::Conversation,
    next_hops::family_of,
    pins::Pins,
};

/// Carries out a step that concerns them.
pub(crate) fn apply(pins: &Pins, step: &Step) -> Result<(), KernelError> {
    match step {
        Step::SetNativeRoutes(routes) => set(pins, routes),
        Step::RemoveNativeRoutes(routes) => remove(pins, routes),
        _ => Ok(()),
    }
}

/// What was found.
pub(crate) fn observe(pins: &Pins, ways: &mut Ways) -> Result<ObservedNative, KernelError> {
    let routes = present(pins)?;
    let diverted = ways.diverted(None, &routes)?;
    Ok(ObservedNative { routes, diverted })
}

/// The routes of this instance that are there.
pub(super) fn present(pins: &Pins) -> Result<NativeRoutes, KernelError> {
    match pins.native().exists() {
        true => routes(pins.metrics(), &names()?),
        false => Ok(NativeRoutes::new()),
    }
}

fn routes(
    metrics: Metrics,
    names: &BTreeMap<Ifindex, String>,
) -> Result<NativeRoutes, KernelError> {
    let routes = ours(None)?.into_iter();
    let mut found: NativeRoutes = routes
        .filter_map(|route| of_instance(&route, metrics))
        .collect();
    let is_tunnels = |route: &NativeRoute| names.get(&route.ifindex).is_some_and(|n| n == DEVICE);
    found.retain(|_, route| !is_tunnels(route));
    Ok(found)
}

fn of_instance(route: &RouteMessage, metrics: Metrics) -> Option<(Prefix, NativeRoute)> {
    let read = Read::of(route);
    let prefix = Prefix {
        address: read.destination?,
        length: route.header.destination_prefix_length,
    };
    let is_its = read.metric == Some(metrics.of_prefix(prefix));
    let way = NativeRoute {
        gateway: read.gateway?,
        ifindex: read.ifindex?,
        source: read.source,
    };
    is_its.then_some((prefix, way))
}

/// What a route says.
#[derive(Default)]
struct Read {
    destination: Option<IpAddr>,
    gateway: Option<IpAddr>,
    ifindex: Option<Ifindex>,
    source: Option<IpAddr>,
    metric: Option<u32>,
}

impl Read {
    fn of(route: &RouteMessage) -> Self {
        let mut read = Self::default();
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::Destination(address) => read.destination = ip(address),
                RouteAttribute::Gateway(address) => read.gateway = ip(address),
                RouteAttribute::Via(RouteVia::Inet(address)) => {
                    read.gateway = Some((*address).into());
                }
                RouteAttribute::Via(RouteVia::Inet6(address)) => {
                    read.gateway = Some((*address).into());
                }
                RouteAttribute::Oif(index) => read.ifindex = Some(Ifindex(*index)),
                RouteAttribute::PrefSource(address) => read.source = ip(address),
                RouteAttribute::Priority(metric) => read.metric = Some(*metric),
                _ => {}
            }
        }
        read
    }
}

fn set(pins: &Pins, routes: &NativeRoutes) -> Result<(), KernelError> {
    let mark = pins.native();
    // Before the first of them: whoever comes next has to find them.
    fs::create_dir_all(&mark).asked(|| format!("making the folder {}", mark.display()))?;
    let mut conversation = Conversation::open().asked(|| "opening netlink".to_owned())?;
    let metrics = pins.metrics();
    let requests = routes
        .iter()
        .map(|(prefix, way)| RouteNetlinkMessage::NewRoute(route(metrics, *prefix, way)));
    let set = conversation.ask_all(requests, NLM_F_CREATE | NLM_F_REPLACE, |_| false);
    told(set, routes.keys(), |prefix| {
        format!("setting the route to {prefix}")
    })
}

/// What is not there is no error.
pub(super) fn remove(pins: &Pins, networks: &BTreeSet<Prefix>) -> Result<(), KernelError> {
    let metrics = pins.metrics();
    let present = present(pins)?;
    let gone = networks.iter().filter_map(|network| {
        let way = present.get(network)?;
        Some((*network, *way))
    });
    let gone: NativeRoutes = gone.collect();
    let mut conversation = Conversation::open().asked(|| "opening netlink".to_owned())?;
    let requests = gone
        .iter()
        .map(|(prefix, way)| RouteNetlinkMessage::DelRoute(route(metrics, *prefix, way)));
    let removed = conversation.ask_all(requests, 0, is_gone);
    told(removed, gone.keys(), |prefix| {
        format!("removing the route to {prefix}")
    })?;
    if present.len() > gone.len() {
        return Ok(());
    }
    let mark = pins.native();
    let removed: io::Result<Option<()>> = if_present(fs::remove_dir(&mark));
    removed.asked(|| format!("removing the folder {}", mark.display()))?;
    Ok(())
}

/// Without `onlink`: the kernel is to refuse a gateway that is on no link.
fn route(metrics: Metrics, prefix: Prefix, way: &NativeRoute) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header.address_family = family_of(prefix.address).0;
    route.header.destination_prefix_length = prefix.length;
    route.header.table = RouteHeader::RT_TABLE_MAIN;
    route.header.protocol = PROTOCOL;
    route.header.kind = RouteType::Unicast;
    route.header.scope = RouteScope::Universe;
    route.attributes = vec![
        RouteAttribute::Destination(prefix.address.into()),
        RouteAttribute::Priority(metrics.of_prefix(prefix)),
        RouteAttribute::Oif(way.ifindex.0),
    ];
    // A gateway of the other family than the network's.
    route.attributes.push(match (prefix.address, way.gateway) {
        (IpAddr::V4(_), IpAddr::V6(gateway)) => RouteAttribute::Via(RouteVia::Inet6(gateway)),
        (_, gateway) => RouteAttribute::Gateway(gateway.into()),
    });
    let source = way.source.map(|s| RouteAttribute::PrefSource(s.into()));
    route.attributes.extend(source);
    route
}
