//! What all programs by TCX share: how they are taken off.

use std::{io, path::Path};

use headgate_datapath::kernel::KernelError;

use crate::{
    bpf::Link,
    error::{Asked, absent, if_present},
    pins::unpin,
};

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
