//! Sends a frame on to its backend.

use aya_ebpf::{bindings::xdp_action, helpers::generated::bpf_redirect, programs::XdpContext};
use headgate_layout::services::Backend;
use headgate_packet::{
    balance::rewrite,
    judge::{Cause, Verdict},
    tables::Tables,
};

use crate::{
    frame::XdpFrame,
    maps::{Node, RULE_COUNTERS, balances, count},
};

/// What the kernel is to do with a frame that may pass: makes it one for its backend, if it has one. The
/// verdict becomes another where that cannot be done.
#[inline(always)]
pub fn forward(ctx: &XdpContext, verdict: &mut Verdict, node: &Node) -> u32 {
    if !balances() || verdict.backend == 0 {
        return xdp_action::XDP_PASS;
    }
    let Some(tables) = node.asked() else {
        return xdp_action::XDP_PASS;
    };
    let Some(backend) = tables.at::<Backend>(verdict.backend) else {
        return xdp_action::XDP_PASS;
    };
    match rewrite(&mut XdpFrame::new(ctx), backend, verdict.length) {
        Ok(false) => xdp_action::XDP_PASS,
        Ok(true) => {
            count(RULE_COUNTERS.get_ptr_mut(backend.counter), verdict.length);
            send(ctx, backend)
        }
        Err(reason) => {
            *verdict = Verdict {
                action: reason.action(),
                cause: Cause::Reason(reason),
                ..*verdict
            };
            xdp_action::XDP_DROP
        }
    }
}

#[inline(always)]
fn send(ctx: &XdpContext, backend: &Backend) -> u32 {
    if backend.reflects() && backend.ifindex == ctx.ingress_ifindex() as u32 {
        return xdp_action::XDP_TX;
    }
    // SAFETY: a helper that keeps two numbers for when the program has ended.
    unsafe { bpf_redirect(backend.ifindex, 0) as u32 }
}
