//! The two programs at the device: by TCX, and by clsact on kernels that have no TCX.

use std::collections::BTreeSet;

use headgate_datapath::{
    kernel::KernelError,
    state::{Digest, Ifindex},
    tunnel::DEVICE,
};

use crate::{
    bpf::{Link, Place, Program, has_tcx},
    error::{Asked, if_present},
    layouts::links_at,
    object::{load_tunnel, object_digest},
    pins::{Pins, Side, TUNNEL_LINKS},
    tcx::{put, remove},
};

use super::{classifiers, tables};

/// Puts the present programs at both sides of the device; one that is there already is replaced, so that packets
/// meet the former or this one. The way in first: nothing is sent that could not be answered. `by_clsact` has
/// it done as where there is no TCX.
pub(super) fn attach(pins: &Pins, ifindex: Ifindex, by_clsact: bool) -> Result<(), KernelError> {
    tables::prepare(pins)?;
    let by_clsact =
        by_clsact || !has_tcx(ifindex).asked(|| format!("looking for programs at {DEVICE}"))?;
    for (side, program) in [Side::In, Side::Out].into_iter().zip(load_tunnel(pins)?) {
        if by_clsact {
            classifiers::put(pins, side, &program, ifindex)?;
            continue;
        }
        let formers = pinned(pins, side)?.into_iter();
        let formers = formers.map(|object| pins.tunnel(side, object));
        let others = links_at(pins, TUNNEL_LINKS, &format!("{side}-"), ifindex)?;
        let formers: Vec<_> = formers.chain(others).collect();
        let path = pins.tunnel(side, object_digest());
        // In front of what sends packets on that nobody has judged yet: `crate::overlay`.
        let place = (ifindex, side, Place::First);
        put(&program, place, &formers, &path, || {
            format!("attaching to {DEVICE}, {side}")
        })?;
    }
    Ok(())
}

/// Takes both programs off.
pub(super) fn detach(pins: &Pins) -> Result<(), KernelError> {
    for side in [Side::Out, Side::In] {
        let asked = || format!("detaching from {DEVICE}, {side}");
        for object in pinned(pins, side)? {
            remove(&pins.tunnel(side, object), asked)?;
        }
    }
    classifiers::detach(pins)
}

fn pinned(pins: &Pins, side: Side) -> Result<Vec<Digest>, KernelError> {
    let all = pins.tunnels()?.into_iter();
    let of_side = all.filter(|(pinned, _)| *pinned == side);
    Ok(of_side.map(|(_, object)| object).collect())
}

/// The object that both programs are from, where both are at the device and read the pinned tables.
pub(super) fn attached(
    pins: &Pins,
    device: Ifindex,
    tables: u32,
) -> Result<Option<Digest>, KernelError> {
    let mut found = by_tcx(pins, device)?;
    found.extend(classifiers::found(pins, device)?);
    let mut sides = BTreeSet::new();
    let mut objects = BTreeSet::new();
    for (side, object, program) in found {
        let maps = Program::by_id(program).and_then(|program| program.map_ids());
        let maps = maps.asked(|| format!("reading the program at {DEVICE}, {side}"))?;
        if maps.contains(&tables) {
            sides.insert(side);
            objects.insert(object);
        }
    }
    let is_whole = sides.len() == 2 && objects.len() == 1;
    Ok(objects.into_iter().next().filter(|_| is_whole))
}

/// Programs behind our links at the device: their sides, objects and numbers.
fn by_tcx(pins: &Pins, device: Ifindex) -> Result<Vec<(Side, Digest, u32)>, KernelError> {
    let mut found = Vec::new();
    for (side, object) in pins.tunnels()? {
        let asked = || format!("reading the link at {DEVICE}, {side}");
        let link = Link::pinned(&pins.tunnel(side, object));
        let Some(link) = if_present(link).asked(asked)? else {
            continue;
        };
        let info = link.info().asked(asked)?;
        if info.ifindex == Some(device) {
            found.push((side, object, info.program_id));
        }
    }
    Ok(found)
}
