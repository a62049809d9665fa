//! A map's only value, seen as memory.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    ptr::NonNull,
};

use super::Map;

/// A frozen map's value.
pub(crate) struct Mapped(Region);

/// The value of a map that nobody else knows yet.
pub(crate) struct MappedMut(Region);

struct Region {
    start: NonNull<u8>,
    length: usize,
}

impl Mapped {
    /// `map` must be a memory-mappable array of one entry.
    pub(crate) fn new(map: &Map) -> io::Result<Self> {
        if !map.is_frozen()? {
            return Err(io::Error::other("the map is not frozen"));
        }
        Region::new(map, libc::PROT_READ).map(Self)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the region is readable for `length` bytes until it is dropped. A frozen map is
        // not written by user space, and none of our programs writes a block.
        unsafe { std::slice::from_raw_parts(self.0.start.as_ptr(), self.0.length) }
    }
}

impl MappedMut {
    /// `map` must be a memory-mappable array of one entry, just made: the exclusive borrow stands
    /// for nobody else writing it.
    pub(crate) fn new(map: &mut Map) -> io::Result<Self> {
        Region::new(map, libc::PROT_READ | libc::PROT_WRITE).map(Self)
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the region is writable for `length` bytes until it is dropped, and this is the
        // only reference to it.
        unsafe { std::slice::from_raw_parts_mut(self.0.start.as_ptr(), self.0.length) }
    }
}

impl Region {
    fn new(map: &Map, protection: libc::c_int) -> io::Result<Self> {
        let length = map.value_bytes();
        // SAFETY: a new mapping at an address of the kernel's choice takes nothing from anybody.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                protection,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                map.as_fd().as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at 0"))?;
        Ok(Self { start, length })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the region was mapped by `new` with this length, and every reference into it
        // borrows from its owner.
        unsafe {
            libc::munmap(self.start.as_ptr().cast(), self.length);
        }
    }
}
