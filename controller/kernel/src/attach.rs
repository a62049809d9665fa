//! Programs on interfaces.

use std::{fs, io, path::Path};

use headgate_datapath::{
    kernel::{Applied, KernelError},
    state::{AttachedMode, Capacity, Ifindex, PortIndex, WantedMode},
};

use crate::{
    bpf::{Link, Program},
    error::{Asked, absent, errno_text, if_present},
    layouts::links_at,
    netlink,
    object::{load, object_digest},
    pins::{LINKS, Pins, ProgramPin, unpin},
};

/// Where to attach and how.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    port: PortIndex,
    interface: &'a str,
    ifindex: Ifindex,
    mode: WantedMode,
    capacity: Capacity,
}

impl<'a> Target<'a> {
    pub(crate) fn new(
        port: PortIndex,
        interface: &'a str,
        ifindex: Ifindex,
        mode: WantedMode,
        capacity: Capacity,
    ) -> Self {
        Self {
            port,
            interface,
            ifindex,
            mode,
            capacity,
        }
    }
}

/// Loads a program and attaches it. Nothing is left of an attempt that fails, nor of one that ends
/// with this process: until it is pinned, a link lives as long as its descriptor.
pub(crate) fn attach(pins: &Pins, target: &Target<'_>) -> Result<Applied, KernelError> {
    let program = load(pins, target.port, target.capacity)?;
    if let Some(former) = links_at(pins, LINKS, "", target.ifindex)?.first() {
        return take_over(pins, target, former, &program);
    }
    let (link, applied) = create(target, &program)?;
    let pinned = pin_program(pins, target.port, target.capacity, &program).and_then(|()| {
        let path = pins.link(target.port);
        link.pin(&path)
            .asked(|| format!("pinning the link {}", path.display()))
    });
    if let Err(error) = pinned {
        // Best effort: the error that counts is the one at hand, and without a pin the link ends
        // here anyway.
        drop(link.detach());
        drop(unpin_programs(pins, target.port));
        return Err(error);
    }
    Ok(applied)
}

/// Puts `program` behind a link that an agent of another layout has left, in the mode that it is in. As for [`replace`],
/// the link goes first.
fn take_over(
    pins: &Pins,
    target: &Target<'_>,
    former: &Path,
    program: &Program,
) -> Result<Applied, KernelError> {
    let asked = || {
        format!(
            "replacing the program of another layout on {}",
            target.interface
        )
    };
    let link = Link::pinned(former).asked(asked)?;
    let old = Program::by_id(link.info().asked(asked)?.program_id).asked(asked)?;
    link.replace(&old, program).asked(asked)?;
    pin_program(pins, target.port, target.capacity, program)?;
    fs::rename(former, pins.link(target.port)).asked(asked)?;
    let modes = netlink::xdp_programs()?;
    let mode = modes.get(&target.ifindex).and_then(|found| found.first());
    Ok(Applied::Attached {
        mode: mode.map_or(AttachedMode::Generic, |(_, mode)| *mode),
        refusal: None,
    })
}

/// Native first where it may be; what the driver answers otherwise is told with the outcome.
fn create(target: &Target<'_>, program: &Program) -> Result<(Link, Applied), KernelError> {
    let attempt = |mode: AttachedMode| Link::create(program, target.ifindex, mode.into());
    let attached = |mode, refusal| Applied::Attached { mode, refusal };
    let mut refusal = None;
    if target.mode != WantedMode::Generic {
        let mode = AttachedMode::Native;
        match attempt(mode) {
            Ok(link) => return Ok((link, attached(mode, None))),
            Err(error) if target.mode == WantedMode::Native || !is_refusal_of_mode(&error) => {
                return Err(explain(target, mode, error));
            }
            Err(error) => refusal = Some(errno_text(&error)),
        }
    }
    let mode = AttachedMode::Generic;
    match attempt(mode) {
        Ok(link) => Ok((link, attached(mode, refusal))),
        Err(error) => Err(explain(target, mode, error)),
    }
}

/// Whether generic mode is worth an attempt after this answer to native.
fn is_refusal_of_mode(error: &io::Error) -> bool {
    let elsewhere = [libc::EBUSY, libc::EEXIST, libc::EPERM, libc::ENODEV];
    !error
        .raw_os_error()
        .is_some_and(|errno| elsewhere.contains(&errno))
}

fn explain(target: &Target<'_>, mode: AttachedMode, error: io::Error) -> KernelError {
    let interface = target.interface.to_owned();
    match error.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => {
            let (program_id, program_name) = foreign_program(target.ifindex);
            KernelError::Foreign {
                interface,
                program_id,
                program_name,
            }
        }
        // The kernel says EINVAL to an interface that is not there.
        Some(libc::EINVAL) if !exists(target.ifindex) => KernelError::Attach {
            interface,
            mode,
            source: io::Error::from_raw_os_error(libc::ENODEV),
        },
        _ => KernelError::Attach {
            interface,
            mode,
            source: error,
        },
    }
}

fn exists(ifindex: Ifindex) -> bool {
    netlink::links().is_ok_and(|links| links.iter().any(|link| link.header.index == ifindex.0))
}

/// Id and name of the program on an interface, as far as they can be read.
fn foreign_program(ifindex: Ifindex) -> (u32, String) {
    let programs = netlink::xdp_programs().unwrap_or_default();
    let Some((id, _)) = programs.get(&ifindex).and_then(|found| found.first()) else {
        return (0, String::new());
    };
    let name = Program::by_id(*id).and_then(|program| program.name());
    (*id, name.unwrap_or_default())
}

/// Puts a newly loaded program behind the port's link.
///
/// The link goes first: cut short before the pin, the next run finds a link whose program is not
/// the pinned one, calls its object unknown, and replaces it once more.
pub(crate) fn replace(pins: &Pins, port: PortIndex, capacity: Capacity) -> Result<(), KernelError> {
    let asked = || format!("replacing the program of {port}");
    let link = Link::pinned(&pins.link(port)).asked(asked)?;
    let old = Program::by_id(link.info().asked(asked)?.program_id).asked(asked)?;
    let new = load(pins, port, capacity)?;
    link.replace(&old, &new)
        .map_err(|error| match error.raw_os_error() {
            // The kernel's answer to a compare-and-swap that finds another program.
            Some(libc::EPERM) => io::Error::other("somebody else replaced it in between"),
            _ => error,
        })
        .asked(asked)?;
    pin_program(pins, port, capacity, &new)
}

/// Detaches and attaches in the other mode; where that fails, in the old one again.
pub(crate) fn change_mode(pins: &Pins, target: &Target<'_>) -> Result<Applied, KernelError> {
    let old = match netlink::xdp_programs()?
        .get(&target.ifindex)
        .map(Vec::as_slice)
    {
        Some([(_, AttachedMode::Native), ..]) => WantedMode::Native,
        _ => WantedMode::Generic,
    };
    detach(pins, target.port)?;
    attach(pins, target).inspect_err(|_| {
        let back = Target {
            mode: old,
            ..*target
        };
        if let Err(error) = attach(pins, &back) {
            tracing::error!(interface = target.interface, %error, "attaching again in the old mode");
        }
    })
}

/// Takes the program off and forgets link and program; nothing to take off is no error.
pub(crate) fn detach(pins: &Pins, port: PortIndex) -> Result<(), KernelError> {
    let path = pins.link(port);
    let asked = || format!("detaching {port}");
    if let Some(link) = if_present(Link::pinned(&path)).asked(asked)? {
        match link.detach() {
            // The interface went away by itself.
            Err(error) if absent(&error) || error.raw_os_error() == Some(libc::ENODEV) => {}
            answer => answer.asked(asked)?,
        }
    }
    unpin(&path)?;
    unpin_programs(pins, port)
}

/// Makes `program` the only one that is pinned for `port`.
fn pin_program(
    pins: &Pins,
    port: PortIndex,
    capacity: Capacity,
    program: &Program,
) -> Result<(), KernelError> {
    unpin_programs(pins, port)?;
    let path = pins.program(&ProgramPin {
        port,
        object: object_digest(),
        capacity,
    });
    program
        .pin(&path)
        .asked(|| format!("pinning the program {}", path.display()))
}

fn unpin_programs(pins: &Pins, port: PortIndex) -> Result<(), KernelError> {
    for pin in pins.programs()? {
        if pin.port == port {
            unpin(&pins.program(&pin))?;
        }
    }
    Ok(())
}
