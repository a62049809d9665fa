//! The node's interfaces, as the kernel tells them by netlink.

use std::{collections::BTreeSet, net::IpAddr};

use headgate_datapath::{kernel::KernelError, state::Ifindex};
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage},
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteType},
};

use crate::{
    error::Asked,
    netlink::{dump, links},
};

pub use crate::watch::Changes;

/// What an interface is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InterfaceKind {
    /// A device of its own.
    Physical,
    /// Several devices as one.
    Bond,
    /// A switch in software.
    Bridge,
    /// A VLAN of another device, its [`InterfaceFacts::lower`].
    Vlan,
    /// One end of a pair.
    Veth,
    /// The node talking to itself.
    Loopback,
    /// Any other kind, by the kernel's name for it.
    Other(String),
}

/// An address with the prefix of its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InterfaceAddress {
    /// The address.
    pub address: IpAddr,
    /// Length of its network's prefix.
    pub prefix_length: u8,
}

/// What the kernel tells of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceFacts {
    /// Its name.
    pub name: String,
    /// Its number.
    pub ifindex: Ifindex,
    /// What it is.
    pub kind: InterfaceKind,
    /// Bytes of an IP packet that it takes.
    pub mtu: u32,
    /// The bond or bridge that it belongs to.
    pub master: Option<Ifindex>,
    /// The device that it lies on, where that is in this network namespace; never a veth's peer.
    pub lower: Option<Ifindex>,
    /// Whether a default route of the main table leaves by it, for IPv4 or IPv6.
    pub has_default_route: bool,
    /// Whether it was set up (not whether it has a carrier).
    pub up: bool,
    /// Its addresses.
    pub addresses: Vec<InterfaceAddress>,
}

/// Reads all interfaces of this network namespace, by ascending ifindex.
///
/// # Errors
/// Where the kernel does not answer or its answer cannot be read.
pub fn interfaces() -> Result<Vec<InterfaceFacts>, KernelError> {
    let defaults = default_route_interfaces()?;
    let addresses = addresses()?;
    let mut found: Vec<_> = links()?.iter().map(facts_of).collect();
    for facts in &mut found {
        facts.has_default_route = defaults.contains(&facts.ifindex);
        facts.addresses = addresses
            .iter()
            .filter(|(ifindex, _)| *ifindex == facts.ifindex)
            .map(|(_, address)| *address)
            .collect();
    }
    found.sort_by_key(|facts| facts.ifindex);
    Ok(found)
}

/// Changes of links, addresses and default routes from now on.
///
/// # Errors
/// Where the kernel refuses the subscription.
///
/// # Panics
/// Outside of a tokio runtime with I/O enabled.
pub fn watch() -> Result<Changes, KernelError> {
    Changes::subscribe().asked(|| "subscribing to changes of interfaces".to_owned())
}

fn facts_of(link: &LinkMessage) -> InterfaceFacts {
    let mut name = String::new();
    let mut mtu = 0;
    let mut master = None;
    let mut lower = None;
    let mut elsewhere = false;
    let mut info: &[LinkInfo] = &[];
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name.clone_from(text),
            LinkAttribute::Mtu(bytes) => mtu = *bytes,
            LinkAttribute::Controller(index) => master = Some(Ifindex(*index)),
            LinkAttribute::Link(index) => lower = Some(Ifindex(*index)),
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            LinkAttribute::LinkInfo(infos) => info = infos,
            _ => {}
        }
    }
    let ifindex = Ifindex(link.header.index);
    let kind = kind_of(link, info);
    let lies_on_another = !elsewhere && kind != InterfaceKind::Veth;
    InterfaceFacts {
        name,
        ifindex,
        mtu,
        master: master.filter(|master| master.0 != 0),
        lower: lower.filter(|lower| lies_on_another && lower.0 != 0 && *lower != ifindex),
        kind,
        has_default_route: false,
        up: link.header.flags.contains(LinkFlags::Up),
        addresses: Vec::new(),
    }
}

fn kind_of(link: &LinkMessage, info: &[LinkInfo]) -> InterfaceKind {
    if link.header.link_layer_type == LinkLayerType::Loopback {
        return InterfaceKind::Loopback;
    }
    let kind = info.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    });
    match kind {
        None => InterfaceKind::Physical,
        Some(InfoKind::Bond) => InterfaceKind::Bond,
        Some(InfoKind::Bridge) => InterfaceKind::Bridge,
        Some(InfoKind::Vlan) => InterfaceKind::Vlan,
        Some(InfoKind::Veth) => InterfaceKind::Veth,
        Some(other) => InterfaceKind::Other(other.to_string()),
    }
}

fn addresses() -> Result<Vec<(Ifindex, InterfaceAddress)>, KernelError> {
    let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let answers = dump(request).asked(|| "reading the addresses by netlink".to_owned())?;
    let address = |answer| match answer {
        RouteNetlinkMessage::NewAddress(message) => address_of(&message),
        _ => None,
    };
    Ok(answers.into_iter().filter_map(address).collect())
}

fn address_of(message: &AddressMessage) -> Option<(Ifindex, InterfaceAddress)> {
    let mut own = None;
    let mut peer_or_own = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => own = Some(*address),
            AddressAttribute::Address(address) => peer_or_own = Some(*address),
            _ => {}
        }
    }
    let address = InterfaceAddress {
        // On a point-to-point link the second is the other side's.
        address: own.or(peer_or_own)?,
        prefix_length: message.header.prefix_len,
    };
    Some((Ifindex(message.header.index), address))
}

fn default_route_interfaces() -> Result<BTreeSet<Ifindex>, KernelError> {
    let mut found = BTreeSet::new();
    let request = RouteNetlinkMessage::GetRoute(RouteMessage::default());
    let answers = dump(request).asked(|| "reading the routes by netlink".to_owned())?;
    for answer in answers {
        if let RouteNetlinkMessage::NewRoute(route) = answer
            && is_default(&route)
        {
            found.extend(outgoing(&route));
        }
    }
    Ok(found)
}

pub(crate) fn is_default(route: &RouteMessage) -> bool {
    route.header.destination_prefix_length == 0
        && route.header.table == RouteHeader::RT_TABLE_MAIN
        && route.header.kind == RouteType::Unicast
}

fn outgoing(route: &RouteMessage) -> impl Iterator<Item = Ifindex> {
    route
        .attributes
        .iter()
        .flat_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => vec![Ifindex(*index)],
            RouteAttribute::MultiPath(hops) => hops
                .iter()
                .map(|hop| Ifindex(hop.interface_index))
                .collect(),
            _ => Vec::new(),
        })
}
