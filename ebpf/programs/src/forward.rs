//! Sends a frame on to its backend, or a backend's reply to its client.

use aya_ebpf::{bindings::xdp_action, helpers::generated::bpf_redirect, programs::XdpContext};
use headgate_layout::services::Way;
use headgate_packet::{
    forward::depart,
    judge::{Cause, Verdict},
};

use crate::{
    flows::MapFlows,
    frame::XdpFrame,
    maps::{Node, RULE_COUNTERS, count},
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
    let Some(tables) = node.asked() else {
        return xdp_action::XDP_PASS;
    };
    let frame = &mut XdpFrame::new(ctx);
    let ifindex = ctx.ingress_ifindex() as u32;
    match depart(frame, verdict, &tables, MapFlows::get, ifindex) {
        Ok(None) => xdp_action::XDP_PASS,
        Ok(Some(departure)) => {
            if let Some(counter) = departure.counter {
                count(RULE_COUNTERS.get_ptr_mut(counter), verdict.length);
            }
            send(ifindex, &departure.way)
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
fn send(ifindex: u32, way: &Way) -> u32 {
    if way.reflects() && way.ifindex == ifindex {
        return xdp_action::XDP_TX;
    }
    // SAFETY: a helper that keeps two numbers for when the program has ended.
    unsafe { bpf_redirect(way.ifindex, 0) as u32 }
}
