//! The tunnel: its device, its programs and their tables, routes and neighbours.

mod classifiers;
mod device;
mod diverted;
mod pods;
mod programs;
mod routes;
mod seen;
mod stack;
mod tables;
mod underlay;

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use headgate_datapath::{
    kernel::KernelError,
    plan::Step,
    state::{Block, Digest, Ifindex},
    tunnel::{FoundDevice, ObservedTunnel},
};
use headgate_layout::{tunnel::Event, verdict::Count};

use crate::{blocks::BlockReader, bpf::Map, pins::Pins};

pub(crate) use self::diverted::Ways;
pub use self::underlay::{Underlay, underlays, vxlan_ports};
pub use self::{pods::reachable_directly, stack::stack_in_use};

/// What was found, and the map that holds the tables.
pub(crate) fn observe(
    pins: &Pins,
    blocks: &mut BlockReader,
    ways: &mut Ways,
) -> Result<(ObservedTunnel, Option<u32>), KernelError> {
    let device = device::find(pins)?;
    let maps = tables::open(pins)?;
    let table = match &maps {
        Some(maps) => tables::current(&maps.tables)?,
        None => None,
    };
    let mut observed = ObservedTunnel::default();
    if let Some(table) = &table {
        observed.tables = Some(blocks.read(table.id())?.digest);
    }
    if let Some(maps) = &maps {
        observed.pods = pods::read(&maps.pods)?;
    }
    if let Some(found) = &device {
        observed.device = Some(FoundDevice {
            device: found.device,
            is_up: found.is_up,
        });
        observed.neighbours = routes::neighbours(found.ifindex)?;
        observed.routes = routes::routes(found.ifindex)?;
        if found.is_up {
            observed.diverted = ways.diverted(found.ifindex, &observed.routes)?;
        }
        if let Some(maps) = &maps {
            observed.programs = programs::attached(pins, found.ifindex, maps.tables.id())?;
        }
    }
    Ok((observed, table.as_ref().map(Map::id)))
}

/// Carries out a step that concerns the tunnel; `by_clsact` as in [`programs::attach`].
pub(crate) fn apply(
    pins: &Pins,
    by_clsact: bool,
    reader: &mut BlockReader,
    step: &Step,
    blocks: &BTreeMap<Digest, Block>,
) -> Result<(), KernelError> {
    match step {
        Step::LowerTunnel => device::lower(pins),
        Step::MakeTunnelDevice(device) => device::make(pins, device),
        Step::WriteTunnel(digest) => tables::write(pins, reader, *digest, blocks),
        Step::AttachTunnel => programs::attach(pins, required(pins)?, by_clsact),
        Step::SetTunnelPods { pods, gone } => pods::set(&tables::prepare(pins)?.pods, pods, gone),
        Step::RaiseTunnel => device::raise(pins),
        Step::SetTunnelRoutes { neighbours, routes } => {
            routes::set(required(pins)?, neighbours, routes)
        }
        Step::RemoveTunnelRoutes { routes, neighbours } => {
            routes::remove(required(pins)?, routes, neighbours)
        }
        _ => remove(pins),
    }
}

/// The number of our device.
fn required(pins: &Pins) -> Result<Ifindex, KernelError> {
    Ok(device::required(pins)?.ifindex)
}

/// Takes everything away but the counters. The device goes before the programs: without them it would send
/// what it is not to send.
pub(crate) fn remove(pins: &Pins) -> Result<(), KernelError> {
    device::remove(pins)?;
    programs::detach(pins)?;
    tables::remove(pins)
}

/// Whether anything is pinned for the tunnel.
pub(crate) fn is_pinned(pins: &Pins) -> Result<bool, KernelError> {
    Ok(!pins.tunnels()?.is_empty() || !pins.classifiers()?.is_empty())
}

/// How long ago a packet came from each endpoint, as far as one did.
pub(crate) fn seen(pins: &Pins) -> Result<BTreeMap<IpAddr, Duration>, KernelError> {
    match tables::open(pins)? {
        Some(maps) => seen::ages(&maps),
        None => Ok(BTreeMap::new()),
    }
}

/// Packets and bytes by what became of them; empty where there never was a tunnel.
pub(crate) fn counters(pins: &Pins) -> Result<BTreeMap<Event, Count>, KernelError> {
    let Some(maps) = tables::open(pins)? else {
        return Ok(BTreeMap::new());
    };
    let indices = Event::ALL.iter().map(|event| *event as u32).collect();
    let counts = crate::counters::read(&maps.counters, &indices)?;
    let of = |event: &Event| Some((*event, *counts.get(&(*event as u32))?));
    Ok(Event::ALL.iter().filter_map(of).collect())
}
