//! Sends frames of one flow after the other out of an interface: run on live frames, it writes each whole, for
//! whoever got it before may have changed it.

use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::Array,
    helpers::bpf_redirect,
    macros::{btf_map, xdp},
    programs::XdpContext,
};

const FRAME: usize = 60;

/// What to send.
#[repr(C)]
struct Stream {
    /// Without a source address.
    frame: [u32; FRAME / 4],
    /// Of the words of its IPv4 header, the checksum's left out.
    sum: u32,
    /// Source of the first flow.
    first: u32,
    /// How many flows.
    flows: u32,
    /// Frames so far.
    position: u32,
    /// Where they leave.
    ifindex: u32,
}

#[btf_map]
static STREAM: Array<Stream, 1> = Array::new();

#[xdp]
pub fn generate(ctx: XdpContext) -> u32 {
    let Some(stream) = STREAM.get_ptr_mut(0) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: the map's one value; nothing else runs during a test run.
    let stream = unsafe { &mut *stream };
    let start = ctx.data();
    if start + FRAME > ctx.data_end() || stream.flows == 0 {
        return xdp_action::XDP_ABORTED;
    }
    let source = stream.first + stream.position % stream.flows;
    stream.position += 1;
    let mut sum = stream.sum + (source >> 16) + (source & 0xffff);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    // SAFETY: the frame lies before data_end, as just compared; what is written at odd places are bytes.
    unsafe {
        *(start as *mut [u32; FRAME / 4]) = stream.frame;
        *((start + 24) as *mut [u8; 2]) = (!sum as u16).to_be_bytes();
        *((start + 26) as *mut [u8; 4]) = source.to_be_bytes();
    }
    // SAFETY: a helper that takes numbers.
    unsafe { bpf_redirect(stream.ifindex, 0) as u32 }
}
