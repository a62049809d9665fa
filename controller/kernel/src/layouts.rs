//! Links that an agent of another layout version has left. Its maps are of no use, but its programs stand where ours are
//! to be: they are replaced behind their links, so that no packet meets none. What nobody wants any more is taken off when
//! all that is wanted stands.

use std::{
    fs,
    path::{Path, PathBuf},
};

use headgate_datapath::{kernel::KernelError, state::Ifindex};

use crate::{
    bpf::Link,
    error::{Asked, if_present},
    pins::{CLASSIFIERS, LINK_FOLDERS, Pins, TUNNEL_LINKS, names_in, unpin},
    tcx::take_off,
    tunnel,
};

/// Pins of the others' links in `folder` that are at an interface, of those whose names begin so.
pub(crate) fn links_at(
    pins: &Pins,
    folder: &str,
    name: &str,
    ifindex: Ifindex,
) -> Result<Vec<PathBuf>, KernelError> {
    let mut found = Vec::new();
    for path in pinned(pins, folder)? {
        let is_named = path
            .file_name()
            .is_some_and(|found| found.to_string_lossy().starts_with(name));
        if is_named && at(&path)? == Some(ifindex) {
            found.push(path);
        }
    }
    Ok(found)
}

/// Whether there are any.
pub(crate) fn are_left(pins: &Pins) -> Result<bool, KernelError> {
    Ok(!pins.other_layouts()?.is_empty())
}

/// Takes off what is left of them, and forgets all their pins.
pub(crate) fn forget(pins: &Pins) -> Result<(), KernelError> {
    // Without programs the device would take packets from anybody.
    if !tunnel::is_pinned(pins)? {
        tunnel::remove(pins)?;
    }
    for folder in LINK_FOLDERS.into_iter().chain([TUNNEL_LINKS]) {
        for path in pinned(pins, folder)? {
            let asked = || format!("taking off {}", path.display());
            if let Some(link) = if_present(Link::pinned(&path)).asked(asked)? {
                take_off(&link).asked(asked)?;
            }
            unpin(&path)?;
        }
    }
    // The filters themselves are ours by now, or went with their device.
    for path in pinned(pins, CLASSIFIERS)? {
        unpin(&path)?;
    }
    for layout in pins.other_layouts()? {
        if_present(fs::remove_dir_all(&layout))
            .asked(|| format!("removing the folder {}", layout.display()))?;
    }
    Ok(())
}

fn pinned(pins: &Pins, folder: &str) -> Result<Vec<PathBuf>, KernelError> {
    let mut found = Vec::new();
    for layout in pins.other_layouts()? {
        let folder = layout.join(folder);
        found.extend(names_in(&folder)?.into_iter().map(|name| folder.join(name)));
    }
    Ok(found)
}

/// The interface of a link, unless that is gone.
fn at(path: &Path) -> Result<Option<Ifindex>, KernelError> {
    let asked = || format!("reading the link {}", path.display());
    let Some(link) = if_present(Link::pinned(path)).asked(asked)? else {
        return Ok(None);
    };
    Ok(link.info().asked(asked)?.ifindex)
}
