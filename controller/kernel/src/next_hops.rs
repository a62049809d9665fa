//! Ways to addresses: the interface and the link-layer address of the next hop, from the kernel's routes
//! and neighbours.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
};

use headgate_datapath::{kernel::KernelError, state::Ifindex};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{InfoKind, LinkAttribute, LinkInfo},
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
    },
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};

use crate::{
    error::Asked,
    netlink::{Conversation, dump, links},
};

/// The way to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The interface that it leaves by.
    pub ifindex: Ifindex,
    /// The address itself, or the gateway to it.
    pub neighbour: IpAddr,
    /// Bytes of an IP packet that the interface takes.
    pub mtu: u32,
    /// Whether `XDP_TX` on the interface reaches its far end: not in a veth pair.
    pub reflects: bool,
    /// MAC addresses of the neighbour and of the interface; `None` until the neighbour has answered.
    pub link_layer: Option<LinkLayer>,
}

/// MAC addresses of one hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkLayer {
    /// The neighbour's.
    pub destination: [u8; 6],
    /// The interface's.
    pub source: [u8; 6],
}

/// Reads the way to each of `addresses` that has one, and has the kernel ask each neighbour that it has
/// not heard of lately, so that what is read next is current. An address of this node, and one without a
/// route, has no way.
///
/// # Errors
/// Where the kernel does not answer.
pub fn next_hops(addresses: &BTreeSet<IpAddr>) -> Result<BTreeMap<IpAddr, NextHop>, KernelError> {
    if addresses.is_empty() {
        return Ok(BTreeMap::new());
    }
    let interfaces = interfaces()?;
    let neighbours = neighbours()?;
    let mut conversation = Conversation::open().asked(|| "opening netlink".to_owned())?;
    let mut asked = BTreeSet::new();
    let mut found = BTreeMap::new();
    for address in addresses {
        let Some((ifindex, neighbour)) = route(&mut conversation, *address)? else {
            continue;
        };
        let Some(interface) = interfaces.get(&ifindex) else {
            continue;
        };
        let known = neighbours.get(&(ifindex, neighbour));
        let is_fresh = known.is_some_and(|known| known.is_fresh);
        if !is_fresh && asked.insert((ifindex, neighbour)) {
            probe(&mut conversation, ifindex, neighbour)?;
        }
        let link_layer = known.map(|known| LinkLayer {
            destination: known.address,
            source: interface.address,
        });
        found.insert(
            *address,
            NextHop {
                ifindex,
                neighbour,
                mtu: interface.mtu,
                reflects: !interface.is_veth,
                link_layer,
            },
        );
    }
    Ok(found)
}

/// What a way needs to know of its interface.
struct Interface {
    address: [u8; 6],
    mtu: u32,
    is_veth: bool,
}

/// Interfaces with a MAC address.
fn interfaces() -> Result<BTreeMap<Ifindex, Interface>, KernelError> {
    let described = links()?.into_iter().filter_map(|link| {
        let mut address = None;
        let mut mtu = 0;
        let mut is_veth = false;
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::Address(bytes) => address = bytes.as_slice().try_into().ok(),
                LinkAttribute::Mtu(bytes) => mtu = *bytes,
                LinkAttribute::LinkInfo(infos) => {
                    is_veth = infos.contains(&LinkInfo::Kind(InfoKind::Veth));
                }
                _ => {}
            }
        }
        let interface = Interface {
            address: address?,
            mtu,
            is_veth,
        };
        Some((Ifindex(link.header.index), interface))
    });
    Ok(described.collect())
}

/// What the kernel knows of a neighbour.
struct Neighbour {
    address: [u8; 6],
    /// Whether it answered lately, or need not.
    is_fresh: bool,
}

fn neighbours() -> Result<BTreeMap<(Ifindex, IpAddr), Neighbour>, KernelError> {
    let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
    let answers = dump(request).asked(|| "reading the neighbours by netlink".to_owned())?;
    let mut found = BTreeMap::new();
    for answer in answers {
        let RouteNetlinkMessage::NewNeighbour(message) = answer else {
            continue;
        };
        let is_fresh = match message.header.state {
            NeighbourState::Reachable | NeighbourState::Permanent => true,
            NeighbourState::Stale | NeighbourState::Delay | NeighbourState::Probe => false,
            _ => continue,
        };
        let link_layer = message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok(),
                _ => None,
            });
        if let (Some(neighbour), Some(address)) = (address_of(&message), link_layer) {
            let ifindex = Ifindex(message.header.ifindex);
            found.insert((ifindex, neighbour), Neighbour { address, is_fresh });
        }
    }
    Ok(found)
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

/// The interface and neighbour on the way to `address`.
fn route(
    conversation: &mut Conversation,
    address: IpAddr,
) -> Result<Option<(Ifindex, IpAddr)>, KernelError> {
    let mut request = RouteMessage::default();
    let (family, length) = family_of(address);
    request.header.address_family = family;
    request.header.destination_prefix_length = length;
    let destination = RouteAttribute::Destination(address.into());
    request.attributes.push(destination);
    let answer = match conversation.ask(RouteNetlinkMessage::GetRoute(request), 0) {
        Ok(answer) => answer,
        // No route, or one that says so: ip_route_output_key_hash_rcu in net/ipv4/route.c.
        Err(error) if is_unreachable(&error) => return Ok(None),
        Err(error) => return Err(error).asked(|| format!("asking for the route to {address}")),
    };
    let Some(RouteNetlinkMessage::NewRoute(route)) = answer else {
        return Ok(None);
    };
    if route.header.kind != RouteType::Unicast {
        return Ok(None);
    }
    let mut ifindex = None;
    let mut neighbour = address;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => ifindex = Some(Ifindex(*index)),
            RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => neighbour = (*gateway).into(),
            RouteAttribute::Gateway(RouteAddress::Inet6(gateway)) => neighbour = (*gateway).into(),
            _ => {}
        }
    }
    Ok(ifindex.map(|ifindex| (ifindex, neighbour)))
}

fn is_unreachable(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [
        libc::ENETUNREACH,
        libc::EHOSTUNREACH,
        libc::EACCES,
        libc::EINVAL,
    ]
    .iter()
    .any(|known| code == Some(*known))
}

/// Has the kernel ask a neighbour, as it does for a packet on the way to it: `NTF_USE` of
/// net/core/neighbour.c.
fn probe(
    conversation: &mut Conversation,
    ifindex: Ifindex,
    neighbour: IpAddr,
) -> Result<(), KernelError> {
    let mut request = NeighbourMessage::default();
    request.header.family = family_of(neighbour).0;
    request.header.ifindex = ifindex.0;
    request.header.flags = NeighbourFlags::Use;
    let destination = NeighbourAttribute::Destination(neighbour.into());
    request.attributes.push(destination);
    let request = RouteNetlinkMessage::NewNeighbour(request);
    match conversation.ask(request, NLM_F_CREATE | NLM_F_REPLACE) {
        // The interface went down or away meanwhile.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENETDOWN | libc::ENODEV)) => Ok(()),
        outcome => outcome
            .map(drop)
            .asked(|| format!("probing the neighbour {neighbour}")),
    }
}

fn family_of(address: IpAddr) -> (AddressFamily, u8) {
    match address {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    }
}
