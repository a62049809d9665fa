//! Access to the bytes of a frame.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Types that can be read from any place of a frame.
pub trait WireType: FromBytes + Immutable + KnownLayout + Unaligned {}
impl<T: FromBytes + Immutable + KnownLayout + Unaligned> WireType for T {}

/// Types that can be written at any place of a frame.
pub trait WireTypeMut: WireType + IntoBytes {}
impl<T: WireType + IntoBytes> WireTypeMut for T {}

/// A frame as it arrived, from its Ethernet header on.
pub trait Frame {
    /// The `T` at `offset`, or `None` where it does not lie in the frame's first buffer.
    fn at<T: WireType>(&self, offset: u32) -> Option<&T>;

    /// Bytes in the first buffer.
    fn linear_length(&self) -> u32;

    /// Bytes in all buffers; may cost a helper call.
    fn full_length(&self) -> u32;

    /// Whether the frame has at least `length` bytes; asks for the full length only if it must.
    #[inline(always)]
    fn holds(&self, length: u32) -> bool {
        length <= self.linear_length() || length <= self.full_length()
    }
}

/// A frame that can be changed in place.
pub trait FrameMut: Frame {
    /// The `T` at `offset`, or `None` where it does not lie in the frame's first buffer.
    fn at_mut<T: WireTypeMut>(&mut self, offset: u32) -> Option<&mut T>;
}

/// A frame that can become another, of another length.
pub trait Resize: FrameMut {
    /// Lets the frame begin `front` bytes before where it did, and have `length` bytes in all, which is no
    /// more than it has then. What the bytes in front hold is not told. False where there is no room: then the
    /// frame may be anything.
    fn reframe(&mut self, front: u32, length: u32) -> bool;
}

/// A frame in the host's memory, with room in front of it.
#[derive(Debug)]
pub struct HostFrame<'a> {
    memory: &'a mut [u8],
    start: usize,
    end: usize,
}

impl<'a> HostFrame<'a> {
    /// The frame from byte `start` of `memory` to its end.
    pub fn new(memory: &'a mut [u8], start: usize) -> Self {
        let end = memory.len();
        Self { memory, start, end }
    }

    /// The frame's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }
}

impl Frame for HostFrame<'_> {
    fn at<T: WireType>(&self, offset: u32) -> Option<&T> {
        self.bytes().at(offset)
    }

    fn linear_length(&self) -> u32 {
        self.bytes().linear_length()
    }

    fn full_length(&self) -> u32 {
        self.bytes().full_length()
    }
}

impl FrameMut for HostFrame<'_> {
    fn at_mut<T: WireTypeMut>(&mut self, offset: u32) -> Option<&mut T> {
        self.memory[self.start..self.end].at_mut(offset)
    }
}

impl Resize for HostFrame<'_> {
    fn reframe(&mut self, front: u32, length: u32) -> bool {
        let Some(start) = self.start.checked_sub(front as usize) else {
            return false;
        };
        let end = start + length as usize;
        if end > self.end {
            return false;
        }
        (self.start, self.end) = (start, end);
        true
    }
}

/// A frame in one piece of memory.
impl Frame for [u8] {
    fn at<T: WireType>(&self, offset: u32) -> Option<&T> {
        let rest = self.get(offset as usize..)?;
        T::ref_from_prefix(rest).ok().map(|(value, _)| value)
    }

    fn linear_length(&self) -> u32 {
        self.len() as u32
    }

    fn full_length(&self) -> u32 {
        self.len() as u32
    }
}

impl FrameMut for [u8] {
    fn at_mut<T: WireTypeMut>(&mut self, offset: u32) -> Option<&mut T> {
        let rest = self.get_mut(offset as usize..)?;
        T::mut_from_prefix(rest).ok().map(|(value, _)| value)
    }
}
