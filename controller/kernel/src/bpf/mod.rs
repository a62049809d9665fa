//! The bpf(2) calls that aya lacks or hides: value sizes, batches, freezing, compare-and-swap of a
//! link's program, a link's interface.
#![allow(
    unsafe_code,
    reason = "a system call that takes pointers; everything above this module is safe"
)]

mod link;
mod map;
mod memory;
mod program;

use std::{
    ffi::{CString, c_long},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

pub(crate) use aya_obj::generated::bpf_cmd as Command;

pub use self::program::TestRun;
pub(crate) use self::{
    link::{Link, Place, has_tcx},
    map::Map,
    memory::{Mapped, MappedMut},
    program::Program,
};

/// Carries out `command`.
///
/// `attributes` is a `#[repr(C)]` prefix of the kernel's `union bpf_attr` without padding; the
/// kernel takes the rest for zero. Pointers in it are the caller's to keep alive and large enough.
fn call<T>(command: Command, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: `attributes` lives through the call and its size is given; what its pointers must
    // point to is upheld by the wrappers in this module, each beside its call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as c_long,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    // Every command answers with 0 or a descriptor.
    Ok(answer as i32)
}

/// As [`call`], for commands that answer with a new descriptor.
fn open<T>(command: Command, attributes: &mut T) -> io::Result<OwnedFd> {
    let fd = call(command, attributes)?;
    // SAFETY: the kernel has just made this descriptor for us, with close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The number by which the kernel knows a descriptor.
pub(crate) fn raw(fd: impl AsFd) -> u32 {
    // Descriptors are not negative.
    fd.as_fd().as_raw_fd() as u32
}

fn path_of(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

#[repr(C)]
#[derive(Default)]
struct ObjectAttributes {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Gives a map, program or link a name on a bpffs, which keeps it alive.
pub(crate) fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = path_of(path)?;
    let mut attributes = ObjectAttributes {
        path: path.as_ptr() as u64,
        fd: raw(fd),
        flags: 0,
    };
    // The path is a C string that lives through the call.
    call(Command::BPF_OBJ_PIN, &mut attributes).map(drop)
}

fn get_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = path_of(path)?;
    let mut attributes = ObjectAttributes {
        path: path.as_ptr() as u64,
        ..Default::default()
    };
    open(Command::BPF_OBJ_GET, &mut attributes)
}

#[repr(C)]
struct IdAttributes {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

fn get_by_id(command: Command, id: u32) -> io::Result<OwnedFd> {
    let mut attributes = IdAttributes {
        id,
        next_id: 0,
        open_flags: 0,
    };
    open(command, &mut attributes)
}

#[repr(C)]
struct InfoAttributes {
    fd: u32,
    length: u32,
    info: u64,
}

/// Fills `T`, a prefix of the kernel's info struct for this kind of object.
fn info<T>(fd: BorrowedFd<'_>, mut info: T) -> io::Result<T> {
    let mut attributes = InfoAttributes {
        fd: raw(fd),
        length: size_of::<T>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    // `info` is writable for `length` bytes, and T is made of integers only.
    call(Command::BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok(info)
}

/// A name as the kernel keeps it: at most 15 bytes and a zero.
fn name_of(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    let length = name.len().min(15);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    bytes
}
