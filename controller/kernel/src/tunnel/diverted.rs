//! Whether packets take the tunnel's routes: somebody else may have better ones.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::Bound,
};

use headgate_datapath::{
    failsafe::Prefix,
    kernel::KernelError,
    state::Ifindex,
    tunnel::{Diversion, Routes},
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::LinkAttribute,
    route::{RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteType},
};

use super::routes::ip;
use crate::{
    error::Asked,
    netlink::{Conversation, links},
    next_hops::family_of,
};

/// Networks whose ways are asked for anew in one look, by turns: each takes microseconds, and there are looks
/// every few seconds.
const TURN: usize = 500;

/// Somebody else's route, with its interface.
type Elsewhere = (Prefix, Option<Ifindex>);

/// What the kernel said of the ways to the tunnel's networks, and whose turn it is.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    device: Option<Ifindex>,
    known: BTreeMap<Prefix, Option<Elsewhere>>,
    last: Option<Prefix>,
}

impl Ways {
    /// The networks of `routes` that lead elsewhere than to the device, by their first and last addresses. Those
    /// that are new are all asked for.
    pub(super) fn diverted(
        &mut self,
        device: Ifindex,
        routes: &Routes,
    ) -> Result<BTreeMap<Prefix, Diversion>, KernelError> {
        if self.device.replace(device) != Some(device) {
            self.known.clear();
        }
        self.known.retain(|network, _| routes.contains_key(network));
        if routes.is_empty() {
            return Ok(BTreeMap::new());
        }
        let turn = self.turn();
        let new = routes
            .keys()
            .filter(|network| !self.known.contains_key(network));
        let asked: BTreeSet<Prefix> = new.copied().chain(turn).collect();
        let mut conversation = Conversation::open().asked(|| "opening netlink".to_owned())?;
        for network in asked {
            let ends = ends(network).into_iter();
            let mut ways = ends.filter_map(|end| elsewhere(&mut conversation, device, end));
            let way = ways.next();
            self.known.insert(network, way);
        }
        self.named()
    }

    /// The known networks whose turn it is.
    fn turn(&mut self) -> Vec<Prefix> {
        let from = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self.known.range((from, Bound::Unbounded));
        let turn: Vec<_> = behind
            .chain(&self.known)
            .take(TURN.min(self.known.len()))
            .map(|(network, _)| *network)
            .collect();
        self.last = turn.last().copied();
        turn
    }

    fn named(&self) -> Result<BTreeMap<Prefix, Diversion>, KernelError> {
        let elsewhere = self.known.iter();
        let mut elsewhere = elsewhere.filter_map(|(network, way)| Some((*network, (*way)?)));
        let Some(first) = elsewhere.next() else {
            return Ok(BTreeMap::new());
        };
        let names = names()?;
        let all = std::iter::once(first).chain(elsewhere);
        let named = all.map(|(network, (route, ifindex))| {
            let device = ifindex.and_then(|ifindex| names.get(&ifindex).cloned());
            (network, Diversion { route, device })
        });
        Ok(named.collect())
    }
}

/// The first and the last address of a network that a host may have.
fn ends(network: Prefix) -> [IpAddr; 2] {
    match network.address {
        IpAddr::V4(first) => {
            let hosts = u32::MAX.checked_shr(network.length.into()).unwrap_or(0);
            let margin = u32::from(hosts > 1);
            let first = first.to_bits();
            let ends = [first + margin, (first | hosts) - margin];
            ends.map(|bits| std::net::Ipv4Addr::from_bits(bits).into())
        }
        IpAddr::V6(first) => {
            let hosts = u128::MAX.checked_shr(network.length.into()).unwrap_or(0);
            let margin = u128::from(hosts > 1);
            let first = first.to_bits();
            let ends = [first + margin, (first | hosts) - margin];
            ends.map(|bits| std::net::Ipv6Addr::from_bits(bits).into())
        }
    }
}

/// The route that packets to `address` take, with its interface, where that is not `device`. Where the
/// kernel answers with an error, as of a blackhole of IPv4, nothing is known.
fn elsewhere(
    conversation: &mut Conversation,
    device: Ifindex,
    address: IpAddr,
) -> Option<Elsewhere> {
    let mut request = RouteMessage::default();
    let (family, length) = family_of(address);
    request.header.address_family = family;
    request.header.destination_prefix_length = length;
    request.header.flags = RouteFlags::FibMatch;
    let destination = RouteAttribute::Destination(address.into());
    request.attributes.push(destination);
    let answer = conversation.ask(RouteNetlinkMessage::GetRoute(request), 0);
    let Ok(Some(RouteNetlinkMessage::NewRoute(route))) = answer else {
        return None;
    };
    let mut ifindex = None;
    let mut matched = None;
    let mut is_by_gateway = false;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => ifindex = Some(Ifindex(*index)),
            RouteAttribute::Destination(address) => matched = ip(address),
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => is_by_gateway = true,
            _ => {}
        }
    }
    let to_one = route.header.destination_prefix_length == length;
    let is_here = route.header.protocol == RouteProtocol::Kernel
        || route.header.kind == RouteType::Local
        || (to_one && !is_by_gateway);
    let route = Prefix {
        address: matched.unwrap_or(address),
        length: route.header.destination_prefix_length,
    };
    (ifindex != Some(device) && !is_here).then_some((route, ifindex))
}

fn names() -> Result<BTreeMap<Ifindex, String>, KernelError> {
    let named = links()?.into_iter().filter_map(|link| {
        let mut attributes = link.attributes.into_iter();
        let name = attributes.find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name),
            _ => None,
        });
        Some((Ifindex(link.header.index), name?))
    });
    Ok(named.collect())
}
