//! Sends a frame on to its backend, or a backend's reply to its client.

use core::ptr::NonNull;

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    helpers::generated::bpf_redirect,
    programs::XdpContext,
};
use headgate_layout::{services::Way, verdict::Reason};
use headgate_packet::{
    flows::Known,
    forward::{Passing, depart},
    judge::{Cause, Verdict},
    settling::{is_choice, placed},
};

use crate::{
    flows::MapFlows,
    frame::XdpFrame,
    maps::{MapTables, Node, RULE_COUNTERS, count},
    settling::MapPlacements,
};

/// What the kernel is to do with a frame that may pass: makes it one for its backend or its client, if it
/// has one. The verdict becomes another where that cannot be done.
#[inline(always)]
pub fn forward<const BALANCES: bool>(
    ctx: &XdpContext,
    verdict: &mut Verdict,
    node: &Node<BALANCES>,
) -> u32 {
    let is_for_none = verdict.backend == 0 && !verdict.flow.is_some();
    if !BALANCES || is_for_none {
        return xdp_action::XDP_PASS;
    }
    let Some(start) = node.asked() else {
        return xdp_action::XDP_PASS;
    };
    let flow = verdict.flow.to_word();
    let backend = match is_choice(&MapTables::new(start), verdict.backend) {
        true => place(ctx.ctx, start, verdict.backend),
        false => verdict.backend,
    };
    let outcome = send_on(ctx.ctx, start, backend, flow, verdict.length);
    if let Some(reason) = Reason::numbered((outcome >> 32) as u32) {
        *verdict = Verdict {
            action: reason.action(),
            cause: Cause::Reason(reason),
            ..*verdict
        };
    }
    outcome as u32
}

/// Where the backend of a frame lies whose service settles. A function of its own: see [`send_on`], which has no
/// stack to spare.
#[inline(never)]
fn place(ctx: *mut xdp_md, start: NonNull<u8>, choice: u32) -> u32 {
    let ctx = XdpContext::new(ctx);
    placed(
        &XdpFrame::new(&ctx),
        &MapTables::new(start),
        choice,
        MapPlacements::get,
    )
}

/// In the upper half of what [`send_on`] gives: no reason to drop.
const NO_REASON: u64 = u32::MAX as u64;

/// What the kernel is to do, and in the upper half the number of the reason to drop it. A function of its
/// own: the verifier gives it registers and a stack of its own, of which the rest of the program keeps
/// nothing.
#[inline(never)]
fn send_on(ctx: *mut xdp_md, start: NonNull<u8>, backend: u32, flow: u64, length: u32) -> u64 {
    let ctx = &XdpContext::new(ctx);
    let passing = Passing {
        backend,
        flow: Known::from_word(flow),
        length,
        ifindex: ctx.ingress_ifindex() as u32,
    };
    let tables = MapTables::new(start);
    match depart(&mut XdpFrame::new(ctx), &passing, &tables, MapFlows::get) {
        Ok(None) => NO_REASON << 32 | u64::from(xdp_action::XDP_PASS),
        Ok(Some(departure)) => {
            if let Some(counter) = departure.counter {
                count(RULE_COUNTERS.get_ptr_mut(counter), length);
            }
            NO_REASON << 32 | u64::from(send(passing.ifindex, &departure.way))
        }
        Err(reason) => u64::from(reason as u32) << 32 | u64::from(xdp_action::XDP_DROP),
    }
}

#[inline(always)]
fn send(ifindex: u32, way: &Way) -> u32 {
    if way.is_to_stack() {
        return xdp_action::XDP_PASS;
    }
    if way.reflects() && way.ifindex == ifindex {
        return xdp_action::XDP_TX;
    }
    // SAFETY: a helper that keeps two numbers for when the program has ended.
    unsafe { bpf_redirect(way.ifindex, 0) as u32 }
}
