//! Which interface of the node each pod is behind: facts in, table out.
//!
//! A pod shows as a route to its address alone by a veth (point-to-point plugins), as a neighbour at a veth, or
//! as a neighbour at a bridge, whose forwarding table has the port that its link-layer address is behind.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{failsafe::Prefix, state::Ifindex, tunnel::MacAddress};

/// What sort of link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// A switch in software.
    Bridge,
    /// One end of a pair; the other's number, and whether it is in another network namespace.
    Veth {
        /// In its own namespace.
        peer: Option<Ifindex>,
        /// Whether that is another one.
        is_elsewhere: bool,
    },
    /// Any other, by the kernel's name for it.
    Other(String),
}

/// A link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// What sort.
    pub kind: LinkKind,
    /// The bridge that it is a port of.
    pub master: Option<Ifindex>,
    /// Bytes of an IP packet that it takes.
    pub mtu: u32,
}

impl Link {
    /// Whether the other end is in another network namespace.
    fn leads_elsewhere(&self) -> bool {
        matches!(self.kind, LinkKind::Veth { is_elsewhere, .. } if is_elsewhere)
    }
}

/// What the kernel tells of its links and of who is behind them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Neighbourhood {
    /// Links by number.
    pub links: BTreeMap<Ifindex, Link>,
    /// The node's own addresses.
    pub own: BTreeSet<IpAddr>,
    /// Routes without a gateway: what lies at a link itself.
    pub routes: BTreeMap<Prefix, Ifindex>,
    /// Neighbours whose link-layer addresses are known.
    pub neighbours: BTreeMap<(Ifindex, IpAddr), MacAddress>,
    /// Ports of bridges by the bridge and what is behind them.
    pub stations: BTreeMap<(Ifindex, MacAddress), Ifindex>,
}

/// How packets get to a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// By a veth of its own.
    PointToPoint,
    /// By a port of this bridge.
    Bridge(String),
}

/// Where a pod is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The node's end of its veth pair.
    pub ifindex: Ifindex,
    /// Its name.
    pub interface: String,
    /// The pod's end, by its number in the pod's namespace.
    pub peer: Option<Ifindex>,
    /// Bytes of an IP packet that the node's end takes; the pod's usually takes the same.
    pub mtu: u32,
    /// How packets get there.
    pub way: Way,
    /// The pod's link-layer address, where the node knows it.
    pub mac: Option<MacAddress>,
}

/// Why an address is behind no veth of this node as far as the kernel tells.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unmapped {
    /// It is the node's.
    #[error("it is an address of the node itself, or of a pod in the node's network namespace")]
    Own,
    /// The node reaches it by a gateway, or not at all.
    #[error(
        "no route of this node leads to it without a gateway: it is behind another node, or nowhere"
    )]
    Elsewhere,
    /// The node has not asked for its link-layer address.
    #[error(
        "it would lie at {link}, and the node does not know its link-layer address: nothing was sent to it lately; send it a packet, and look again"
    )]
    Unasked {
        /// Name of the link.
        link: String,
    },
    /// The bridge has forgotten it.
    #[error(
        "it has the address {mac} at the bridge {bridge}, which does not know at which port: nothing came from it lately; send it a packet, and look again"
    )]
    NoPort {
        /// Name of the bridge.
        bridge: String,
        /// Its link-layer address.
        mac: MacAddress,
    },
    /// It is behind a link that is no veth.
    #[error(
        "it is behind {link}, which is no veth but {kind}: a virtual machine's, or another host's"
    )]
    NoVeth {
        /// Name of the link.
        link: String,
        /// Its kind.
        kind: String,
    },
    /// Both ends of the veth are the node's.
    #[error("it is behind {link}, whose other end is in the node's own network namespace")]
    SameNamespace {
        /// Name of the link.
        link: String,
    },
}

/// What is known of an address.
pub type Mapped = Result<Place, Unmapped>;

/// Every pod that the facts show, by its address, and what is at a bridge and cannot be mapped. Hosts behind
/// links that are no veths are no pods, and not listed.
#[must_use]
pub fn pods(facts: &Neighbourhood) -> BTreeMap<IpAddr, Mapped> {
    let routed = facts.routes.iter();
    let routed = routed.filter(|(prefix, _)| **prefix == single(prefix.address));
    let routed = routed.map(|(prefix, link)| (prefix.address, *link));
    let heard = facts
        .neighbours
        .keys()
        .map(|(link, address)| (*address, *link));
    let candidates: BTreeSet<(IpAddr, Ifindex)> = routed.chain(heard).collect();
    let mut found = BTreeMap::new();
    for (address, _) in candidates.iter().filter(|(address, _)| is_global(*address)) {
        match place(facts, *address) {
            Err(Unmapped::Own | Unmapped::Elsewhere | Unmapped::NoVeth { .. }) => {}
            mapped => {
                found.insert(*address, mapped);
            }
        }
    }
    found
}

/// The largest MTU of the pods whose addresses are in `networks`: of the node's ends of their veth pairs, at which
/// routes into these networks end, or which are ports of a bridge at which one does. `None` where there are none.
///
/// Neighbours are not asked: they come and go with packets.
#[must_use]
pub fn largest_mtu(facts: &Neighbourhood, networks: &BTreeSet<Prefix>) -> Option<u32> {
    let is_inside = |prefix: &Prefix| networks.iter().any(|network| network.covers(prefix));
    let routes = facts.routes.iter();
    let ends: BTreeSet<Ifindex> = routes
        .filter(|(prefix, _)| is_inside(prefix))
        .map(|(_, link)| *link)
        .collect();
    let links = facts.links.iter().filter(|(index, link)| {
        let of_bridge = link.master.is_some_and(|bridge| ends.contains(&bridge));
        link.leads_elsewhere() && (of_bridge || ends.contains(index))
    });
    links.map(|(_, link)| link.mtu).max()
}

/// Where an address is, or why that cannot be said.
///
/// # Errors
/// Why not.
pub fn place(facts: &Neighbourhood, address: IpAddr) -> Mapped {
    if facts.own.contains(&address) {
        return Err(Unmapped::Own);
    }
    let itself = single(address);
    let around = facts
        .routes
        .iter()
        .filter(|(prefix, _)| prefix.covers(&itself));
    let longest = around.max_by_key(|(prefix, _)| prefix.length);
    let (_, ifindex) = longest.ok_or(Unmapped::Elsewhere)?;
    let link = facts.links.get(ifindex).ok_or(Unmapped::Elsewhere)?;
    let mac = facts.neighbours.get(&(*ifindex, address)).copied();
    match link.kind {
        LinkKind::Bridge => {
            let link_name = || link.name.clone();
            let mac = mac.ok_or_else(|| Unmapped::Unasked { link: link_name() })?;
            let port = facts.stations.get(&(*ifindex, mac));
            let port = port.and_then(|port| Some((port, facts.links.get(port)?)));
            let (port, port_link) = port.ok_or_else(|| Unmapped::NoPort {
                bridge: link_name(),
                mac,
            })?;
            behind(*port, port_link, Way::Bridge(link_name()), Some(mac))
        }
        _ => behind(*ifindex, link, Way::PointToPoint, mac),
    }
}

fn behind(ifindex: Ifindex, link: &Link, way: Way, mac: Option<MacAddress>) -> Mapped {
    let name = link.name.clone();
    match &link.kind {
        LinkKind::Veth { peer, is_elsewhere } if *is_elsewhere => Ok(Place {
            ifindex,
            interface: name,
            peer: *peer,
            mtu: link.mtu,
            way,
            mac,
        }),
        LinkKind::Veth { .. } => Err(Unmapped::SameNamespace { link: name }),
        LinkKind::Bridge => Err(Unmapped::NoVeth {
            link: name,
            kind: "bridge".to_owned(),
        }),
        LinkKind::Other(kind) => Err(Unmapped::NoVeth {
            link: name,
            kind: kind.clone(),
        }),
    }
}

fn single(address: IpAddr) -> Prefix {
    Prefix {
        address,
        length: if address.is_ipv4() { 32 } else { 128 },
    }
}

/// Link-local addresses are told apart by links, and no pod is asked for by one.
fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_link_local() && !v4.is_multicast() && !v4.is_loopback(),
        IpAddr::V6(v6) => !v6.is_unicast_link_local() && !v6.is_multicast() && !v6.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

    fn link(name: &str, kind: LinkKind, master: Option<u32>) -> Link {
        Link {
            name: name.to_owned(),
            kind,
            master: master.map(Ifindex),
            mtu: 1_500,
        }
    }

    fn veth(name: &str, peer: u32, master: Option<u32>) -> Link {
        let kind = LinkKind::Veth {
            peer: Some(Ifindex(peer)),
            is_elsewhere: true,
        };
        link(name, kind, master)
    }

    fn prefix(text: &str, length: u8) -> Prefix {
        Prefix {
            address: address(text),
            length,
        }
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// A card, a veth of its own for one pod, and a bridge with another.
    fn facts() -> Neighbourhood {
        let both_here = LinkKind::Veth {
            peer: Some(Ifindex(7)),
            is_elsewhere: false,
        };
        Neighbourhood {
            links: [
                (
                    2,
                    link("eth0", LinkKind::Other("physical".to_owned()), None),
                ),
                (3, veth("cali1", 10, None)),
                (4, link("cni0", LinkKind::Bridge, None)),
                (5, veth("veth1", 11, Some(4))),
                (6, link("here", both_here, Some(4))),
            ]
            .map(|(index, link)| (Ifindex(index), link))
            .into(),
            own: [address("192.0.2.1"), address("10.244.1.1")].into(),
            routes: [
                (prefix("192.0.2.0", 24), Ifindex(2)),
                (prefix("10.244.9.5", 32), Ifindex(3)),
                (prefix("fd00::5", 128), Ifindex(3)),
                (prefix("10.244.1.0", 24), Ifindex(4)),
            ]
            .into(),
            neighbours: [
                ((Ifindex(2), address("192.0.2.254")), MAC),
                ((Ifindex(4), address("10.244.1.2")), MAC),
                ((Ifindex(4), address("fe80::2")), MAC),
            ]
            .into(),
            stations: [((Ifindex(4), MAC), Ifindex(5))].into(),
        }
    }

    fn found(facts: &Neighbourhood, text: &str) -> Result<(String, Option<u32>, Way), Unmapped> {
        let place = place(facts, address(text))?;
        Ok((place.interface, place.peer.map(|peer| peer.0), place.way))
    }

    #[test]
    fn pods_of_both_kinds_are_found() {
        let facts = facts();
        let alone = ("cali1".to_owned(), Some(10), Way::PointToPoint);
        assert_eq!(found(&facts, "10.244.9.5"), Ok(alone.clone()));
        assert_eq!(found(&facts, "fd00::5"), Ok(alone));
        let bridged = ("veth1".to_owned(), Some(11), Way::Bridge("cni0".to_owned()));
        assert_eq!(found(&facts, "10.244.1.2"), Ok(bridged));
        let listed: Vec<String> = pods(&facts).keys().map(ToString::to_string).collect();
        assert_eq!(listed, ["10.244.1.2", "10.244.9.5", "fd00::5"]);
    }

    #[test]
    fn the_largest_mtu_is_that_of_a_pod_in_the_networks() {
        let mut facts = facts();
        let mut set = |link: u32, mtu: u32| {
            facts.links.get_mut(&Ifindex(link)).expect("a link").mtu = mtu;
        };
        // The card, and a cable whose ends are both here, are no pods'.
        for (link, mtu) in [(2, 9_000), (3, 1_400), (4, 1_500), (5, 1_450), (6, 8_000)] {
            set(link, mtu);
        }
        let largest = |text: &str, length| largest_mtu(&facts, &[prefix(text, length)].into());
        assert_eq!(largest("10.244.1.0", 24), Some(1_450), "by the bridge");
        assert_eq!(largest("10.244.9.0", 24), Some(1_400), "by its own veth");
        assert_eq!(largest("10.244.0.0", 16), Some(1_450), "both");
        assert_eq!(largest("10.244.2.0", 24), None, "nobody");
        assert_eq!(largest("10.244.1.0", 25), None, "a route beyond it");
        assert_eq!(largest("192.0.2.0", 24), None, "the card");
    }

    #[test]
    fn what_cannot_be_mapped_is_said_with_its_reason() {
        let mut facts = facts();
        let why = |facts: &Neighbourhood, text: &str| found(facts, text).expect_err("not mapped");
        assert_eq!(why(&facts, "10.244.1.1"), Unmapped::Own);
        assert_eq!(why(&facts, "203.0.113.1"), Unmapped::Elsewhere);
        let link = || "cni0".to_owned();
        assert_eq!(
            why(&facts, "10.244.1.3"),
            Unmapped::Unasked { link: link() }
        );
        let card = Unmapped::NoVeth {
            link: "eth0".to_owned(),
            kind: "physical".to_owned(),
        };
        assert_eq!(why(&facts, "192.0.2.254"), card);
        facts.stations.insert((Ifindex(4), MAC), Ifindex(6));
        let here = Unmapped::SameNamespace {
            link: "here".to_owned(),
        };
        assert_eq!(why(&facts, "10.244.1.2"), here);
        facts.stations.clear();
        let forgotten = Unmapped::NoPort {
            bridge: link(),
            mac: MAC,
        };
        assert_eq!(why(&facts, "10.244.1.2"), forgotten);
        assert_eq!(pods(&facts)[&address("10.244.1.2")], Err(forgotten));
    }
}
