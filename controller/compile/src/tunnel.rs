//! Peers, compiled into the tables of the tunnel's programs; `headgate_layout::tunnel` describes them.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use headgate_crds::{IpNet, TunnelPeerSpec};
use headgate_datapath::{
    failsafe::Prefix,
    state::{Block, Digest},
    tunnel::{MacAddress, Neighbours},
};
use headgate_layout::tunnel::{LIMIT, Peer, TUNNEL, Tunnel};
use zerocopy::IntoBytes as _;

use crate::{
    addresses::Address,
    classifier::{BlockWriter, TooLarge},
    inputs::Labels,
    memory::Memory,
    services::words,
    snapshot::{Content, Snapshot},
    trie::Boundary,
};

/// Bytes that the tunnel's headers take of a packet of the network below: Ethernet, VXLAN, UDP and IP.
#[must_use]
pub fn overhead(endpoint: IpAddr) -> u32 {
    match endpoint {
        IpAddr::V4(_) => 14 + 8 + 8 + 20,
        IpAddr::V6(_) => 14 + 8 + 8 + 40,
    }
}

/// The neighbour that stands for a link-layer address on routes to `network`, by an address that nobody
/// among `neighbours` has for another one. Of IPv6 that is the link-local address made of it, which is its
/// alone; of IPv4 the endpoint, which is no address of this node, else one of those that nobody uses
/// (240.0.0.0/5).
#[must_use]
pub fn gateway(
    network: IpNet,
    endpoint: IpAddr,
    mac: MacAddress,
    neighbours: &Neighbours,
) -> IpAddr {
    let IpNet::V4(_) = network else {
        return link_local(mac).into();
    };
    let mut candidate = match endpoint {
        IpAddr::V4(endpoint) => endpoint,
        IpAddr::V6(_) => unused(endpoint, mac, 0),
    };
    let mut attempt = 0;
    while neighbours
        .get(&candidate.into())
        .is_some_and(|other| *other != mac)
    {
        attempt += 1;
        candidate = unused(endpoint, mac, attempt);
    }
    candidate.into()
}

fn link_local(mac: MacAddress) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let mut octets = [0; 16];
    octets[..2].copy_from_slice(&[0xfe, 0x80]);
    octets[8..].copy_from_slice(&[a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    octets.into()
}

fn unused(endpoint: IpAddr, mac: MacAddress, attempt: u32) -> Ipv4Addr {
    let digest = Digest::of(format!("{endpoint} {mac} {attempt}").as_bytes()).bytes();
    let [a, b, c, d] = *digest.first_chunk().expect("a digest has more bytes");
    [0xf0 | a & 7, b, c, d].into()
}

/// A peer, with everything looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemotePeer {
    /// Networks behind it.
    pub networks: Vec<IpNet>,
    /// Its address in the network below.
    pub endpoint: IpAddr,
    /// The node's own address on the way there.
    pub local: Option<IpAddr>,
    /// Number of the network that packets to it carry.
    pub vni: u32,
    /// Number of the network that packets from it must carry.
    pub accepted_vni: u32,
    /// Whether what comes from it goes to pods without the node's stack.
    pub is_direct: bool,
}

impl RemotePeer {
    fn record(&self) -> Peer {
        Peer {
            endpoint: words(self.endpoint),
            local: self.local.map(words).unwrap_or_default(),
            vni: self.vni,
            accepted_vni: self.accepted_vni,
            is_v6: u32::from(self.endpoint.is_ipv6()),
            is_direct: self.is_direct.into(),
        }
    }
}

/// The tables for these peers, all of which listen at `port`, at a node that has the networks `own`, which no
/// peer may send from. Of two that have the same network, the first gets it.
///
/// # Errors
/// More than a block may hold.
pub fn tables(peers: &[RemotePeer], own: &[IpNet], port: u16) -> Result<Block, TooLarge> {
    let too_many = |_| TooLarge::Classes {
        of: "peers of the tunnel",
        limit: usize::from(u16::MAX),
    };
    let class_of = |index: usize| u16::try_from(index + 1).map_err(too_many);
    let mut networks = Vec::new();
    let mut endpoints = Vec::new();
    for (index, peer) in peers.iter().enumerate() {
        let class = class_of(index)?;
        networks.extend(peer.networks.iter().map(|network| (*network, class)));
        endpoints.push((IpNet::from(peer.endpoint), class));
    }
    let mut writer = BlockWriter::new();
    let destinations = Space::of(networks.iter().copied());
    // A record that is nobody's: no packet comes from the address 0 or has such a number.
    let nobody = class_of(peers.len())?;
    let own = own.iter().map(|network| (*network, nobody));
    let sources = Space::of(networks.into_iter().chain(endpoints).chain(own));
    writer.address_classes(
        (&sources.v4, &sources.v6),
        (&destinations.v4, &destinations.v6),
    )?;
    let records = peers.iter().map(RemotePeer::record);
    let nobody = Peer {
        accepted_vni: u32::MAX,
        ..Peer::default()
    };
    let records: Vec<Peer> = records.chain([nobody]).collect();
    let tunnel = Tunnel {
        peers: writer.append(records.as_bytes()),
        count: records.len() as u32,
        port: port.into(),
        padding: 0,
    };
    writer.put(TUNNEL, tunnel.as_bytes());
    let block = writer.finish()?;
    if block.length() > LIMIT {
        return Err(TooLarge::Block {
            bytes: block.length().into(),
            limit: LIMIT.into(),
        });
    }
    Ok(block)
}

/// Where in the addresses the class changes.
struct Space {
    v4: Vec<Boundary<u32>>,
    v6: Vec<Boundary<u128>>,
}

impl Space {
    fn of(networks: impl Iterator<Item = (IpNet, u16)>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (network, class) in networks {
            match network {
                IpNet::V4(net) => {
                    v4.push((net.network().to_bits(), net.broadcast().to_bits(), class));
                }
                IpNet::V6(net) => {
                    v6.push((net.network().to_bits(), net.broadcast().to_bits(), class));
                }
            }
        }
        Self {
            v4: boundaries(v4),
            v6: boundaries(v6),
        }
    }
}

/// Lays prefixes, which lie in one another or apart, on top of each other: the innermost shows.
fn boundaries<A: Address + Default>(mut prefixes: Vec<(A, A, u16)>) -> Vec<Boundary<A>> {
    prefixes.sort_by_key(|(first, last, _)| (*first, std::cmp::Reverse(*last)));
    prefixes.dedup_by_key(|(first, last, _)| (*first, *last));
    let mut found = vec![Boundary {
        start: A::default(),
        class: 0,
    }];
    let mut open: Vec<(A, u16)> = Vec::new();
    for (first, last, class) in prefixes {
        close(&mut open, &mut found, |end| end < first);
        show(&mut found, first, class);
        open.push((last, class));
    }
    close(&mut open, &mut found, |_| true);
    found
}

/// Ends the prefixes that end so: what lies around them shows again.
fn close<A: Address>(
    open: &mut Vec<(A, u16)>,
    found: &mut Vec<Boundary<A>>,
    ends: impl Fn(A) -> bool,
) {
    while let Some((last, _)) = open.pop_if(|(last, _)| ends(*last)) {
        let around = open.last().map_or(0, |(_, class)| *class);
        if let Some(behind) = last.behind() {
            show(found, behind, around);
        }
    }
}

/// From `start` on the class is this one; neighbours of one class are one range.
fn show<A: Address>(found: &mut Vec<Boundary<A>>, start: A, class: u16) {
    found.pop_if(|last| last.start == start);
    if found.last().is_none_or(|last| last.class != class) {
        found.push(Boundary { start, class });
    }
}

/// The endpoints that compile wants to know the ways to.
#[must_use]
pub fn endpoints(snapshot: &Snapshot, memory: &Memory, labels: &Labels) -> BTreeSet<IpAddr> {
    let peers = concerning(snapshot, memory, labels);
    peers.map(TunnelPeerSpec::endpoint_address).collect()
}

/// The networks of a node with these labels and addresses, as its own peers have them; none where there is no
/// other peer, and so no tunnel.
#[must_use]
pub fn own_networks(
    snapshot: &Snapshot,
    memory: &Memory,
    labels: &Labels,
    addresses: &BTreeSet<IpAddr>,
) -> BTreeSet<Prefix> {
    let is_own = |peer: &&TunnelPeerSpec| addresses.contains(&peer.endpoint_address());
    if concerning(snapshot, memory, labels).all(|peer| is_own(&peer)) {
        return BTreeSet::new();
    }
    concerning(snapshot, memory, labels)
        .filter(is_own)
        .flat_map(TunnelPeerSpec::networks)
        .map(|network| Prefix {
            address: network.network(),
            length: network.prefix_len(),
        })
        .collect()
}

/// Whether compile wants to know the node's pods, and what the stack does with packets for them.
#[must_use]
pub fn wants_direct(snapshot: &Snapshot, memory: &Memory, labels: &Labels) -> bool {
    let mut peers = concerning(snapshot, memory, labels);
    peers.any(TunnelPeerSpec::is_direct)
}

/// The peers that concern a node with these labels, and those that are in effect there.
fn concerning<'a>(
    snapshot: &'a Snapshot,
    memory: &'a Memory,
    labels: &'a Labels,
) -> impl Iterator<Item = &'a TunnelPeerSpec> {
    let submitted = snapshot.submitted.iter();
    let submitted = submitted.filter_map(|submitted| submitted.content.as_ref().ok());
    let in_effect = memory.last_good.values().map(|good| &good.content);
    let peers = submitted
        .chain(in_effect)
        .filter_map(|content| match content {
            Content::Peer(peer) => Some(&peer.spec),
            _ => None,
        });
    peers.filter(|peer| {
        let selector = peer.node_selector.as_ref();
        selector.is_none_or(|selector| selector.matches(labels))
    })
}
