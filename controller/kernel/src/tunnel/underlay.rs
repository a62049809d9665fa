//! The network below the tunnel: ways to endpoints, and who else uses VXLAN here.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use headgate_datapath::{kernel::KernelError, state::Ifindex, tunnel::DEVICE};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};

use super::device::vxlan;
use crate::{
    error::Asked,
    netlink::{Conversation, links},
    next_hops::route,
};

/// The way to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Underlay {
    /// The interface that it leaves by.
    pub ifindex: Ifindex,
    /// The gateway that it leads to first, where that is not the endpoint itself.
    pub gateway: Option<IpAddr>,
    /// Whether the interface has a link layer, by whose addresses others are found there.
    pub has_link_layer: bool,
    /// The node's own address on this way.
    pub local: Option<IpAddr>,
    /// Bytes of an IP packet that the way takes.
    pub mtu: u32,
}

/// Reads the way to each of `endpoints` that has one; never by the tunnel's own device.
///
/// # Errors
/// Where the kernel tells nothing of its interfaces.
pub fn underlays(endpoints: &BTreeSet<IpAddr>) -> Result<BTreeMap<IpAddr, Underlay>, KernelError> {
    if endpoints.is_empty() {
        return Ok(BTreeMap::new());
    }
    let links = links()?;
    let mtus: BTreeMap<Ifindex, u32> = links.iter().filter_map(mtu_of).collect();
    let layered = links.iter().filter(|link| has_link_layer(link));
    let layered: BTreeSet<u32> = layered.map(|link| link.header.index).collect();
    let mut conversation = Conversation::open().asked(|| "opening netlink".to_owned())?;
    let ways = endpoints.iter().filter_map(|endpoint| {
        let route = route(&mut conversation, *endpoint)?;
        let mtu = *mtus.get(&route.ifindex)?;
        let underlay = Underlay {
            ifindex: route.ifindex,
            gateway: (route.neighbour != *endpoint).then_some(route.neighbour),
            has_link_layer: layered.contains(&route.ifindex.0),
            local: route.local,
            mtu: route.mtu.map_or(mtu, |of_route| of_route.min(mtu)),
        };
        Some((*endpoint, underlay))
    });
    Ok(ways.collect())
}

fn mtu_of(link: &LinkMessage) -> Option<(Ifindex, u32)> {
    let mtu = link
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        })?;
    (name_of(link) != Some(DEVICE)).then_some((Ifindex(link.header.index), mtu))
}

fn has_link_layer(link: &LinkMessage) -> bool {
    let is_ethernet = link.header.link_layer_type == LinkLayerType::Ether;
    is_ethernet && !link.header.flags.contains(LinkFlags::Noarp)
}

fn name_of(link: &LinkMessage) -> Option<&str> {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.as_str()),
            _ => None,
        })
}

/// UDP ports of VXLAN devices that are up and not the tunnel's, with their names.
///
/// # Errors
/// Where the kernel tells nothing of its interfaces.
pub fn vxlan_ports() -> Result<BTreeMap<u16, String>, KernelError> {
    let port = |link: &LinkMessage| {
        let (port, _) = vxlan(link)?;
        let name = name_of(link).filter(|name| *name != DEVICE)?;
        let is_up = link.header.flags.contains(LinkFlags::Up);
        is_up.then(|| (port, name.to_owned()))
    };
    Ok(links()?.iter().filter_map(port).collect())
}
