//! Events, for whoever watches.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{__sk_buff, bpf_hdr_start_off::BPF_HDR_START_NET, xdp_md},
    btf_maps::{Array, PerCpuArray, RingBuf},
    helpers::generated::{
        bpf_ktime_get_coarse_ns, bpf_skb_load_bytes_relative, bpf_xdp_load_bytes,
    },
    macros::btf_map,
    programs::{TcContext, XdpContext},
};
use headgate_layout::{
    monitor::{ALLOWED, Budget, CAPTURED, DROPPED, Event, NOT_IP, Order, RING_BYTES, TUNNEL_PORT},
    tables::NO_RULE,
    verdict::{Action, Reason},
};
use headgate_packet::judge::{IS_REASON, Words};

use crate::maps::{MapTables, Node, port};

/// As `headgate_layout::maps::MONITORED` says: the only variable, and so the whole of `.bss`.
#[unsafe(no_mangle)]
static mut MONITORED: u32 = 0;

#[btf_map]
static MONITOR: Array<Order, 1> = Array::new();

#[btf_map]
static MONITOR_BUDGETS: PerCpuArray<Budget, 1> = PerCpuArray::new();

#[btf_map]
static EVENTS: RingBuf<Event, { RING_BYTES as usize }> = RingBuf::new();

/// Tells `verdict` if somebody asks for such.
#[inline(always)]
pub fn tell<const B: bool>(ctx: &XdpContext, verdict: &Words, node: &Node<B>) {
    // SAFETY: a live variable, of which each side reads and writes the whole word.
    let wanted = unsafe { (&raw const MONITORED).read_volatile() };
    if wanted == 0 {
        return;
    }
    cold();
    const IS_NOT_IP: u32 = IS_REASON | Reason::NotIp as u32;
    let (kind, action) = match (verdict.cause(), verdict.is_drop()) {
        (IS_NOT_IP, _) => (NOT_IP, Action::Allow),
        (_, false) => (ALLOWED, Action::Allow),
        (_, true) => (DROPPED, Action::Drop),
    };
    if wanted & kind != 0 {
        let cause = verdict.cause() & !IS_REASON;
        let by_rule = u32::from(verdict.cause() & IS_REASON == 0);
        let decided = by_rule << 8 | action as u32;
        sample(ctx.ctx, node.slot(), cause, decided, verdict.length());
    }
}

/// Writes an event, if it is time for one. `decided` is the action, and above its 8 bits whether a rule's
/// counter is the cause. A function of its own, as `maps::is_granted`.
#[inline(never)]
fn sample(ctx: *mut xdp_md, slot: u32, cause: u32, decided: u32, length: u32) {
    let ctx = &XdpContext::new(ctx);
    let by_rule = (decided >> 8) as u8;
    let Some((now, budget)) = due(cause, by_rule) else {
        return;
    };
    let Some(mut entry) = EVENTS.reserve(0) else {
        budget.full += 1;
        return;
    };
    let event = entry.as_mut_ptr();
    let digest = MapTables::of(slot)
        .and_then(|tables| tables.digest())
        .unwrap_or_default();
    // No frame is empty. Written so that the verifier sees 1 to CAPTURED, a power of two.
    let linear = (ctx.data_end() - ctx.data()).min(CAPTURED as usize) as u32;
    let captured = (linear.wrapping_sub(1) & (CAPTURED - 1)) + 1;
    // SAFETY: the entry is memory of this size until it is submitted; what of the frame's place is
    // not written here is not read either, which `captured` tells.
    unsafe {
        (&raw mut (*event).time).write(now);
        (&raw mut (*event).tables).write(digest);
        (&raw mut (*event).length).write(length);
        (&raw mut (*event).cause).write(cause);
        (&raw mut (*event).port).write(port() as u16);
        (&raw mut (*event).action).write(decided as u8);
        (&raw mut (*event).by_rule).write(by_rule);
        (&raw mut (*event).captured).write(captured);
        bpf_xdp_load_bytes(
            ctx.as_ptr().cast(),
            0,
            (&raw mut (*event).frame).cast(),
            captured,
        );
    }
    entry.submit(0);
}

/// The time, where an event is to be told now, and the budget that pays for it.
#[inline(always)]
fn due(cause: u32, by_rule: u8) -> Option<(u64, &'static mut Budget)> {
    let (Some(order), Some(budget)) = (MONITOR.get(0), MONITOR_BUDGETS.get_ptr_mut(0)) else {
        return None;
    };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    if now >= order.until {
        // Who asked is gone. Should somebody else have begun just now, they ask again in a second.
        // SAFETY: as in `tell`.
        unsafe { (&raw mut MONITORED).write_volatile(0) };
        return None;
    }
    if order.counter != NO_RULE && (by_rule == 0 || cause != order.counter) {
        return None;
    }
    // SAFETY: this CPU's own value, as in `maps::count`.
    let budget = unsafe { &mut *budget };
    let saved = budget.saved + (now - budget.reckoned);
    budget.saved = saved.min(order.burst);
    budget.reckoned = now;
    if budget.saved < order.interval {
        budget.limited += 1;
        return None;
    }
    budget.saved -= order.interval;
    Some((now, budget))
}

/// Tells that the tunnel drops a packet, if somebody asks for such.
#[inline(always)]
pub fn tell_tunnel(ctx: &TcContext, cause: u32) {
    // SAFETY: as in `tell`.
    let wanted = unsafe { (&raw const MONITORED).read_volatile() };
    if wanted & DROPPED == 0 {
        return;
    }
    cold();
    sample_tunnel(ctx.skb.skb, cause);
}

/// Bytes of an Ethernet header.
const ETHERNET: u32 = 14;
/// Bytes of a tunnel's packet behind it, at most; a power of two.
const INNER: u32 = 64;

/// Writes an event, if it is time for one. A frame that came has no Ethernet header behind some generic XDP
/// programs, as `tunnel::NetworkHeader` says: in its place is one without addresses.
#[inline(never)]
fn sample_tunnel(skb: *mut __sk_buff, cause: u32) -> u32 {
    let ctx = &TcContext::new(skb);
    let Some((now, budget)) = due(cause, 0) else {
        return 0;
    };
    let Some(mut entry) = EVENTS.reserve(0) else {
        budget.full += 1;
        return 0;
    };
    let event = entry.as_mut_ptr();
    // SAFETY: as in `sample`, of which the frame is longer than both headers; the context is the one that the
    // kernel gave to this run.
    unsafe {
        let frame: *mut u8 = (&raw mut (*event).frame).cast();
        let inner = frame.add(ETHERNET as usize);
        let rest = ctx.len().saturating_sub(ETHERNET);
        // Written so that the verifier sees 1 to INNER.
        let rest = (rest.wrapping_sub(1) & (INNER - 1)) + 1;
        let mut captured = ETHERNET;
        if load(ctx, inner, INNER) {
            captured += INNER;
        } else if load(ctx, inner, rest) {
            captured += rest;
        }
        for at in 0..12 {
            frame.add(at).write_volatile(0);
        }
        let [upper, lower] = ((*skb).protocol as u16).to_ne_bytes();
        frame.add(12).write(upper);
        frame.add(13).write(lower);
        (&raw mut (*event).time).write(now);
        (&raw mut (*event).tables).cast::<u64>().write(0);
        (&raw mut (*event).length).write(ctx.len());
        (&raw mut (*event).cause).write(cause);
        (&raw mut (*event).port).write(TUNNEL_PORT);
        (&raw mut (*event).action).write(Action::Drop as u8);
        (&raw mut (*event).by_rule).write(0);
        (&raw mut (*event).captured).write(captured);
    }
    entry.submit(0);
    0
}

/// Reads from the network header on.
///
/// # Safety
/// There is room for as many bytes.
#[inline(always)]
unsafe fn load(ctx: &TcContext, to: *mut u8, length: u32) -> bool {
    // SAFETY: as the caller says.
    unsafe {
        bpf_skb_load_bytes_relative(ctx.as_ptr(), 0, to.cast(), length, BPF_HDR_START_NET) == 0
    }
}

/// Says that what is behind its call is rare.
#[cold]
#[inline(always)]
fn cold() {}
