//! Writes the next source address, what else a load balancer changes, and a lifetime into the packet and tail-calls, in chunks of 16,384 packets, now
//! the floor and now the program under test: neighbouring chunks differ in that alone, so that the
//! machine's drift falls out. A time stamp is taken once a chunk.
#![no_std]
#![no_main]

mod generate;
mod per_flow;
mod tunnel;

use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::{Array, ProgramArray},
    helpers::bpf_ktime_get_ns,
    macros::{btf_map, xdp},
    programs::XdpContext,
};

const MMAPABLE: usize = aya_ebpf::bindings::BPF_F_MMAPABLE as usize;
/// Packets of a chunk, as a power of two.
const CHUNK_BITS: u32 = 14;
const STAMPS: usize = 256;
const KEYS: usize = 1 << 20;

/// What a run does and what it leaves behind.
#[repr(C)]
struct Control {
    /// Packets so far.
    position: u64,
    /// First key.
    first: u64,
    /// How many keys behind it are used, less one; a power of two less one.
    mask: u64,
    /// Destination and ports, which a load balancer changes.
    rest: [u8; 24],
    /// Time at the begin of each chunk, in nanoseconds.
    stamps: [u64; STAMPS],
}

#[btf_map]
static CONTROL: Array<Control, 1, MMAPABLE> = Array::new();

/// Source addresses: IPv4 in the first 4 bytes, IPv6 in all.
#[btf_map]
static SOURCES: Array<[u64; 2], KEYS, MMAPABLE> = Array::new();

/// The floor at 0, the program under test at 1.
#[btf_map]
static PROGRAMS: ProgramArray<2> = ProgramArray::new();

#[xdp(frags)]
pub fn drive_v4(ctx: XdpContext) -> u32 {
    drive::<4, 8>(&ctx, 14 + 12, 14 + 8)
}

#[xdp(frags)]
pub fn drive_v6(ctx: XdpContext) -> u32 {
    drive::<16, 20>(&ctx, 14 + 8, 14 + 7)
}

/// The floor.
#[xdp(frags)]
pub fn drop_all(_: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

#[inline(always)]
fn drive<const BYTES: usize, const REST: usize>(
    ctx: &XdpContext,
    at: usize,
    lifetime: usize,
) -> u32 {
    let Some((key, is_tested)) = next() else {
        return xdp_action::XDP_ABORTED;
    };
    let Some(control) = CONTROL.get_ptr(0) else {
        return xdp_action::XDP_ABORTED;
    };
    let Some(source) = SOURCES.get_ptr(key) else {
        return xdp_action::XDP_ABORTED;
    };
    let data = ctx.data();
    let start = data + at;
    if start + BYTES + REST > ctx.data_end() {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: the bytes lie before data_end, as just compared, and in the map's value.
    unsafe { *(start as *mut [u8; BYTES]) = *source.cast::<[u8; BYTES]>() };
    // SAFETY: as above; the control holds 24 bytes.
    unsafe {
        *((start + BYTES) as *mut [u8; REST]) = *(&raw const (*control).rest).cast::<[u8; REST]>()
    };
    // SAFETY: these bytes lie before the ones above. A load balancer counts the lifetime down.
    unsafe { *((data + lifetime) as *mut u8) = 64 };
    // SAFETY: the context is the one that the kernel gave to this run.
    unsafe { PROGRAMS.tail_call(ctx, is_tested) };
    xdp_action::XDP_ABORTED
}

/// Counts a packet: which key it gets, and 1 where it is for the program under test, else 0.
#[inline(always)]
fn next() -> Option<(u32, u32)> {
    let control = CONTROL.get_ptr_mut(0)?;
    // SAFETY: the map's one value; nothing else runs during a test run.
    let control = unsafe { &mut *control };
    let position = control.position;
    control.position = position + 1;
    let chunk = position >> CHUNK_BITS;
    if position & ((1 << CHUNK_BITS) - 1) == 0 {
        // SAFETY: a helper without arguments.
        control.stamps[chunk as usize & (STAMPS - 1)] = unsafe { bpf_ktime_get_ns() };
    }
    let key = (control.first + (position & control.mask)) as u32;
    Some((key, chunk as u32 & 1))
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: the build has panic = "abort" and the verifier refuses a program that could get here.
    unsafe { core::hint::unreachable_unchecked() }
}

/// Gives the program the right to call GPL-only helpers.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
