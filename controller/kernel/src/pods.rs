//! What the kernel tells of links and of who is behind them, and the programs there.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use aya::programs::{SchedClassifier, TcAttachType};
use headgate_datapath::{
    failsafe::Prefix,
    kernel::KernelError,
    pods::{Link, LinkKind, Neighbourhood},
    state::{AttachedMode, Ifindex},
    tunnel::MacAddress,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage},
    neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType},
};

use crate::{
    bpf::Program,
    clsact,
    error::Asked,
    interfaces,
    netlink::{dump, links, xdp_programs},
    next_hops::{Neighbour, address_of, state_of},
    pins::Side,
};

/// Reads links, routes of the main table, neighbours, and the forwarding tables of bridges.
///
/// # Errors
/// Where the kernel does not answer.
pub fn neighbourhood() -> Result<Neighbourhood, KernelError> {
    let links: BTreeMap<Ifindex, Link> = links()?.iter().map(link).collect();
    let interfaces = interfaces::interfaces()?;
    let own = interfaces.iter().flat_map(|interface| &interface.addresses);
    Ok(Neighbourhood {
        own: own.map(|own| own.address).collect(),
        routes: routes()?,
        neighbours: neighbours()?,
        stations: stations(&links)?,
        links,
    })
}

/// Reads links and routes of the main table alone.
///
/// # Errors
/// Where the kernel does not answer.
pub fn links_and_routes() -> Result<Neighbourhood, KernelError> {
    Ok(Neighbourhood {
        links: links()?.iter().map(link).collect(),
        routes: routes()?,
        ..Neighbourhood::default()
    })
}

/// A program on an interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AttachedProgram {
    /// Where: `XDP, native`, `TCX, ingress`, `clsact, egress` and so on.
    pub hook: &'static str,
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: u32,
}

impl AttachedProgram {
    /// Whether it sees what leaves by the interface.
    #[must_use]
    pub fn is_at_egress(&self) -> bool {
        self.hook.ends_with("egress")
    }
}

/// Programs by XDP, TCX and clsact on interfaces of these numbers and names, whosever they are.
///
/// # Errors
/// Where the kernel does not answer.
pub fn programs(
    interfaces: &BTreeMap<Ifindex, String>,
) -> Result<BTreeMap<Ifindex, BTreeSet<AttachedProgram>>, KernelError> {
    let mut found: BTreeMap<Ifindex, BTreeSet<AttachedProgram>> = BTreeMap::new();
    for (ifindex, programs) in xdp_programs()? {
        if !interfaces.contains_key(&ifindex) {
            continue;
        }
        let programs = programs.into_iter().map(|(id, mode)| AttachedProgram {
            hook: match mode {
                AttachedMode::Native => "XDP, native",
                AttachedMode::Generic => "XDP, generic",
            },
            name: name_of(id),
            id,
        });
        found.entry(ifindex).or_default().extend(programs);
    }
    let hooks = [
        ("TCX, ingress", TcAttachType::Ingress),
        ("TCX, egress", TcAttachType::Egress),
    ];
    for (ifindex, name) in interfaces {
        for (hook, side) in hooks {
            // A kernel without TCX has none there.
            let Ok((_, programs)) = SchedClassifier::query_tcx(name, side) else {
                continue;
            };
            let programs = programs.iter().map(|program| AttachedProgram {
                hook,
                name: program.name_as_str().unwrap_or_default().to_owned(),
                id: program.id(),
            });
            found.entry(*ifindex).or_default().extend(programs);
        }
        for (hook, side) in [("clsact, ingress", Side::In), ("clsact, egress", Side::Out)] {
            let programs = clsact::programs(*ifindex, side)
                .asked(|| format!("reading the classifiers of {name} by netlink"))?;
            let programs = programs.into_iter().map(|id| AttachedProgram {
                hook,
                name: name_of(id),
                id,
            });
            found.entry(*ifindex).or_default().extend(programs);
        }
    }
    Ok(found)
}

/// One that went away just now has no name any more.
fn name_of(id: u32) -> String {
    let name = Program::by_id(id).and_then(|program| program.name());
    name.unwrap_or_default()
}

fn link(message: &LinkMessage) -> (Ifindex, Link) {
    let mut name = String::new();
    let (mut master, mut peer, mut is_elsewhere, mut kind) = (None, None, false, None);
    let mut mtu = 0;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name.clone_from(text),
            LinkAttribute::Controller(index) => master = Some(Ifindex(*index)),
            LinkAttribute::Mtu(bytes) => mtu = *bytes,
            LinkAttribute::Link(index) => peer = Some(Ifindex(*index)),
            LinkAttribute::LinkNetNsId(_) => is_elsewhere = true,
            LinkAttribute::LinkInfo(infos) => {
                kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.clone()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let kind = match kind {
        Some(InfoKind::Bridge) => LinkKind::Bridge,
        Some(InfoKind::Veth) => LinkKind::Veth {
            peer: peer.filter(|peer| peer.0 != 0),
            is_elsewhere,
        },
        Some(other) => LinkKind::Other(other.to_string()),
        None => LinkKind::Other("a device of its own".to_owned()),
    };
    let master = master.filter(|master| master.0 != 0);
    let link = Link {
        name,
        kind,
        master,
        mtu,
    };
    (Ifindex(message.header.index), link)
}

fn routes() -> Result<BTreeMap<Prefix, Ifindex>, KernelError> {
    let mut found = BTreeMap::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        let answers = dump(RouteNetlinkMessage::GetRoute(request))
            .asked(|| "reading the routes by netlink".to_owned())?;
        found.extend(answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(route) => on_link(&route),
            _ => None,
        }));
    }
    Ok(found)
}

/// Of a route without a gateway.
fn on_link(route: &RouteMessage) -> Option<(Prefix, Ifindex)> {
    let is_plain =
        route.header.table == RouteHeader::RT_TABLE_MAIN && route.header.kind == RouteType::Unicast;
    is_plain.then_some(())?;
    let mut address: IpAddr = match route.header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        _ => Ipv6Addr::UNSPECIFIED.into(),
    };
    let mut ifindex = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) | RouteAttribute::MultiPath(_) => {
                return None;
            }
            RouteAttribute::Oif(index) => ifindex = Some(Ifindex(*index)),
            RouteAttribute::Destination(RouteAddress::Inet(v4)) => address = (*v4).into(),
            RouteAttribute::Destination(RouteAddress::Inet6(v6)) => address = (*v6).into(),
            _ => {}
        }
    }
    let length = route.header.destination_prefix_length;
    Some((Prefix { address, length }, ifindex?))
}

fn neighbours() -> Result<BTreeMap<(Ifindex, IpAddr), MacAddress>, KernelError> {
    let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
    let answers = dump(request).asked(|| "reading the neighbours by netlink".to_owned())?;
    let known = answers.into_iter().filter_map(|answer| {
        let RouteNetlinkMessage::NewNeighbour(message) = answer else {
            return None;
        };
        // What needs no neighbour, such as loopback, has entries too.
        let is_asked = message.header.state != NeighbourState::Noarp;
        let Neighbour::At(mac) = state_of(&message) else {
            return None;
        };
        let key = (Ifindex(message.header.ifindex), address_of(&message)?);
        is_asked.then_some((key, MacAddress(mac)))
    });
    Ok(known.collect())
}

/// What bridges have learnt; the addresses of their ports themselves, which are permanent, are nobody's behind
/// them.
fn stations(
    links: &BTreeMap<Ifindex, Link>,
) -> Result<BTreeMap<(Ifindex, MacAddress), Ifindex>, KernelError> {
    let mut request = NeighbourMessage::default();
    request.header.family = AddressFamily::Bridge;
    let answers = dump(RouteNetlinkMessage::GetNeighbour(request))
        .asked(|| "reading the forwarding tables of bridges by netlink".to_owned())?;
    let known = answers.into_iter().filter_map(|answer| {
        let RouteNetlinkMessage::NewNeighbour(message) = answer else {
            return None;
        };
        let port = Ifindex(message.header.ifindex);
        let bridge = links.get(&port)?.master?;
        let mac = message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok(),
                _ => None,
            })?;
        let is_learnt = message.header.state != NeighbourState::Permanent;
        is_learnt.then_some(((bridge, MacAddress(mac)), port))
    });
    Ok(known.collect())
}
