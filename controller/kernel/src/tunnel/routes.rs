//! Routes by the device and permanent neighbours at it. A route is ours by its protocol and its device.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use headgate_datapath::{
    failsafe::Prefix,
    kernel::KernelError,
    state::Ifindex,
    tunnel::{MacAddress, Neighbours, Routes, TunnelRoute},
};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol,
        RouteScope, RouteType,
    },
};

use crate::{
    error::Asked,
    netlink::{Conversation, dump, dump_filtered},
    next_hops::{Neighbour, address_of, family_of, state_of},
};

/// The protocol of our routes, as `ip route` shows it: none of those that others have taken
/// (/etc/iproute2/rt_protos).
pub(super) const PROTOCOL: RouteProtocol = RouteProtocol::Other(157);

/// The metrics of our routes, from here on. Nobody's default: a replacement replaces only what has the same.
const METRIC: u32 = 700;

/// How many there are. The kernel keeps what is the same for routes by a hash of their metric and device, not of
/// their gateway (`fib_info_hashfn_1`, net/ipv4/fib_semantics.c), and looks through all of one hash for each
/// new route: of one metric, the time grows with the square of the routes.
const METRICS: u32 = 256;

/// Which of the metrics an instance gives to a prefix: routes do not tell whose they are, and two instances in
/// one network namespace are to leave each other's alone, as all but one pair of names in so many do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Metrics(u32);

impl Metrics {
    pub(crate) fn of(instance: &str) -> Self {
        match instance {
            "default" => Self(0),
            other => Self(other.bytes().fold(0, mix)),
        }
    }

    /// Always the same for one prefix.
    pub(super) fn of_prefix(self, prefix: Prefix) -> u32 {
        METRIC + hash(prefix).wrapping_add(self.0) % METRICS
    }
}

fn mix(sum: u32, byte: u8) -> u32 {
    sum.wrapping_mul(31).wrapping_add(byte.into())
}

fn hash(prefix: Prefix) -> u32 {
    match prefix.address {
        IpAddr::V4(address) => address.octets().into_iter().fold(0, mix),
        IpAddr::V6(address) => address.octets().into_iter().fold(0, mix),
    }
}

/// Permanent neighbours at the device.
pub(super) fn neighbours(ifindex: Ifindex) -> Result<Neighbours, KernelError> {
    let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
    let answers = dump(request).asked(|| "reading the neighbours by netlink".to_owned())?;
    let permanent = answers.into_iter().filter_map(|answer| {
        let RouteNetlinkMessage::NewNeighbour(message) = answer else {
            return None;
        };
        let is_ours = message.header.ifindex == ifindex.0
            && message.header.state == NeighbourState::Permanent;
        match state_of(&message) {
            Neighbour::At(mac) if is_ours => Some((address_of(&message)?, MacAddress(mac))),
            _ => None,
        }
    });
    Ok(permanent.collect())
}

/// Routes of ours by the device.
pub(super) fn routes(ifindex: Ifindex) -> Result<Routes, KernelError> {
    let found = ours(Some(ifindex))?.into_iter();
    Ok(found
        .filter_map(|route| of_device(&route, ifindex))
        .collect())
}

/// Routes of our protocol in the main table, by a device or by any. The kernel picks them out: a router has a million
/// others.
pub(super) fn ours(device: Option<Ifindex>) -> Result<Vec<RouteMessage>, KernelError> {
    let mut found = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        request.header.table = RouteHeader::RT_TABLE_MAIN;
        request.header.protocol = PROTOCOL;
        let device = device.map(|ifindex| RouteAttribute::Oif(ifindex.0));
        request.attributes.extend(device);
        let answers = match dump_filtered(RouteNetlinkMessage::GetRoute(request)) {
            // There is no such table before its first route.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => continue,
            answers => answers.asked(|| "reading the routes by netlink".to_owned())?,
        };
        found.extend(answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(route) if is_ours(&route) => Some(route),
            _ => None,
        }));
    }
    Ok(found)
}

/// An older kernel leaves nothing out.
fn is_ours(route: &RouteMessage) -> bool {
    route.header.protocol == PROTOCOL
        && route.header.table == RouteHeader::RT_TABLE_MAIN
        && route.header.kind == RouteType::Unicast
}

fn of_device(route: &RouteMessage, ifindex: Ifindex) -> Option<(Prefix, TunnelRoute)> {
    let mut destination = None;
    let mut gateway = None;
    let mut source = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) if *index != ifindex.0 => return None,
            RouteAttribute::Destination(address) => destination = ip(address),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::PrefSource(address) => source = ip(address),
            _ => {}
        }
    }
    // The kernel leaves out the destination of a default route.
    let any: IpAddr = match route.header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        _ => Ipv6Addr::UNSPECIFIED.into(),
    };
    let prefix = Prefix {
        address: destination.unwrap_or(any),
        length: route.header.destination_prefix_length,
    };
    let gateway = gateway?;
    Some((prefix, TunnelRoute { gateway, source }))
}

pub(super) fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// Sets neighbours, then routes, each in the place of a former one.
pub(super) fn set(
    ifindex: Ifindex,
    metrics: Metrics,
    neighbours: &Neighbours,
    routes: &Routes,
) -> Result<(), KernelError> {
    let mut conversation = Conversation::open().asked(|| "opening netlink".to_owned())?;
    let flags = NLM_F_CREATE | NLM_F_REPLACE;
    let requests = neighbours.iter().map(|(address, mac)| {
        RouteNetlinkMessage::NewNeighbour(neighbour(ifindex, *address, Some(*mac)))
    });
    let set = conversation.ask_all(requests, flags, |_| false);
    told(set, neighbours.keys(), |address| {
        format!("setting the neighbour {address}")
    })?;
    let requests = routes.iter().map(|(prefix, way)| {
        RouteNetlinkMessage::NewRoute(route(ifindex, metrics, *prefix, Some(way)))
    });
    let set = conversation.ask_all(requests, flags, |_| false);
    told(set, routes.keys(), |prefix| {
        format!("setting the route to {}/{}", prefix.address, prefix.length)
    })
}

/// Removes routes, then neighbours; what is not there is no error.
pub(super) fn remove(
    ifindex: Ifindex,
    metrics: Metrics,
    routes: &BTreeSet<Prefix>,
    neighbours: &BTreeSet<IpAddr>,
) -> Result<(), KernelError> {
    let mut conversation = Conversation::open().asked(|| "opening netlink".to_owned())?;
    let requests = routes
        .iter()
        .map(|prefix| RouteNetlinkMessage::DelRoute(route(ifindex, metrics, *prefix, None)));
    let removed = conversation.ask_all(requests, 0, is_gone);
    told(removed, routes, |prefix| {
        format!("removing the route to {}/{}", prefix.address, prefix.length)
    })?;
    let requests = neighbours
        .iter()
        .map(|address| RouteNetlinkMessage::DelNeighbour(neighbour(ifindex, *address, None)));
    let removed = conversation.ask_all(requests, 0, is_gone);
    told(removed, neighbours, |address| {
        format!("removing the neighbour {address}")
    })
}

/// Says which of many requests was refused.
pub(super) fn told<'a, T: 'a>(
    answer: Result<(), (usize, io::Error)>,
    asked: impl IntoIterator<Item = &'a T>,
    what: impl Fn(&T) -> String,
) -> Result<(), KernelError> {
    let Err((place, error)) = answer else {
        return Ok(());
    };
    let what = asked.into_iter().nth(place).map(what).unwrap_or_default();
    Err(error).asked(|| what)
}

pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOENT))
}

/// The gateway lies in no network of the device (`onlink`); of IPv6 it is link-local, which needs no word.
fn route(
    ifindex: Ifindex,
    metrics: Metrics,
    prefix: Prefix,
    way: Option<&TunnelRoute>,
) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header.address_family = family_of(prefix.address).0;
    route.header.destination_prefix_length = prefix.length;
    route.header.table = RouteHeader::RT_TABLE_MAIN;
    route.header.protocol = PROTOCOL;
    route.header.kind = RouteType::Unicast;
    route.attributes = vec![
        RouteAttribute::Destination(prefix.address.into()),
        RouteAttribute::Oif(ifindex.0),
        RouteAttribute::Priority(metrics.of_prefix(prefix)),
    ];
    if let Some(way) = way {
        route.header.scope = RouteScope::Universe;
        route.header.flags = RouteFlags::Onlink;
        route
            .attributes
            .push(RouteAttribute::Gateway(way.gateway.into()));
        let source = way
            .source
            .map(|source| RouteAttribute::PrefSource(source.into()));
        route.attributes.extend(source);
    } else {
        route.header.scope = RouteScope::NoWhere;
    }
    route
}

fn neighbour(ifindex: Ifindex, address: IpAddr, mac: Option<MacAddress>) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family_of(address).0;
    message.header.ifindex = ifindex.0;
    message.header.state = NeighbourState::Permanent;
    let destination = NeighbourAttribute::Destination(address.into());
    let mac = mac.map(|mac| NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message.attributes.push(destination);
    message.attributes.extend(mac);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_have_metrics_of_their_own() {
        let prefix = Prefix {
            address: [10, 244, 2, 0].into(),
            length: 24,
        };
        let names = ["default", "other", "third"];
        let metrics = names.map(|name| Metrics::of(name).of_prefix(prefix));
        let different: BTreeSet<u32> = metrics.into_iter().collect();
        assert_eq!(different.len(), names.len(), "{metrics:?}");
        assert!(metrics.iter().all(|metric| (700..956).contains(metric)));
        // That of the prefix alone: what an older agent has set is found.
        assert_eq!(metrics[0], 932);
    }
}
