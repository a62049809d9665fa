//! Where pods are, for direct delivery.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
};

use headgate_datapath::{
    kernel::KernelError,
    pods::{Neighbourhood, Place, Way},
    state::Ifindex,
    tunnel::{LocalPod, MacAddress, Pods},
};
use headgate_layout::tunnel::{MAX_PODS, Pod};
use netlink_packet_route::link::LinkAttribute;
use zerocopy::{FromBytes, IntoBytes};

use crate::{
    bpf::Map,
    clsact,
    error::{Asked, absent},
    netlink::{Conversation, links},
    next_hops,
    pins::Side,
    pods::{AttachedProgram, neighbourhood, programs},
};

/// A pod, and the interface that the node's route to it leads to: its own, or a bridge.
struct Candidate {
    pod: LocalPod,
    by: Ifindex,
}

/// Pods behind veth pairs of this node that packets can be given to without the node's stack: their places and
/// link-layer addresses are known, the node's routes lead there, and nothing on the way acts on what goes to them, at the
/// node's end of the pair or at the bridge before it, neither programs nor filters of `tc` nor a queueing discipline.
///
/// # Errors
/// Where the kernel does not answer.
pub fn reachable_directly() -> Result<Pods, KernelError> {
    let around = neighbourhood()?;
    let known = headgate_datapath::pods::pods(&around).into_iter();
    let known: BTreeMap<IpAddr, Candidate> = known
        .filter_map(|(address, place)| Some((address, candidate(&around, &place.ok()?)?)))
        .collect();
    let on_the_way = known
        .values()
        .flat_map(|known| [known.pod.ifindex, known.by]);
    let interfaces: BTreeMap<Ifindex, String> = on_the_way
        .filter_map(|ifindex| Some((ifindex, around.links.get(&ifindex)?.name.clone())))
        .collect();
    let acting = programs(&interfaces)?;
    let mut shaped = shaped()?;
    for (ifindex, name) in &interfaces {
        let filters = clsact::has_filters(*ifindex, Side::Out);
        if filters.asked(|| format!("reading the classifiers of {name} by netlink"))? {
            shaped.insert(*ifindex);
        }
    }
    let is_free = |ifindex: &Ifindex| {
        let mut programs = acting.get(ifindex).into_iter().flatten();
        !shaped.contains(ifindex) && !programs.any(AttachedProgram::is_at_egress)
    };
    let mut conversation = Conversation::open().asked(|| "opening netlink".to_owned())?;
    let mut leads_there = |address: IpAddr, by: Ifindex| {
        // Also where that is by a gateway, or forbidden.
        let route = next_hops::route(&mut conversation, address);
        route.is_some_and(|route| route.ifindex == by && route.neighbour == address)
    };
    let local = known.into_iter().filter(|(address, known)| {
        is_free(&known.pod.ifindex) && is_free(&known.by) && leads_there(*address, known.by)
    });
    let local = local.map(|(address, known)| (address, known.pod));
    Ok(local.take(MAX_PODS as usize).collect())
}

fn candidate(around: &Neighbourhood, place: &Place) -> Option<Candidate> {
    let by = match &place.way {
        Way::PointToPoint => place.ifindex,
        Way::Bridge(name) => {
            let mut links = around.links.iter();
            *links.find(|(_, link)| link.name == *name)?.0
        }
    };
    let pod = LocalPod {
        ifindex: place.ifindex,
        mac: place.mac?,
    };
    Some(Candidate { pod, by })
}

/// Interfaces with a queueing discipline of somebody's: virtual ones have none by themselves.
fn shaped() -> Result<BTreeSet<Ifindex>, KernelError> {
    let shaped = links()?.into_iter().filter_map(|link| {
        let mut attributes = link.attributes.iter();
        let qdisc = attributes.find_map(|attribute| match attribute {
            LinkAttribute::Qdisc(name) => Some(name.as_str()),
            _ => None,
        });
        let has_none = matches!(qdisc, None | Some("noqueue" | "noop"));
        (!has_none).then_some(Ifindex(link.header.index))
    });
    Ok(shaped.collect())
}

/// All that programs know.
pub(super) fn read(map: &Map) -> Result<Pods, KernelError> {
    let asked = || "reading where pods are".to_owned();
    let mut found = Pods::new();
    let mut last: Option<Vec<u8>> = None;
    while let Some(key) = map.next_key(last.as_deref()).asked(asked)? {
        let shape = "the map was checked to be of its shape";
        let address = <[u64; 2]>::read_from_bytes(&key).expect(shape);
        let value = map.lookup(&key).asked(asked)?;
        let pod = Pod::read_from_bytes(&value).expect(shape);
        let local = LocalPod {
            ifindex: Ifindex(pod.ifindex),
            mac: MacAddress(pod.mac),
        };
        found.insert(address_of(address), local);
        last = Some(key);
    }
    Ok(found)
}

/// Forgets `gone`, then writes `pods`.
pub(super) fn set(map: &Map, pods: &Pods, gone: &BTreeSet<IpAddr>) -> Result<(), KernelError> {
    for address in gone {
        match map.delete(key_of(*address).as_bytes()) {
            Err(error) if !absent(&error) => {
                return Err(error).asked(|| format!("forgetting where the pod {address} is"));
            }
            _ => {}
        }
    }
    for (address, local) in pods {
        let pod = Pod {
            ifindex: local.ifindex.0,
            mac: local.mac.0,
            padding: 0,
        };
        map.update(key_of(*address).as_bytes(), pod.as_bytes())
            .asked(|| format!("writing where the pod {address} is"))?;
    }
    Ok(())
}

/// In host order; IPv4 as IPv4-mapped IPv6.
fn key_of(address: IpAddr) -> [u64; 2] {
    let bits = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    [(bits >> 64) as u64, bits as u64]
}

fn address_of([upper, lower]: [u64; 2]) -> IpAddr {
    let bits = u128::from(upper) << 64 | u128::from(lower);
    Ipv6Addr::from_bits(bits).to_canonical()
}
