//! Programs at the egress of interfaces, by TCX: one there is, the same for all, without tables.

use std::collections::BTreeMap;

use headgate_datapath::{
    kernel::KernelError,
    observed::AttachedEgress,
    state::{Digest, Ifindex, PortIndex},
};

use crate::{
    bpf::{Link, Place, Program},
    error::{Asked, if_present},
    layouts::links_at,
    netlink,
    object::{load_egress, object_digest},
    pins::{EGRESSES, Pins, Side},
    shared::Shared,
    tcx::{put, remove},
};

/// Puts the present program at the egress; one that is there already is replaced behind its link.
pub(crate) fn attach(
    pins: &Pins,
    port: PortIndex,
    interface: &str,
    ifindex: Ifindex,
) -> Result<(), KernelError> {
    pins.make()?;
    let new = load_egress(pins)?;
    let formers = pinned(pins, port)?.into_iter();
    let formers = formers.map(|object| pins.egress(port, object));
    let formers: Vec<_> = formers
        .chain(links_at(pins, EGRESSES, "", ifindex)?)
        .collect();
    let path = pins.egress(port, object_digest());
    put(
        &new,
        (ifindex, Side::Out, Place::Last),
        &formers,
        &path,
        || format!("attaching to the egress of {interface}"),
    )
}

/// Takes the program off the egress; nothing to take off is no error.
pub(crate) fn detach(pins: &Pins, port: PortIndex) -> Result<(), KernelError> {
    let asked = || format!("detaching {port} from its egress");
    for object in pinned(pins, port)? {
        remove(&pins.egress(port, object), asked)?;
    }
    Ok(())
}

fn pinned(pins: &Pins, port: PortIndex) -> Result<Vec<Digest>, KernelError> {
    let all = pins.egresses()?.into_iter();
    let of_port = all.filter(|(pinned, _)| *pinned == port);
    Ok(of_port.map(|(_, object)| object).collect())
}

/// All that are pinned. A program that does not use the pinned table of flows is none of ours.
pub(crate) fn observe(
    pins: &Pins,
    shared: &Shared,
) -> Result<BTreeMap<PortIndex, AttachedEgress>, KernelError> {
    let mut found = BTreeMap::new();
    let pinned = pins.egresses()?;
    if pinned.is_empty() {
        return Ok(found);
    }
    let interfaces = netlink::links()?;
    let is_here = |ifindex: &Ifindex| interfaces.iter().any(|l| l.header.index == ifindex.0);
    for (port, object) in pinned {
        let asked = || format!("reading the link at the egress of {port}");
        let path = pins.egress(port, object);
        let Some(link) = if_present(Link::pinned(&path)).asked(asked)? else {
            continue;
        };
        let info = link.info().asked(asked)?;
        let ifindex = info.ifindex.filter(is_here);
        let is_ours = match ifindex {
            Some(_) => Program::by_id(info.program_id)
                .and_then(|program| program.map_ids())
                .asked(asked)?
                .contains(&shared.flows.id()),
            None => false,
        };
        let attached = AttachedEgress {
            ifindex,
            object: is_ours.then_some(object),
        };
        found.insert(port, attached);
    }
    Ok(found)
}
