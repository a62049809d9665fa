//! The programs: bounds, maps, and calls to `headgate_packet`.
#![no_std]
#![no_main]
// Comparing and exchanging a word is BPF's, but `core` keeps its atomic types from this target.
#![feature(core_intrinsics)]
#![allow(internal_features)]

mod delivery;
mod egress;
mod flows;
mod forward;
mod frame;
mod maps;
mod monitor;
mod overlay;
mod settling;
mod tunnel;

use core::mem::MaybeUninit;

use aya_ebpf::{bindings::xdp_md, macros::xdp, programs::XdpContext};
use headgate_layout::maps::reason_index;
use headgate_packet::judge::{IS_REASON, Words, judge};

use crate::{
    forward::{conclude, forward},
    frame::XdpFrame,
    maps::{Node, REASON_COUNTERS, RULE_COUNTERS, count, port},
    monitor::tell,
};

/// Judges every frame that arrives at one interface.
#[xdp(frags)]
pub fn headgate(ctx: XdpContext) -> u32 {
    run::<true>(&ctx)
}

/// The same without the load balancer, for kernels whose verifier does not come to an end with it.
#[xdp(frags)]
pub fn headgate_filter(ctx: XdpContext) -> u32 {
    run::<false>(&ctx)
}

#[inline(always)]
fn run<const BALANCES: bool>(ctx: &XdpContext) -> u32 {
    let node = Node::<BALANCES>::default();
    let mut verdict = match BALANCES {
        true => {
            let mut rest = MaybeUninit::uninit();
            let decision = judge_apart(ctx.ctx, &node, &mut rest);
            // SAFETY: `judge_apart` has written it.
            Words::joined(decision, unsafe { rest.assume_init() })
        }
        false => Words::of(&judge(&XdpFrame::new(ctx), &node)),
    };
    let outcome = forward(ctx, &mut verdict, &node);
    tell(ctx, &verdict, &node);
    let cause = verdict.cause();
    let counter = match cause & IS_REASON {
        0 => RULE_COUNTERS.get_ptr_mut(cause),
        _ => REASON_COUNTERS.get_ptr_mut(reason_index(port(), cause ^ IS_REASON)),
    };
    count(counter, verdict.length());
    // Last, for it makes another frame of this one.
    conclude(ctx, outcome, &verdict, &node)
}

/// A function of its own, so that its stack is free again where a frame is sent on: all that are in use at
/// one time have 512 bytes together. It returns a word, for the verifier looks at what is left in the register of
/// a function that returns none, and refuses an address on the stack.
#[inline(never)]
fn judge_apart<const BALANCES: bool>(
    ctx: *mut xdp_md,
    node: &Node<BALANCES>,
    rest: &mut MaybeUninit<[u64; 2]>,
) -> u64 {
    let verdict = judge(&XdpFrame::new(&XdpContext::new(ctx)), node);
    let (decision, words) = Words::of(&verdict).split();
    rest.write(words);
    decision
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
