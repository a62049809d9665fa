//! Services, compiled into the load balancer's tables; `headgate_layout::services` describes them.

mod lookup;
mod maglev;

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
use headgate_layout::services::{
    Backend, DIRECT_RETURN, LinkAddresses, MAX_SERVICES, NAT, SERVICES, Service, Services, Way,
    hash_of, hash_of_flow, port_and_protocol, ring_entry,
};
use zerocopy::IntoBytes as _;

use crate::{
    classifier::{BlockWriter, TooLarge},
    endpoints::{self, Endpoints, Member},
    inputs::Labels,
    memory::Memory,
    node::NextHop,
    snapshot::{Content, Snapshot},
};

/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;

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
    /// Backends of the address's family that get packets.
    pub backends: Vec<Member>,
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
    selected
        .flat_map(|(name, spec)| elsewhere(name, spec, endpoints, node))
        .collect()
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
    let key = port_and_protocol(service.port(), protocol(transport));
    let hash = hash_of(maglev::words(service.ip()), key);
    let flow = hash_of_flow(hash, maglev::words(client.ip()), client.port());
    let entry = ring_entry(flow, ring_size);
    let ring = maglev::ring(backends, ring_size);
    (entry, usize::from(ring[entry as usize]))
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

/// Writes the load balancer's part of a block; no two of `frontends` have the same address, protocol and
/// port.
///
/// # Errors
/// More than one block may hold.
pub fn write(
    frontends: &[Frontend],
    next_hops: &BTreeMap<IpAddr, NextHop>,
    rings: &mut Rings,
    writer: &mut BlockWriter,
) -> Result<(), TooLarge> {
    if frontends.is_empty() {
        return Ok(());
    }
    let mut written = Written {
        rings: BTreeMap::new(),
        backends: BTreeMap::new(),
        known: rings,
    };
    let mut services: Vec<Service> = Vec::with_capacity(frontends.len() * 2);
    for frontend in frontends {
        services.push(written.service(frontend, next_hops, writer)?);
    }
    let mut whole: BTreeMap<([u64; 2], u32), Service> = BTreeMap::new();
    for frontend in frontends {
        // Fragments carry no port: see `Reason::ServiceFragment`.
        let address = maglev::words(frontend.address);
        let port = port_and_protocol(0, frontend.protocol);
        let service = Service {
            address,
            port,
            ..Service::default()
        };
        whole.insert((address, port), service);
    }
    services.extend(whole.into_values());
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
        ..Services::default()
    };
    lookup.describe(&mut table);
    table.slots = writer.append(lookup.slots.as_bytes());
    table.displacements = writer.append(lookup.displacements.as_bytes());
    table.services = writer.append(services.as_bytes());
    writer.put(SERVICES, table.as_bytes());
    Ok(())
}

/// Backends with their weights.
type Weighted = Vec<(IpAddr, u16)>;

/// Rings that were reckoned before: a change of one service costs one ring. What they are depends on
/// nothing but their keys.
#[derive(Default)]
pub struct Rings {
    known: BTreeMap<(Weighted, u32), Arc<[u16]>>,
    used: BTreeSet<(Weighted, u32)>,
}

impl Rings {
    fn of(&mut self, backends: &Weighted, size: u32) -> Arc<[u16]> {
        let key = (backends.clone(), size);
        let ring = self.known.entry(key.clone());
        let ring = Arc::clone(ring.or_insert_with(|| maglev::ring(backends, size).into()));
        self.used.insert(key);
        ring
    }

    /// Forgets what was not asked for since the last time.
    pub fn forget_unused(&mut self) {
        let used = std::mem::take(&mut self.used);
        self.known.retain(|key, _| used.contains(key));
    }
}

/// Rings and backends written so far: ports of one service share them.
struct Written<'a> {
    rings: BTreeMap<(Weighted, u32), u32>,
    backends: BTreeMap<(Vec<Member>, u32), u32>,
    known: &'a mut Rings,
}

impl Written<'_> {
    fn service(
        &mut self,
        frontend: &Frontend,
        next_hops: &BTreeMap<IpAddr, NextHop>,
        writer: &mut BlockWriter,
    ) -> Result<Service, TooLarge> {
        let backends = &frontend.backends;
        let weighted: Weighted = backends.iter().map(|m| (m.address, m.weight)).collect();
        let key = (weighted.clone(), frontend.ring_size);
        let ring = *self.rings.entry(key).or_insert_with(|| {
            writer.append(self.known.of(&weighted, frontend.ring_size).as_bytes())
        });
        let key = (backends.clone(), frontend.counter);
        let listed = *self.backends.entry(key).or_insert_with(|| {
            let members = backends.iter();
            let ways = members.map(|member| backend(frontend, member, next_hops));
            writer.append(ways.collect::<Vec<_>>().as_bytes())
        });
        writer.fits()?;
        Ok(Service {
            address: maglev::words(frontend.address),
            port: port_and_protocol(frontend.port, frontend.protocol),
            ring,
            ring_size: if backends.is_empty() {
                0
            } else {
                frontend.ring_size
            },
            backends: listed,
            forwarding: number_of(frontend.forwarding),
            padding: 0,
        })
    }
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
    hop.filter(|hop| forwarding != Forwarding::Nat || hop.local.is_some())
}

fn backend(frontend: &Frontend, member: &Member, next_hops: &BTreeMap<IpAddr, NextHop>) -> Backend {
    let is_nat = frontend.forwarding == Forwarding::Nat;
    let hop = next_hop(frontend.forwarding, member.address, next_hops);
    let hop = hop.filter(|_| !member.here);
    let way = hop.map_or(Way::default(), |hop| Way {
        ifindex: hop.ifindex.0,
        mtu: u16::try_from(hop.mtu).unwrap_or(u16::MAX),
        reflecting: u16::from(hop.reflects),
        link: LinkAddresses::new(hop.destination, hop.source),
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
