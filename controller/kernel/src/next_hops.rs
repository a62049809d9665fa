//! Ways to addresses: the interface and the link-layer address of the next hop, from the kernel's routes
//! and neighbours.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use headgate_datapath::{kernel::KernelError, state::Ifindex};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage},
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
    },
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia},
};

use crate::{
    error::Asked,
    netlink::{Conversation, dump, links},
};

/// Ways to addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// The way to each that has one by a device that takes frames from XDP, or by one of an overlay.
    pub hops: BTreeMap<IpAddr, NextHop>,
    /// Those of this very node: on the network of a bridge whose ports are all virtual, as containers and
    /// virtual machines are.
    pub here: BTreeSet<IpAddr>,
}

/// The way to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The interface that it leaves by.
    pub ifindex: Ifindex,
    /// The address itself, or the gateway to it.
    pub neighbour: IpAddr,
    /// Bytes of an IP packet that the way takes.
    pub mtu: u32,
    /// Whether `XDP_TX` on the interface reaches its far end: not in a veth pair.
    pub reflects: bool,
    /// MAC address of the interface.
    pub source: [u8; 6],
    /// What is known of the neighbour.
    pub destination: Neighbour,
    /// The node's own address on this way.
    pub local: Option<IpAddr>,
    /// Whether the interface is the device of an overlay, whose neighbours are not looked at: most are made by
    /// whoever made the overlay, and some of these devices have none.
    pub overlay: bool,
}

/// What the kernel knows of a neighbour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Neighbour {
    /// Its MAC address.
    At([u8; 6]),
    /// Nothing: it was not asked yet, or has not answered yet.
    #[default]
    Unknown,
    /// It does not answer.
    Failed,
}

/// Whether a look at neighbours may make the kernel ask them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probing {
    /// Those that were not heard of lately are asked, so that what is read next is current.
    Ask,
    /// Nobody is asked.
    LookOnly,
}

/// Neighbours that are asked at a time at most: the kernel's table of them is shared with all of the node
/// (`gc_thresh3`, 1,024 if nobody has set it).
const MOST_ASKED: usize = 256;

/// Reads the way to each of `addresses` that has one. An address of
/// an interface of this node has no way, and neither has one for which the kernel does not answer well: it is asked again
/// the next time.
///
/// # Errors
/// Where the kernel tells nothing of its interfaces or neighbours.
pub fn ways(addresses: &BTreeSet<IpAddr>, probing: Probing) -> Result<Ways, KernelError> {
    let mut found = Ways::default();
    if addresses.is_empty() {
        return Ok(found);
    }
    let links = links()?;
    let interfaces = interfaces(&links);
    let bridges = virtual_bridges(&links);
    let neighbours = neighbours()?;
    let mut conversation = Conversation::open().asked(|| "opening netlink".to_owned())?;
    let mut asked = BTreeSet::new();
    for address in addresses {
        let Some(route) = route(&mut conversation, *address) else {
            continue;
        };
        if bridges.contains(&route.ifindex) && route.neighbour == *address {
            found.here.insert(*address);
        }
        let Some(interface) = interfaces.get(&route.ifindex) else {
            continue;
        };
        let key = (route.ifindex, route.neighbour);
        let known = neighbours.get(&key).filter(|_| !interface.is_overlay);
        let (destination, is_fresh) = known.copied().unwrap_or_default();
        let may_ask = probing == Probing::Ask && asked.len() < MOST_ASKED;
        let may_ask = may_ask && !interface.is_overlay;
        if !is_fresh && may_ask && asked.insert(key) {
            probe(&mut conversation, route.ifindex, route.neighbour);
        }
        let hop = NextHop {
            ifindex: route.ifindex,
            neighbour: route.neighbour,
            mtu: route
                .mtu
                .map_or(interface.mtu, |mtu| mtu.min(interface.mtu)),
            reflects: !interface.is_veth,
            source: interface.address,
            destination,
            local: route.local,
            overlay: interface.is_overlay,
        };
        found.hops.insert(*address, hop);
    }
    Ok(found)
}

/// What a way needs to know of its interface.
struct Interface {
    address: [u8; 6],
    mtu: u32,
    is_veth: bool,
    is_overlay: bool,
}

/// Interfaces with a MAC address whose drivers take frames from XDP, as far as their kind tells (`ndo_xdp_xmit`):
/// no bridge or VLAN does; and those of overlays.
fn interfaces(links: &[LinkMessage]) -> BTreeMap<Ifindex, Interface> {
    let described = links.iter().filter_map(|link| {
        let mut address = None;
        let mut mtu = 0;
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::Address(bytes) => address = bytes.as_slice().try_into().ok(),
                LinkAttribute::Mtu(bytes) => mtu = *bytes,
                _ => {}
            }
        }
        let kind = kind_of(link);
        let transmits = matches!(
            kind,
            None | Some(InfoKind::Veth | InfoKind::Bond | InfoKind::Tun)
        );
        let is_overlay = kind.is_some_and(is_overlay);
        let address = match is_overlay {
            true => Some([0; 6]),
            false => address.filter(|_| transmits),
        };
        let interface = Interface {
            address: address?,
            mtu,
            is_veth: kind == Some(&InfoKind::Veth),
            is_overlay,
        };
        Some((Ifindex(link.header.index), interface))
    });
    described.collect()
}

/// Whether devices of this kind put packets into packets of the network below.
fn is_overlay(kind: &InfoKind) -> bool {
    matches!(
        kind,
        InfoKind::Vxlan
            | InfoKind::Geneve
            | InfoKind::Wireguard
            | InfoKind::IpIp
            | InfoKind::SitTun
            | InfoKind::Ip6Tnl
            | InfoKind::GreTun
            | InfoKind::GreTun6
            | InfoKind::GreTap
            | InfoKind::GreTap6
    )
}

/// Bridges that have ports, none of which leads out of the node.
fn virtual_bridges(links: &[LinkMessage]) -> BTreeSet<Ifindex> {
    let ports = links.iter().filter_map(|link| {
        let mut attributes = link.attributes.iter();
        let bridge = attributes.find_map(|attribute| match attribute {
            LinkAttribute::Controller(index) => Some(Ifindex(*index)),
            _ => None,
        });
        let is_virtual = matches!(kind_of(link), Some(InfoKind::Veth | InfoKind::Tun));
        Some((bridge?, is_virtual))
    });
    let (inside, outside): (Vec<_>, Vec<_>) = ports.partition(|(_, is_virtual)| *is_virtual);
    let leads_out = |bridge: &Ifindex| outside.iter().any(|(other, _)| other == bridge);
    let is_bridge = |link: &&LinkMessage| kind_of(link) == Some(&InfoKind::Bridge);
    let bridges = links.iter().filter(is_bridge);
    bridges
        .map(|link| Ifindex(link.header.index))
        .filter(|bridge| inside.iter().any(|(of, _)| of == bridge) && !leads_out(bridge))
        .collect()
}

fn kind_of(link: &LinkMessage) -> Option<&InfoKind> {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => infos.iter().find_map(|info| match info {
                LinkInfo::Kind(kind) => Some(kind),
                _ => None,
            }),
            _ => None,
        })
}

/// Neighbours by interface and address, and whether each answered lately or need not.
type Neighbours = BTreeMap<(Ifindex, IpAddr), (Neighbour, bool)>;

fn neighbours() -> Result<Neighbours, KernelError> {
    let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
    let answers = dump(request).asked(|| "reading the neighbours by netlink".to_owned())?;
    let known = answers.into_iter().filter_map(|answer| {
        let RouteNetlinkMessage::NewNeighbour(message) = answer else {
            return None;
        };
        let is_fresh = matches!(
            message.header.state,
            NeighbourState::Reachable | NeighbourState::Permanent | NeighbourState::Noarp
        );
        let key = (Ifindex(message.header.ifindex), address_of(&message)?);
        Some((key, (state_of(&message), is_fresh)))
    });
    Ok(known.collect())
}

/// What a message says of its neighbour.
pub(crate) fn state_of(message: &NeighbourMessage) -> Neighbour {
    let link_layer = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok(),
            _ => None,
        });
    match (message.header.state, link_layer) {
        (NeighbourState::Failed, _) => Neighbour::Failed,
        (NeighbourState::Incomplete | NeighbourState::None, _) | (_, None) => Neighbour::Unknown,
        (_, Some(address)) => Neighbour::At(address),
    }
}

/// The address that a message about a neighbour is about.
pub(crate) fn address_of(message: &NeighbourMessage) -> Option<IpAddr> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
                Some((*address).into())
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
                Some((*address).into())
            }
            _ => None,
        })
}

/// What the kernel's routes say of an address.
pub(crate) struct Route {
    pub(crate) ifindex: Ifindex,
    pub(crate) neighbour: IpAddr,
    pub(crate) mtu: Option<u32>,
    pub(crate) local: Option<IpAddr>,
}

pub(crate) fn route(conversation: &mut Conversation, address: IpAddr) -> Option<Route> {
    let mut request = RouteMessage::default();
    let (family, length) = family_of(address);
    request.header.address_family = family;
    request.header.destination_prefix_length = length;
    let destination = RouteAttribute::Destination(address.into());
    request.attributes.push(destination);
    let answer = conversation.ask(RouteNetlinkMessage::GetRoute(request), 0);
    let Ok(Some(RouteNetlinkMessage::NewRoute(route))) = answer else {
        return None;
    };
    if route.header.kind != RouteType::Unicast {
        return None;
    }
    let mut ifindex = None;
    let mut neighbour = address;
    let mut mtu = None;
    let mut local = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => ifindex = Some(Ifindex(*index)),
            RouteAttribute::Gateway(RouteAddress::Inet(gateway))
            | RouteAttribute::Via(RouteVia::Inet(gateway)) => neighbour = (*gateway).into(),
            RouteAttribute::Gateway(RouteAddress::Inet6(gateway))
            | RouteAttribute::Via(RouteVia::Inet6(gateway)) => neighbour = (*gateway).into(),
            RouteAttribute::PrefSource(RouteAddress::Inet(source)) => {
                local = Some((*source).into());
            }
            RouteAttribute::PrefSource(RouteAddress::Inet6(source)) => {
                local = Some((*source).into());
            }
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(Route {
        ifindex: ifindex?,
        neighbour,
        mtu,
        local,
    })
}

/// Has the kernel ask a neighbour, as it does for a packet on the way to it: `NTF_USE` of
/// net/core/neighbour.c.
fn probe(conversation: &mut Conversation, ifindex: Ifindex, neighbour: IpAddr) {
    let mut request = NeighbourMessage::default();
    request.header.family = family_of(neighbour).0;
    request.header.ifindex = ifindex.0;
    request.header.flags = NeighbourFlags::Use;
    let destination = NeighbourAttribute::Destination(neighbour.into());
    request.attributes.push(destination);
    let request = RouteNetlinkMessage::NewNeighbour(request);
    // A full table or an interface that went away: then nothing is known, and it is asked again.
    let _ = conversation.ask(request, NLM_F_CREATE | NLM_F_REPLACE);
}

pub(crate) fn family_of(address: IpAddr) -> (AddressFamily, u8) {
    match address {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    }
}
