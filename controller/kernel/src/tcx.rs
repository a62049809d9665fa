//! What all programs by TCX share: how they are put on and taken off. Those for services have nothing else: kernels that
//! verify the load balancer (`features::why_no_balancer`) have TCX.

use std::{
    io,
    path::{Path, PathBuf},
};

use headgate_datapath::{kernel::KernelError, state::Ifindex};

use crate::{
    bpf::{Link, Place, Program},
    error::{Asked, absent, if_present},
    pins::{Side, unpin},
};

/// Puts `new` at a side of an interface, with its link pinned at `path`. Of those pinned at `formers` the one at
/// this interface is replaced behind its link, and keeps its place; any other is taken off.
///
/// Cut short before the pin has its new name, the next run finds a link of the former object and replaces
/// once more.
pub(crate) fn put(
    new: &Program,
    (ifindex, side, place): (Ifindex, Side, Place),
    formers: &[PathBuf],
    path: &Path,
    asked: impl Fn() -> String,
) -> Result<(), KernelError> {
    for former in formers {
        let link = Link::pinned(former).asked(&asked)?;
        let info = link.info().asked(&asked)?;
        if info.ifindex == Some(ifindex) {
            let old = Program::by_id(info.program_id).asked(&asked)?;
            link.replace(&old, new).asked(&asked)?;
            return std::fs::rename(former, path).asked(&asked);
        }
        take_off(&link).asked(&asked)?;
        unpin(former)?;
    }
    let link = Link::create_tcx(new, ifindex, side, place).asked(&asked)?;
    link.pin(path)
        .asked(|| format!("pinning the link {}", path.display()))
}

/// Takes off what is pinned at `path`, and forgets the pin; nothing to take off is no error.
pub(crate) fn remove(path: &Path, asked: impl Fn() -> String) -> Result<(), KernelError> {
    if let Some(link) = if_present(Link::pinned(path)).asked(&asked)? {
        take_off(&link).asked(&asked)?;
    }
    unpin(path)
}

/// An interface that went away by itself has taken its programs with it.
pub(crate) fn take_off(link: &Link) -> io::Result<()> {
    match link.detach() {
        Err(error) if absent(&error) || error.raw_os_error() == Some(libc::ENOLINK) => Ok(()),
        answer => answer,
    }
}
