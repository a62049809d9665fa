//! The two programs at the device, by TCX.

use std::collections::BTreeSet;

use headgate_datapath::{
    kernel::KernelError,
    state::{Digest, Ifindex},
    tunnel::DEVICE,
};

use crate::{
    bpf::{Link, Program},
    error::{Asked, if_present},
    object::{load_tunnel, object_digest},
    pins::{Pins, Side, unpin},
    tcx::{remove, take_off},
};

use super::tables;

/// Puts the present programs at both sides of the device; one that is there already is replaced behind its
/// link. The way in first: nothing is sent that could not be answered.
pub(super) fn attach(pins: &Pins, ifindex: Ifindex) -> Result<(), KernelError> {
    tables::prepare(pins)?;
    for (side, program) in [Side::In, Side::Out].into_iter().zip(load_tunnel(pins)?) {
        attach_at(pins, side, &program, ifindex)?;
    }
    Ok(())
}

fn attach_at(pins: &Pins, side: Side, new: &Program, ifindex: Ifindex) -> Result<(), KernelError> {
    let asked = || format!("attaching to {DEVICE}, {side}");
    let path = pins.tunnel(side, object_digest());
    for former in pinned(pins, side)? {
        let former = pins.tunnel(side, former);
        let link = Link::pinned(&former).asked(asked)?;
        let info = link.info().asked(asked)?;
        if info.ifindex == Some(ifindex) {
            let old = Program::by_id(info.program_id).asked(asked)?;
            link.replace(&old, new).asked(asked)?;
            return std::fs::rename(&former, &path).asked(asked);
        }
        take_off(&link).asked(asked)?;
        unpin(&former)?;
    }
    // In front of what sends packets on that nobody has judged yet: `crate::overlay`.
    let link = Link::create_tcx_first(new, ifindex, side).asked(asked)?;
    link.pin(&path)
        .asked(|| format!("pinning the link {}", path.display()))
}

/// Takes both programs off.
pub(super) fn detach(pins: &Pins) -> Result<(), KernelError> {
    for side in [Side::Out, Side::In] {
        let asked = || format!("detaching from {DEVICE}, {side}");
        for object in pinned(pins, side)? {
            remove(&pins.tunnel(side, object), asked)?;
        }
    }
    Ok(())
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
    let mut sides = BTreeSet::new();
    let mut objects = BTreeSet::new();
    for (side, object) in pins.tunnels()? {
        let asked = || format!("reading the link at {DEVICE}, {side}");
        let Some(link) = if_present(Link::pinned(&pins.tunnel(side, object))).asked(asked)? else {
            continue;
        };
        let info = link.info().asked(asked)?;
        if info.ifindex != Some(device) {
            continue;
        }
        let program = Program::by_id(info.program_id).asked(asked)?;
        if program.map_ids().asked(asked)?.contains(&tables) {
            sides.insert(side);
            objects.insert(object);
        }
    }
    let is_whole = sides.len() == 2 && objects.len() == 1;
    Ok(objects.into_iter().next().filter(|_| is_whole))
}
