//! The programs: bounds, maps, and calls to `headgate_packet`.
#![no_std]
#![no_main]
// Comparing and exchanging a word is BPF's, but `core` keeps its atomic types from this target.
#![feature(core_intrinsics)]
#![allow(internal_features)]

mod egress;
mod flows;
mod forward;
mod frame;
mod maps;
mod monitor;
mod tunnel;

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    macros::xdp,
    programs::XdpContext,
};
use headgate_layout::{maps::reason_index, verdict::Action};
use headgate_packet::judge::{Cause, Verdict, judge};

use crate::{
    forward::forward,
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
        true => judge_apart(ctx.ctx, &node),
        false => judge(&XdpFrame::new(ctx), &node),
    };
    let forwarded = forward(ctx, &mut verdict, &node);
    tell(ctx, &verdict, &node);
    match verdict.cause {
        Cause::Rule(index) => count(RULE_COUNTERS.get_ptr_mut(index), verdict.length),
        Cause::Reason(reason) => count(
            REASON_COUNTERS.get_ptr_mut(reason_index(port(), reason)),
            verdict.length,
        ),
    }
    match verdict.action {
        Action::Allow => forwarded,
        Action::Drop => xdp_action::XDP_DROP,
    }
}

/// A function of its own, so that its stack is free again where a frame is sent on: all that are in use at
/// one time have 512 bytes together.
#[inline(never)]
fn judge_apart<const BALANCES: bool>(ctx: *mut xdp_md, node: &Node<BALANCES>) -> Verdict {
    judge(&XdpFrame::new(&XdpContext::new(ctx)), node)
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
