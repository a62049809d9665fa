//! The BPF file system, where pins live.
#![allow(unsafe_code, reason = "statfs(2) and mount(2)")]

use std::{ffi::CString, io, mem::MaybeUninit, os::unix::ffi::OsStrExt, path::Path};

use headgate_datapath::kernel::KernelError;

use crate::error::{Asked, absent, unusable};

/// What is at a path.
enum Found {
    Bpffs { read_only: bool },
    Other,
    Nothing,
}

fn look(path: &Path) -> Result<Found, KernelError> {
    match file_system(path) {
        Ok((libc::BPF_FS_MAGIC, flags)) => Ok(Found::Bpffs {
            read_only: flags & libc::ST_RDONLY != 0,
        }),
        Ok(_) => Ok(Found::Other),
        Err(error) if absent(&error) => Ok(Found::Nothing),
        Err(error) => Err(error).asked(|| format!("looking at {}", path.display())),
    }
}

/// Type and flags of the file system that `path` lies on.
fn file_system(path: &Path) -> io::Result<(i64, u64)> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let mut kind = MaybeUninit::<libc::statfs>::uninit();
    let mut flags = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` is a C string, and there is room for either answer.
    let answers = unsafe {
        [
            libc::statfs(path.as_ptr(), kind.as_mut_ptr()),
            libc::statvfs(path.as_ptr(), flags.as_mut_ptr()),
        ]
    };
    if answers != [0, 0] {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both calls succeeded, so both are filled.
    let (kind, flags) = unsafe { (kind.assume_init(), flags.assume_init()) };
    Ok((kind.f_type, flags.f_flag))
}

/// Mounts a BPF file system at `path` where there is none.
pub(crate) fn mount_if_absent(path: &Path) -> Result<(), KernelError> {
    match look(path)? {
        Found::Bpffs { .. } => Ok(()),
        Found::Nothing => Err(unusable(
            format!(
                "there is no folder {} to mount a BPF file system at",
                path.display()
            ),
            "mount sysfs at /sys, or give the path of a BPF file system",
        )),
        Found::Other => mount(path),
    }
}

/// Whether mounts of this process are not those of the node, as far as that can be seen.
fn is_private() -> bool {
    let mounts = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    let (own, first) = (mounts("self"), mounts("1"));
    own.is_some() && first.is_some() && own != first
}

fn mount(path: &Path) -> Result<(), KernelError> {
    tracing::info!(path = %path.display(), "mounting a BPF file system");
    if is_private() {
        tracing::warn!(
            path = %path.display(),
            "this process has mounts of its own (`ip netns exec` gives it such), and the pins go with them: enforcement ends with the process. Enter a network namespace by `nsenter --net` instead, or mount a BPF file system for all beforehand"
        );
    }
    let target = CString::new(path.as_os_str().as_bytes())
        .map_err(io::Error::other)
        .asked(|| format!("mounting at {}", path.display()))?;
    // SAFETY: all strings are C strings; this file system takes no data.
    let answer = unsafe {
        libc::mount(
            c"bpf".as_ptr(),
            target.as_ptr(),
            c"bpf".as_ptr(),
            0,
            std::ptr::null(),
        )
    };
    if answer == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    Err(unusable(
        format!(
            "no BPF file system is mounted at {}, and mounting one failed ({error})",
            path.display()
        ),
        format!(
            "mount it with `mount -t bpf bpf {}`, or run with CAP_SYS_ADMIN",
            path.display()
        ),
    ))
}

/// Refuses a path without a BPF file system.
pub(crate) fn check_mounted(path: &Path) -> Result<(), KernelError> {
    match look(path)? {
        Found::Bpffs { .. } => Ok(()),
        Found::Other | Found::Nothing => Err(unusable(
            format!("no BPF file system is mounted at {}", path.display()),
            "look from where the agent runs: `ip netns exec` hides the mount, `nsenter --net` does not",
        )),
    }
}

/// Refuses a BPF file system that takes no pins.
pub(crate) fn check_writable(path: &Path) -> Result<(), KernelError> {
    match look(path)? {
        Found::Bpffs { read_only: true } => Err(unusable(
            format!("the BPF file system at {} is read-only", path.display()),
            format!("remount it with `mount -o remount,rw {}`", path.display()),
        )),
        _ => Ok(()),
    }
}
