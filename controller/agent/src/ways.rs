//! Ways to backends, as the node's kernel knows them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    thread,
    time::Duration,
};

use headgate_compile::node::NextHop;
use headgate_datapath::kernel::KernelError;
use headgate_kernel::next_hops::{self, Neighbour, Probing};

/// What neighbours get to answer before an agent that has just started takes them for silent: what they
/// were to the agent before is not known.
const ANSWER: Duration = Duration::from_millis(50);
const ANSWERS: u32 = 10;

/// Ways, and whose answers they hang on.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    pub(crate) next_hops: BTreeMap<IpAddr, NextHop>,
    pub(crate) here: BTreeSet<IpAddr>,
    /// The addresses themselves, or the gateways to them.
    pub(crate) neighbours: BTreeMap<IpAddr, Neighbour>,
    is_known: bool,
}

/// The ways to `addresses` as they are, and those of them that are of this very node; nobody is asked.
///
/// # Errors
/// The kernel tells nothing of interfaces or neighbours.
pub fn look(addresses: &BTreeSet<IpAddr>) -> Result<Looked, KernelError> {
    let ways = next_hops::ways(addresses, Probing::LookOnly)?;
    let hops = ways.hops.into_iter();
    let known = hops.filter_map(|(address, way)| Some((address, known(&way)?)));
    Ok((known.collect(), ways.here))
}

/// Next hops, and the addresses of this node's containers and virtual machines.
pub type Looked = (BTreeMap<IpAddr, NextHop>, BTreeSet<IpAddr>);

impl Ways {
    /// Reads the ways to `addresses`, and has the kernel ask whom it has not heard of lately. A neighbour
    /// of which nothing is known just now is where it was; one that does not answer is nowhere.
    ///
    /// # Errors
    /// As for [`look`].
    pub(crate) fn follow(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<(), KernelError> {
        let mut ways = next_hops::ways(addresses, Probing::Ask)?;
        let is_unknown =
            |way: &next_hops::NextHop| !way.overlay && way.destination == Neighbour::Unknown;
        for _ in 0..ANSWERS {
            if self.is_known || !ways.hops.values().any(is_unknown) {
                break;
            }
            thread::sleep(ANSWER);
            ways = next_hops::ways(addresses, Probing::LookOnly)?;
        }
        self.is_known |= !addresses.is_empty();
        let hop = |(address, way): (&IpAddr, &next_hops::NextHop)| {
            let former = self.next_hops.get(address);
            let stays = former.filter(|hop| is_unknown(way) && hop.ifindex == way.ifindex);
            Some((*address, known(way).or(stays.copied())?))
        };
        let hops = ways.hops.iter().filter_map(hop).collect();
        self.next_hops = hops;
        self.here = ways.here;
        self.neighbours = ways
            .hops
            .values()
            .filter(|way| !way.overlay)
            .map(|way| (way.neighbour, way.destination))
            .collect();
        Ok(())
    }
}

fn known(way: &next_hops::NextHop) -> Option<NextHop> {
    let destination = match way.destination {
        Neighbour::At(destination) => destination,
        // The kernel finds it by itself.
        _ if way.overlay => [0; 6],
        _ => return None,
    };
    Some(NextHop {
        ifindex: way.ifindex,
        mtu: way.mtu,
        reflects: way.reflects,
        destination,
        source: way.source,
        local: way.local,
        overlay: way.overlay,
    })
}
