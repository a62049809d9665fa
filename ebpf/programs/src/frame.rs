//! A frame in the driver's memory.

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len},
    programs::{TcContext, XdpContext},
};
use headgate_packet::frame::{Frame, FrameMut, Resize, WireType, WireTypeMut};

/// The frame of one program run.
pub struct XdpFrame<'a> {
    ctx: &'a XdpContext,
    data: usize,
    data_end: usize,
}

impl<'a> XdpFrame<'a> {
    #[inline(always)]
    pub fn new(ctx: &'a XdpContext) -> Self {
        Self {
            ctx,
            data: ctx.data(),
            data_end: ctx.data_end(),
        }
    }
}

impl Frame for XdpFrame<'_> {
    #[inline(always)]
    fn at<T: WireType>(&self, offset: u32) -> Option<&T> {
        let start = self.data + offset as usize;
        if start + size_of::<T>() > self.data_end {
            return None;
        }
        // SAFETY: the bytes lie before data_end (the verifier follows this very comparison), stay
        // there for this run, and any bytes at any address make a T: FromBytes and Unaligned.
        Some(unsafe { &*(start as *const T) })
    }

    #[inline(always)]
    fn linear_length(&self) -> u32 {
        (self.data_end - self.data) as u32
    }

    #[inline(always)]
    fn full_length(&self) -> u32 {
        // SAFETY: the context is the one that the kernel gave to this run.
        unsafe { bpf_xdp_get_buff_len(self.ctx.as_ptr().cast()) as u32 }
    }
}

impl FrameMut for XdpFrame<'_> {
    #[inline(always)]
    fn at_mut<T: WireTypeMut>(&mut self, offset: u32) -> Option<&mut T> {
        let start = self.data + offset as usize;
        if start + size_of::<T>() > self.data_end {
            return None;
        }
        // SAFETY: as in `at`; nothing else of this run refers to the frame while this borrow lasts.
        Some(unsafe { &mut *(start as *mut T) })
    }
}

impl Resize for XdpFrame<'_> {
    #[inline(always)]
    fn reframe(&mut self, front: u32, length: u32) -> bool {
        let ctx = self.ctx.ctx;
        // SAFETY: the context is the one that the kernel gave to this run; what was read through the former
        // pointers is borrowed from `self`, and so gone.
        let moved = unsafe { bpf_xdp_adjust_head(ctx, -(front as i32)) };
        if moved != 0 {
            return false;
        }
        let change = length as i32 - self.full_length() as i32;
        // SAFETY: as above.
        let cut = unsafe { bpf_xdp_adjust_tail(ctx, change) };
        (self.data, self.data_end) = (self.ctx.data(), self.ctx.data_end());
        cut == 0
    }
}

/// A frame in a socket buffer, of which the first bytes are in one piece.
pub struct SocketBuffer<'a> {
    ctx: &'a TcContext,
    data: usize,
    data_end: usize,
}

impl<'a> SocketBuffer<'a> {
    #[inline(always)]
    pub fn new(ctx: &'a TcContext) -> Self {
        Self {
            ctx,
            data: ctx.data(),
            data_end: ctx.data_end(),
        }
    }
}

impl Frame for SocketBuffer<'_> {
    #[inline(always)]
    fn at<T: WireType>(&self, offset: u32) -> Option<&T> {
        let start = self.data + offset as usize;
        if start + size_of::<T>() > self.data_end {
            return None;
        }
        // SAFETY: as in `XdpFrame::at`.
        Some(unsafe { &*(start as *const T) })
    }

    #[inline(always)]
    fn linear_length(&self) -> u32 {
        (self.data_end - self.data) as u32
    }

    #[inline(always)]
    fn full_length(&self) -> u32 {
        self.ctx.len()
    }
}

impl FrameMut for SocketBuffer<'_> {
    #[inline(always)]
    fn at_mut<T: WireTypeMut>(&mut self, offset: u32) -> Option<&mut T> {
        let start = self.data + offset as usize;
        if start + size_of::<T>() > self.data_end {
            return None;
        }
        // SAFETY: as in `XdpFrame::at_mut`; the kernel gives a program that writes a buffer of its own.
        Some(unsafe { &mut *(start as *mut T) })
    }
}
