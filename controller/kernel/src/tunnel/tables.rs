//! The maps of the tunnel's programs.

use std::{collections::BTreeMap, io};

use headgate_datapath::{
    kernel::KernelError,
    state::{Block, Capacity, Digest},
    tunnel::Pods,
};
use headgate_layout::{maps, tunnel::CAPACITY};

use super::{pods, seen};
use crate::{
    blocks::{self, BlockReader},
    bpf::Map,
    error::{Asked, absent, if_present},
    pins::Pins,
    shared::Shared,
};

/// The pinned maps.
pub(super) struct Maps {
    pub(super) tables: Map,
    pub(super) counters: Map,
    pub(super) seen: Map,
    pub(super) pods: Map,
}

/// The pinned maps, or `None` where one is missing.
pub(super) fn open(pins: &Pins) -> Result<Option<Maps>, KernelError> {
    let mut found = Vec::new();
    for spec in &maps::TUNNEL_MAPS {
        let path = pins.map(spec.name);
        let asked = || format!("opening the map {}", path.display());
        let Some(map) = if_present(Map::pinned(&path)).asked(asked)? else {
            return Ok(None);
        };
        if !map.is(spec) {
            return Err(Shared::other_shape(&path));
        }
        found.push(map);
    }
    let [tables, counters, seen, pods] = found.try_into().expect("one map for each of TUNNEL_MAPS");
    Ok(Some(Maps {
        tables,
        counters,
        seen,
        pods,
    }))
}

/// The pinned maps, made where they are missing.
pub(super) fn prepare(pins: &Pins) -> Result<Maps, KernelError> {
    pins.make()?;
    for spec in &maps::TUNNEL_MAPS {
        let path = pins.map(spec.name);
        let asked = || format!("making and pinning the map {}", path.display());
        if if_present(Map::pinned(&path)).asked(asked)?.is_some() {
            continue;
        }
        let template = match spec.kind {
            maps::MapType::ArrayOfMaps => Some(blocks::create(Capacity(CAPACITY), "hg_template")?),
            _ => None,
        };
        let map = Map::create(spec, spec.name, template.as_ref()).asked(asked)?;
        map.pin(&path).asked(asked)?;
    }
    let missing = || KernelError::Call {
        what: "opening the tunnel's maps".to_owned(),
        source: io::ErrorKind::NotFound.into(),
    };
    open(pins)?.ok_or_else(missing)
}

/// The tables that programs read.
pub(super) fn current(outer: &Map) -> Result<Option<Map>, KernelError> {
    let asked = || "reading the tunnel's tables".to_owned();
    let Some(value) = if_present(outer.lookup(&0_u32.to_ne_bytes())).asked(asked)? else {
        return Ok(None);
    };
    let id = value
        .try_into()
        .expect("the map was checked to be of its shape");
    Map::by_id(u32::from_ne_bytes(id)).map(Some).asked(asked)
}

/// One step for packets: a program has read the former tables or reads these.
pub(super) fn write(
    pins: &Pins,
    reader: &mut BlockReader,
    digest: Digest,
    blocks: &BTreeMap<Digest, Block>,
) -> Result<(), KernelError> {
    let what = || format!("writing the tunnel's tables {}", digest.short());
    let block = blocks.get(&digest).ok_or_else(|| KernelError::Call {
        what: what(),
        source: io::Error::other("there is no such content in what is wanted"),
    })?;
    let maps = prepare(pins)?;
    let built = reader.build(digest, Capacity(CAPACITY), block.bytes())?;
    let before = seen::words(&maps)?;
    maps.tables.update_map(0, &built).asked(what)?;
    // The kernel has waited for the programs that read the former tables, and so the former places.
    seen::put(&maps, block.bytes(), &before)
}

/// Forgets the tables, and where pods are.
pub(super) fn remove(pins: &Pins) -> Result<(), KernelError> {
    let Some(maps) = open(pins)? else {
        return Ok(());
    };
    let known = pods::read(&maps.pods)?;
    pods::set(&maps.pods, &Pods::new(), &known.into_keys().collect())?;
    match maps.tables.delete(&0_u32.to_ne_bytes()) {
        Err(error) if !absent(&error) => {
            Err(error).asked(|| "removing the tunnel's tables".to_owned())
        }
        _ => Ok(()),
    }
}
