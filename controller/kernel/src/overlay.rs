//! The program at the ingress of interfaces that sends packets on to backends behind an overlay, and back, by TCX: one
//! there is, the same for all, without tables.

use std::collections::BTreeMap;

use headgate_datapath::{
    kernel::KernelError,
    observed::AttachedOverlay,
    state::{Digest, Ifindex},
};

use crate::{
    bpf::{Link, Place, Program},
    error::{Asked, if_present},
    layouts::links_at,
    netlink,
    object::{load_overlay, object_digest},
    pins::{OVERLAYS, Pins, Side},
    shared::Shared,
    tcx::{put, remove},
};

/// Puts the present program at the ingress; one that is there already is replaced behind its link.
pub(crate) fn attach(pins: &Pins, interface: &str, ifindex: Ifindex) -> Result<(), KernelError> {
    pins.make()?;
    let new = load_overlay(pins)?;
    let formers = pinned(pins, ifindex)?.into_iter();
    let formers: Vec<_> = formers
        .map(|object| pins.overlay(ifindex, object))
        .chain(links_at(pins, OVERLAYS, "", ifindex)?)
        .collect();
    let path = pins.overlay(ifindex, object_digest());
    put(
        &new,
        (ifindex, Side::In, Place::Last),
        &formers,
        &path,
        || format!("attaching to the ingress of {interface}"),
    )
}

/// Takes the program off the ingress; nothing to take off is no error.
pub(crate) fn detach(pins: &Pins, ifindex: Ifindex) -> Result<(), KernelError> {
    let asked = || format!("detaching from the ingress of interface {}", ifindex.0);
    for object in pinned(pins, ifindex)? {
        remove(&pins.overlay(ifindex, object), asked)?;
    }
    Ok(())
}

fn pinned(pins: &Pins, ifindex: Ifindex) -> Result<Vec<Digest>, KernelError> {
    let all = pins.overlays()?.into_iter();
    let of_interface = all.filter(|(pinned, _)| *pinned == ifindex);
    Ok(of_interface.map(|(_, object)| object).collect())
}

/// All that are pinned. A program that does not use the pinned table of flows is none of ours.
pub(crate) fn observe(
    pins: &Pins,
    shared: &Shared,
) -> Result<BTreeMap<Ifindex, AttachedOverlay>, KernelError> {
    let mut found = BTreeMap::new();
    let pinned = pins.overlays()?;
    if pinned.is_empty() {
        return Ok(found);
    }
    let interfaces = netlink::links()?;
    for (ifindex, object) in pinned {
        let asked = || format!("reading the link at the ingress of interface {}", ifindex.0);
        let path = pins.overlay(ifindex, object);
        let Some(link) = if_present(Link::pinned(&path)).asked(asked)? else {
            continue;
        };
        let info = link.info().asked(asked)?;
        let is_here = interfaces.iter().any(|l| l.header.index == ifindex.0);
        let is_there = is_here && info.ifindex == Some(ifindex);
        let is_ours = is_there
            && Program::by_id(info.program_id)
                .and_then(|program| program.map_ids())
                .asked(asked)?
                .contains(&shared.flows.id());
        let attached = AttachedOverlay {
            is_there,
            object: is_ours.then_some(object),
        };
        found.insert(ifindex, attached);
    }
    Ok(found)
}
