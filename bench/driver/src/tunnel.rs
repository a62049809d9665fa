//! The same for the programs at the tunnel's device: what leaves gets another destination each time, what comes
//! another source and the peer that has it.

use core::mem::zeroed;

use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_tunnel_key,
    btf_maps::ProgramArray,
    helpers::generated::bpf_skb_set_tunnel_key,
    macros::{btf_map, classifier},
    programs::TcContext,
};

use crate::{SOURCES, next};

/// `TCX_NEXT` and `TCX_DROP` (include/uapi/linux/bpf.h).
const NEXT: i32 = -1;
const DROP: i32 = 2;

const SOURCE: usize = 14 + 12;
const DESTINATION: usize = 14 + 16;

/// Number of the network, and the upper half of the peers' endpoints; as in the bench.
const NETWORK: u32 = 7;
const ENDPOINTS: u32 = 0xac10_0000;

/// The floor at 0, the program under test at 1.
#[btf_map]
static CLASSIFIERS: ProgramArray<2> = ProgramArray::new();

#[classifier]
pub fn drive_tunnel_out(ctx: TcContext) -> i32 {
    drive::<DESTINATION, false>(&ctx)
}

#[classifier]
pub fn drive_tunnel_in(ctx: TcContext) -> i32 {
    drive::<SOURCE, true>(&ctx)
}

/// The floor.
#[classifier]
pub fn pass_all(_: TcContext) -> i32 {
    NEXT
}

#[inline(always)]
fn drive<const AT: usize, const COMES: bool>(ctx: &TcContext) -> i32 {
    let Some((key, is_tested)) = next() else {
        return DROP;
    };
    let Some(address) = SOURCES.get_ptr(key) else {
        return DROP;
    };
    // SAFETY: the map's value.
    let address = unsafe { *address.cast::<[u8; 4]>() };
    let start = ctx.data() + AT;
    if start + 4 > ctx.data_end() {
        return DROP;
    }
    // SAFETY: the bytes lie before data_end, as just compared.
    unsafe { *(start as *mut [u8; 4]) = address };
    if COMES && !came_from(ctx, ENDPOINTS | u32::from_be_bytes(address) >> 8 & 0xffff) {
        return DROP;
    }
    // SAFETY: the context is the one that the kernel gave to this run.
    unsafe { CLASSIFIERS.tail_call(ctx, is_tested) };
    DROP
}

/// What the compiler writes two words of at once, the verifier wants aligned.
#[repr(C, align(8))]
struct Key {
    _padding: u32,
    key: bpf_tunnel_key,
}

/// Gives the packet an outer header as a device does that has taken it off.
#[inline(always)]
fn came_from(ctx: &TcContext, peer: u32) -> bool {
    // SAFETY: integers and unions of integers, all of which may be 0.
    let mut aligned: Key = unsafe { zeroed() };
    let key = &mut aligned.key;
    key.tunnel_id = NETWORK;
    key.__bindgen_anon_3.local_ipv4 = peer;
    let length = size_of::<bpf_tunnel_key>() as u32;
    // SAFETY: a helper that reads the key, of as many bytes.
    unsafe { bpf_skb_set_tunnel_key(ctx.as_ptr().cast(), &raw mut *key, length, 0) == 0 }
}
