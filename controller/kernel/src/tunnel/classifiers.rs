//! The programs at the device by clsact. A filter names its program by its number alone, so programs are pinned, with
//! the digest of their object.

use std::collections::BTreeMap;

use headgate_datapath::{
    kernel::KernelError,
    state::{Digest, Ifindex},
    tunnel::DEVICE,
};

use crate::{
    bpf::Program,
    clsact,
    error::{Asked, if_present},
    netlink::links,
    object::{TUNNEL, object_digest},
    pins::{Pins, Side, unpin},
};

/// Puts a program at a side of the device. The pin goes first: cut short behind it, the next run finds a former program,
/// which is known too.
pub(super) fn put(
    pins: &Pins,
    side: Side,
    new: &Program,
    ifindex: Ifindex,
) -> Result<(), KernelError> {
    let path = pins.classifier(side, object_digest());
    unpin(&path)?;
    new.pin(&path)
        .asked(|| format!("pinning the program {}", path.display()))?;
    let [way_in, way_out] = TUNNEL;
    let name = match side {
        Side::In => way_in,
        Side::Out => way_out,
    };
    // The kernel keeps 15 characters.
    let is_ours = |found: &str| !found.is_empty() && name.starts_with(found);
    clsact::set(new, (DEVICE, ifindex, side), name, is_ours)?;
    for (pinned, object) in pins.classifiers()? {
        if pinned == side && object != object_digest() {
            unpin(&pins.classifier(side, object))?;
        }
    }
    Ok(())
}

/// Takes our programs off, wherever the device is by now, and forgets them.
pub(super) fn detach(pins: &Pins) -> Result<(), KernelError> {
    let known = known(pins)?;
    if known.is_empty() {
        return Ok(());
    }
    let asked = || format!("detaching from {DEVICE} by clsact");
    for link in links()? {
        let ifindex = Ifindex(link.header.index);
        for side in [Side::Out, Side::In] {
            let there = clsact::program_id(ifindex, side).asked(asked)?;
            if there.is_some_and(|id| known.contains_key(&(side, id))) {
                clsact::remove(ifindex, side).asked(asked)?;
            }
        }
    }
    for (side, object) in pins.classifiers()? {
        unpin(&pins.classifier(side, object))?;
    }
    Ok(())
}

/// Programs at the device that are pinned: their sides, objects and numbers.
pub(super) fn found(pins: &Pins, device: Ifindex) -> Result<Vec<(Side, Digest, u32)>, KernelError> {
    let known = known(pins)?;
    let mut found = Vec::new();
    if known.is_empty() {
        return Ok(found);
    }
    for side in [Side::In, Side::Out] {
        let there = clsact::first_program_id(device, side)
            .asked(|| format!("reading the program at {DEVICE}, {side}"))?;
        let object = there.and_then(|id| Some((id, *known.get(&(side, id))?)));
        found.extend(object.map(|(id, object)| (side, object, id)));
    }
    Ok(found)
}

/// Objects of the pinned programs, by side and number.
fn known(pins: &Pins) -> Result<BTreeMap<(Side, u32), Digest>, KernelError> {
    let mut known = BTreeMap::new();
    for (side, object) in pins.classifiers()? {
        let asked = || format!("reading the pinned program for {DEVICE}, {side}");
        let program = Program::pinned(&pins.classifier(side, object));
        if let Some(program) = if_present(program).asked(asked)? {
            known.insert((side, program.id().asked(asked)?), object);
        }
    }
    Ok(known)
}
