//! Services, compiled into the load balancer's tables; `headgate_layout::services` describes them.

mod lookup;
mod maglev;
mod rings;
mod settling;
pub mod sources;

pub(crate) use maglev::words;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use headgate_crds::{
    AddressPoolSpec, Forwarding, Kind, LoadBalancerServiceSpec, ServicePort, ServiceProtocol,
    parse_cidr,
};
use headgate_layout::{
    services::{
        Backend, DIRECT_RETURN, ICMP, LinkAddresses, MAX_SERVICES, NAT, SERVICES, SETTLING,
        Service, Services, Way, hash_of, hash_of_flow, port_and_protocol, ring_entry,
    },
    settling::Choice,
};
use zerocopy::IntoBytes as _;

use crate::{
    classifier::{BlockWriter, TooLarge},
    endpoints::{self, Endpoints, Member},
    inputs::Labels,
    memory::Memory,
    node::{Interface, InterfaceKind, NextHop},
    snapshot::{Content, Snapshot},
};

pub use rings::Rings;
use rings::{Drawn, Weighted};
use settling::Settling;
pub use settling::{Histories, History};

/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;
const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_ICMPV6: u8 = 58;

/// One address and port of a service, with everything looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// The address.
    pub address: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// The port.
    pub port: u16,
    /// Index of its counter.
    pub counter: u32,
    /// Entries of its ring.
    pub ring_size: u32,
    /// How packets get to backends.
    pub forwarding: Forwarding,
    /// Whether senders are told where there is no backend.
    pub rejects: bool,
    /// Backends of the address's family that get packets.
    pub backends: Vec<Member>,
    /// What it settles from, if it may.
    pub history: Option<Arc<History>>,
}

impl Frontend {
    /// What it settles from; `None` at rest, and for datagrams, which have no connections to keep.
    pub(crate) fn settling(&self) -> Option<&Arc<History>> {
        let history = self.history.as_ref().filter(|_| self.protocol == TCP)?;
        history.settles_at().map(|_| history)
    }

    fn weighted(&self) -> Weighted {
        let members = self.backends.iter();
        members.map(|m| (m.address, m.weight)).collect()
    }

    /// As [`Service::port`].
    fn key(&self) -> u32 {
        port_and_protocol(self.port, self.protocol)
    }

    fn hash(&self) -> u64 {
        hash_of(maglev::words(self.address), self.key())
    }
}

/// The Service that a service takes its backends from, as `NAMESPACE/NAME`.
#[must_use]
pub fn referred(name: &str, spec: &LoadBalancerServiceSpec) -> Option<String> {
    let reference = spec.backends.service_ref.as_ref()?;
    let namespace = Kind::split_name(name).0.unwrap_or_default();
    Some(format!("{namespace}/{}", reference.name))
}

/// The backends of one port of the service `name`, of both families, for the node `node`.
#[must_use]
pub fn members(
    name: &str,
    spec: &LoadBalancerServiceSpec,
    port: &ServicePort,
    endpoints: &Endpoints,
    node: &str,
) -> Vec<Member> {
    if let Some(service) = referred(name, spec) {
        let slices = endpoints.get(&service).map_or(&[][..], Vec::as_slice);
        return endpoints::members(slices, port, spec.external_traffic_policy, node);
    }
    let fixed = spec.weighted_backends().map(|(address, weight)| Member {
        address,
        port: port.target_port.unwrap_or(port.port),
        weight,
        here: false,
    });
    fixed.collect()
}

/// Addresses of a service's backends on other hosts.
pub(crate) fn elsewhere(
    name: &str,
    spec: &LoadBalancerServiceSpec,
    endpoints: &Endpoints,
    node: &str,
) -> BTreeSet<IpAddr> {
    let ports = spec.ports.iter();
    let members = ports.flat_map(|port| members(name, spec, port, endpoints, node));
    let others = members.filter(|member| !member.here);
    others.map(|member| member.address).collect()
}

/// The backends whose next hops compile wants to know: of the services that concern a node of this name with
/// these labels and are in effect there, or whose every address a pool admits. Who may not serve must not
/// make nodes ask for neighbours.
#[must_use]
pub fn backends(
    snapshot: &Snapshot,
    memory: &Memory,
    node: &str,
    labels: &Labels,
) -> BTreeSet<IpAddr> {
    let endpoints = snapshot.endpoints.as_ref().unwrap_or(&memory.endpoints);
    let submitted = || {
        let all = snapshot.submitted.iter();
        all.filter_map(|s| Some((s.name.name.as_str(), s.content.as_ref().ok()?)))
    };
    let is_admitted = |name: &str, address| {
        submitted().any(|(_, content)| match content {
            Content::Pool(pool) => admits(pool, name, address),
            _ => false,
        })
    };
    let admitted = submitted().filter(|(name, content)| match content {
        Content::Service(service) => {
            let mut addresses = service.spec.parsed_addresses();
            addresses.all(|address| is_admitted(name, address))
        }
        _ => false,
    });
    let in_effect = memory.last_good.values();
    let in_effect = in_effect.map(|good| (good.name.name.as_str(), &good.content));
    let services = admitted
        .chain(in_effect)
        .filter_map(|(name, content)| match content {
            Content::Service(service) => Some((name, &service.spec)),
            _ => None,
        });
    let selects = |(_, spec): &(&str, &LoadBalancerServiceSpec)| {
        let selector = spec.node_selector.as_ref();
        selector.is_none_or(|selector| selector.matches(labels))
    };
    let selected = services.filter(selects);
    let all = selected.flat_map(|(name, spec)| {
        let keeps = spec.forwarding == Forwarding::DirectReturn;
        let drained = spec.living_backends().filter(move |_| keeps);
        let drained = drained.map(|(address, _)| address);
        elsewhere(name, spec, endpoints, node)
            .into_iter()
            .chain(drained)
    });
    all.collect()
}

/// Where in the ring a flow falls, and the place of its backend in the list, as the programs find it.
///
/// # Panics
/// Where there are no backends.
#[must_use]
pub fn place_of(
    client: SocketAddr,
    service: SocketAddr,
    transport: ServiceProtocol,
    backends: &[(IpAddr, u16)],
    ring_size: u32,
) -> (u32, usize) {
    let entry = entry_of(client, service, transport, ring_size);
    let ring = maglev::ring(backends, ring_size);
    (entry, usize::from(ring[entry as usize]))
}

fn entry_of(
    client: SocketAddr,
    service: SocketAddr,
    transport: ServiceProtocol,
    ring_size: u32,
) -> u32 {
    let key = port_and_protocol(service.port(), protocol(transport));
    let hash = hash_of(maglev::words(service.ip()), key);
    let flow = hash_of_flow(hash, maglev::words(client.ip()), client.port());
    ring_entry(flow, ring_size)
}

/// The backend of a connection that began before the changes that a service settles from, where it is another
/// than that of a new one.
#[must_use]
pub fn former_place_of(
    client: SocketAddr,
    service: SocketAddr,
    history: &History,
) -> Option<IpAddr> {
    let settling = history.settle(service.is_ipv4(), &mut Rings::default())?;
    let size = settling.ring.len() as u32;
    let entry = entry_of(client, service, ServiceProtocol::Tcp, size);
    let (new, former) = settling.at(entry)?;
    (new != former).then_some(former)
}

/// What a service takes for itself: address, protocol and port.
pub type Claim = (IpAddr, u8, u16);

/// All that a service takes.
pub fn claims(spec: &LoadBalancerServiceSpec) -> impl Iterator<Item = Claim> {
    let addresses = spec.parsed_addresses();
    addresses.flat_map(|address| {
        let ports = spec.ports.iter();
        ports.map(move |port| (address, protocol(port.protocol), port.port))
    })
}

/// IP protocol number.
pub(crate) fn protocol(protocol: ServiceProtocol) -> u8 {
    match protocol {
        ServiceProtocol::Tcp => TCP,
        ServiceProtocol::Udp => UDP,
    }
}

/// Whether `pool` admits the service `name`, given as `NAMESPACE/NAME`, to `address`.
#[must_use]
pub fn admits(pool: &AddressPoolSpec, name: &str, address: IpAddr) -> bool {
    let namespace = Kind::split_name(name).0.unwrap_or_default();
    // The check that let the pool in has parsed every one of them.
    let mut ranges = pool.cidrs.iter().filter_map(|cidr| parse_cidr(cidr).ok());
    pool.admits(namespace) && ranges.any(|range| range.contains(&address))
}

/// The interface that frames for services arrive by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrival {
    /// Bytes of an IP packet that it takes.
    pub mtu: u32,
    /// Whether `XDP_TX` reaches its far end.
    pub reflects: bool,
}

impl Arrival {
    /// By this interface.
    #[must_use]
    pub fn by(interface: &Interface) -> Self {
        Self {
            mtu: interface.mtu,
            reflects: interface.kind != InterfaceKind::Veth,
        }
    }
}

/// Writes the load balancer's part of a block; no two of `frontends` have the same address, protocol and
/// port.
///
/// # Errors
/// More than one block may hold.
pub fn write(
    frontends: &[Frontend],
    arrival: Arrival,
    next_hops: &BTreeMap<IpAddr, NextHop>,
    known: &mut Rings,
    writer: &mut BlockWriter,
) -> Result<(), TooLarge> {
    if frontends.is_empty() {
        return Ok(());
    }
    let drawn = rings::draw(frontends, known);
    let drawn_for = frontends.iter().zip(&drawn);
    let rings = drawn_for.map(|(frontend, drawn)| (&drawn.ring, frontend.hash()));
    let places = rings::lay(rings, known, writer)?;
    let mut written = Written {
        backends: BTreeMap::new(),
        next_hops,
        writer,
    };
    let mut services: Vec<Service> = Vec::with_capacity(frontends.len() * 2);
    for ((frontend, drawn), ring) in frontends.iter().zip(&drawn).zip(places) {
        services.push(written.service(frontend, drawn, ring)?);
    }
    services.extend(whole_protocols(frontends));
    let limit = MAX_SERVICES as usize;
    if services.len() > limit {
        let of = "addresses and ports of services";
        return Err(TooLarge::Classes { of, limit });
    }
    let hashes: Vec<u64> = services
        .iter()
        .map(|s| hash_of(s.address, s.port))
        .collect();
    let lookup = lookup::build(&hashes).ok_or(TooLarge::Collision)?;
    let translates = frontends.iter().any(|f| f.forwarding == Forwarding::Nat);
    let mut table = Services {
        count: services.len() as u32,
        translates: u32::from(translates),
        mtu: mtu_of(arrival.mtu).into(),
        reflecting: arrival.reflects.into(),
        ..Services::default()
    };
    lookup.describe(&mut table);
    table.slots = writer.append(lookup.slots.as_bytes());
    table.displacements = writer.append(lookup.displacements.as_bytes());
    table.services = writer.append(services.as_bytes());
    let digests = writer.ring_blocks().iter().map(|b| b.digest().bytes());
    let digests: Vec<[u8; 32]> = digests.collect();
    table.ring_block_count = digests.len() as u32;
    table.ring_blocks = writer.append(digests.as_bytes());
    writer.put(SERVICES, table.as_bytes());
    Ok(())
}

/// What stands for an address and a protocol as a whole: fragments, which carry no port, find their reason
/// there, and ICMP messages their subject.
fn whole_protocols(frontends: &[Frontend]) -> impl Iterator<Item = Service> {
    let mut whole: BTreeMap<([u64; 2], u32), u32> = BTreeMap::new();
    for frontend in frontends {
        let address = maglev::words(frontend.address);
        let icmp = match frontend.address {
            IpAddr::V4(_) => PROTOCOL_ICMP,
            IpAddr::V6(_) => PROTOCOL_ICMPV6,
        };
        whole.insert(
            (address, port_and_protocol(0, frontend.protocol)),
            DIRECT_RETURN,
        );
        whole.insert((address, port_and_protocol(0, icmp)), ICMP);
    }
    whole
        .into_iter()
        .map(|((address, port), forwarding)| Service {
            address,
            port,
            forwarding,
            ..Service::default()
        })
}

/// An MTU as tables hold it.
fn mtu_of(bytes: u32) -> u16 {
    u16::try_from(bytes).unwrap_or(u16::MAX)
}

/// Services and backends written so far: ports of one service share them.
struct Written<'a> {
    backends: BTreeMap<(&'a [Member], u32), u32>,
    next_hops: &'a BTreeMap<IpAddr, NextHop>,
    writer: &'a mut BlockWriter,
}

impl<'a> Written<'a> {
    fn service(
        &mut self,
        frontend: &'a Frontend,
        drawn: &Drawn,
        ring: u32,
    ) -> Result<Service, TooLarge> {
        let members = &frontend.backends;
        let backends = match &drawn.settling {
            Some(settling) => choices(frontend, settling, self.next_hops, self.writer),
            None => {
                let known = self.backends.entry((members, frontend.counter));
                *known.or_insert_with(|| {
                    let ways = members
                        .iter()
                        .map(|member| backend(frontend, member, self.next_hops));
                    self.writer.append(ways.collect::<Vec<_>>().as_bytes())
                })
            }
        };
        self.writer.fits()?;
        let has_none = drawn.settling.is_none() && members.is_empty();
        Ok(Service {
            address: maglev::words(frontend.address),
            port: frontend.key(),
            ring,
            ring_size: if has_none { 0 } else { frontend.ring_size },
            backends,
            forwarding: number_of(frontend.forwarding),
            rejects: frontend.rejects.into(),
        })
    }
}

/// Writes the backends of a port that settles, with the choices behind them.
fn choices(
    frontend: &Frontend,
    settling: &Settling,
    next_hops: &BTreeMap<IpAddr, NextHop>,
    writer: &mut BlockWriter,
) -> u32 {
    let backends = settling.listed.iter().map(|listed| {
        listed.map_or(Backend::default(), |(address, weight)| {
            let member = Member {
                address,
                port: frontend.port,
                weight,
                here: false,
            };
            backend(frontend, &member, next_hops)
        })
    });
    let backends: Vec<Backend> = backends.collect();
    let choices = settling.choices.iter().enumerate().map(|(number, choice)| {
        let [new, former] = choice.map(u32::from);
        let place = backends.len() + number;
        Choice {
            distance: (place * size_of::<Backend>()) as u32,
            count: backends.len() as u32,
            new,
            former,
            epoch: frontend.history.as_ref().map_or(0, |h| h.epoch().into()),
            forwarding: SETTLING,
            ..Choice::default()
        }
    });
    let choices: Vec<Choice> = choices.collect();
    writer.append(&[backends.as_bytes(), choices.as_bytes()].concat())
}

fn number_of(forwarding: Forwarding) -> u32 {
    match forwarding {
        Forwarding::Nat => NAT,
        Forwarding::DirectReturn => DIRECT_RETURN,
    }
}

/// The way to a backend. Without an address of its own on that way the node cannot speak for clients.
pub(crate) fn next_hop(
    forwarding: Forwarding,
    backend: IpAddr,
    next_hops: &BTreeMap<IpAddr, NextHop>,
) -> Option<&NextHop> {
    let hop = next_hops.get(&backend);
    // Who keeps the client's address must give the frame its next hop's, which is the overlay's to find.
    let hop = hop.filter(|hop| forwarding == Forwarding::Nat || !hop.overlay);
    hop.filter(|hop| forwarding != Forwarding::Nat || hop.local.is_some())
}

fn backend(frontend: &Frontend, member: &Member, next_hops: &BTreeMap<IpAddr, NextHop>) -> Backend {
    let is_nat = frontend.forwarding == Forwarding::Nat;
    let hop = next_hop(frontend.forwarding, member.address, next_hops);
    let hop = hop.filter(|_| !member.here);
    let way = hop.map_or(Way::default(), |hop| match hop.overlay {
        true => Way::over(hop.ifindex.0, mtu_of(hop.mtu)),
        false => Way {
            ifindex: hop.ifindex.0,
            mtu: mtu_of(hop.mtu),
            reflecting: u16::from(hop.reflects),
            link: LinkAddresses::new(hop.destination, hop.source),
        },
    });
    let way = if member.here { Way::TO_STACK } else { way };
    let local = hop.and_then(|hop| hop.local).filter(|_| is_nat);
    Backend {
        way,
        counter: frontend.counter,
        address: maglev::words(member.address),
        local: local.map_or([0; 2], maglev::words),
        port: member.port.into(),
        forwarding: number_of(frontend.forwarding),
    }
}
