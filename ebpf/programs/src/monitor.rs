//! Events, for whoever watches.

use aya_ebpf::{
    EbpfContext as _,
    bindings::xdp_md,
    btf_maps::{Array, PerCpuArray, RingBuf},
    helpers::generated::{bpf_ktime_get_coarse_ns, bpf_xdp_load_bytes},
    macros::btf_map,
    programs::XdpContext,
};
use headgate_layout::{
    monitor::{ALLOWED, Budget, CAPTURED, DROPPED, Event, NOT_IP, Order, RING_BYTES},
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
    let (Some(order), Some(budget)) = (MONITOR.get(0), MONITOR_BUDGETS.get_ptr_mut(0)) else {
        return;
    };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    if now >= order.until {
        // Who asked is gone. Should somebody else have begun just now, they ask again in a second.
        // SAFETY: as in `tell`.
        unsafe { (&raw mut MONITORED).write_volatile(0) };
        return;
    }
    if order.counter != NO_RULE && (by_rule == 0 || cause != order.counter) {
        return;
    }
    // SAFETY: this CPU's own value, as in `maps::count`.
    let budget = unsafe { &mut *budget };
    let saved = budget.saved + (now - budget.reckoned);
    budget.saved = saved.min(order.burst);
    budget.reckoned = now;
    if budget.saved < order.interval {
        budget.limited += 1;
        return;
    }
    budget.saved -= order.interval;
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

/// Says that what is behind its call is rare.
#[cold]
#[inline(always)]
fn cold() {}
