//! Sends a frame on to its backend, or a backend's reply to its client.

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    btf_maps::PerCpuArray,
    helpers::generated::{bpf_ktime_get_coarse_ns, bpf_redirect},
    macros::btf_map,
    programs::XdpContext,
};
use headgate_layout::{
    services::{ErrorBudget, Way},
    verdict::Reason,
};
use headgate_packet::{
    balance::{REJECTED, Subject},
    flows::Known,
    forward::{Next, Passing, Refusal, depart, open},
    icmp,
    judge::Words,
    report::report,
    settling::placed,
};

use crate::{
    flows::MapFlows,
    frame::XdpFrame,
    maps::{MapTables, Node, RULE_COUNTERS, count},
    settling::MapPlacements,
};

/// Makes a frame that may pass the one for its backend or its client, if it has one. The verdict becomes another
/// where that cannot be done.
#[inline(always)]
pub fn forward<const BALANCES: bool>(
    ctx: &XdpContext,
    verdict: &mut Words,
    node: &Node<BALANCES>,
) -> Outcome {
    if verdict.is_drop() {
        return Outcome::taken(xdp_action::XDP_DROP);
    }
    let is_for_none = verdict.backend() == 0 && !verdict.flow().is_some();
    if !BALANCES || is_for_none {
        return Outcome::taken(xdp_action::XDP_PASS);
    }
    let (slot, backend, length) = (node.slot(), verdict.backend(), verdict.length());
    let flow = verdict.flow().to_word();
    let outcome = match Subject::from_word(backend) {
        None => Outcome(headgate_send_on(ctx.ctx, slot, backend, flow, length)),
        Some(_) => Outcome(headgate_pass_message(ctx.ctx, slot, backend, length)),
    };
    let outcome = match outcome.action() {
        OPENS => open_and_send(ctx, slot, backend, length),
        SETTLES => {
            let backend = headgate_place(ctx.ctx, slot, backend);
            Outcome(headgate_send_on(ctx.ctx, slot, backend, flow, length))
        }
        _ => outcome,
    };
    if let Some(refusal) = outcome.refusal() {
        *verdict = verdict.but(refusal.reason);
    }
    outcome
}

/// What the kernel is to do with a frame, of which its sender may be told that it was refused.
#[inline(always)]
pub fn conclude<const BALANCES: bool>(
    ctx: &XdpContext,
    outcome: Outcome,
    verdict: &Words,
    node: &Node<BALANCES>,
) -> u32 {
    let backend = verdict.backend();
    let is_told = match outcome.refusal().map(|refusal| refusal.reason) {
        // No error is told of an ICMP message.
        Some(Reason::MtuExceeded | Reason::TtlExceeded) => Subject::from_word(backend).is_none(),
        Some(Reason::NoBackend) => backend == REJECTED,
        _ => false,
    };
    match BALANCES && is_told {
        true => headgate_tell_sender(ctx.ctx, node.slot(), outcome.0, verdict.length()),
        false => outcome.action(),
    }
}

#[inline(always)]
fn open_and_send(ctx: &XdpContext, slot: u32, backend: u32, length: u32) -> Outcome {
    let flow = headgate_open(ctx.ctx, slot, backend);
    if flow == Known::NONE.to_word() {
        return Outcome::taken(xdp_action::XDP_PASS);
    }
    match flow & IS_REFUSAL {
        0 => Outcome(headgate_send_on(ctx.ctx, slot, backend, flow, length)),
        _ => Outcome(flow),
    }
}

/// Where the backend of a frame lies whose service settles. As [`crate::maps::headgate_find`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn headgate_place(ctx: *mut xdp_md, slot: u32, choice: u32) -> u32 {
    let ctx = &XdpContext::new(ctx);
    match MapTables::of(slot) {
        Some(tables) => placed(&XdpFrame::new(ctx), &tables, choice, MapPlacements::get),
        None => choice,
    }
}

/// In the action's place: the frame begins a flow.
const OPENS: u32 = 0xff;
/// In the action's place: the frame's service settles.
const SETTLES: u32 = 0xfe;

/// What tells a refusal, whose action is `XDP_DROP`, from a client's flow in a word: see [`Known::is_reply`].
const IS_REFUSAL: u64 = xdp_action::XDP_DROP as u64;

/// Begins the flow of a frame: [`Known::to_word`], or an [`Outcome`] that [`IS_REFUSAL`]. As
/// [`crate::maps::headgate_find`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn headgate_open(ctx: *mut xdp_md, slot: u32, backend: u32) -> u64 {
    let ctx = &XdpContext::new(ctx);
    let ifindex = ctx.ingress_ifindex() as u32;
    let Some(tables) = MapTables::of(slot) else {
        return Known::NONE.to_word();
    };
    match open(
        &XdpFrame::new(ctx),
        backend,
        ifindex,
        &tables,
        MapFlows::get,
    ) {
        Ok(flow) => flow.to_word(),
        Err(refusal) => Outcome::refused(refusal).0,
    }
}

/// What functions give each other, in one word: what the kernel is to do in the lower 16 bits; the MTU of a
/// refusal in the next; and the number of its reason in the upper half.
#[derive(Clone, Copy)]
pub struct Outcome(u64);

impl Outcome {
    const NO_REASON: u64 = u32::MAX as u64;

    #[inline(always)]
    const fn action(self) -> u32 {
        self.0 as u32 & 0xffff
    }

    #[inline(always)]
    const fn taken(action: u32) -> Self {
        Self(Self::NO_REASON << 32 | action as u64)
    }

    #[inline(always)]
    const fn refused(refusal: Refusal) -> Self {
        let mtu = (refusal.mtu as u64) << 16;
        Self((refusal.reason as u64) << 32 | mtu | xdp_action::XDP_DROP as u64)
    }

    #[inline(always)]
    fn refusal(self) -> Option<Refusal> {
        let reason = Reason::numbered((self.0 >> 32) as u32)?;
        let mtu = (self.0 >> 16) as u16;
        Some(Refusal { reason, mtu })
    }
}

/// Sends a frame to its backend or client: an [`Outcome`]. As [`crate::maps::headgate_find`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn headgate_send_on(
    ctx: *mut xdp_md,
    slot: u32,
    backend: u32,
    flow: u64,
    length: u32,
) -> u64 {
    let ctx = &XdpContext::new(ctx);
    let passing = passing(ctx, backend, Known::from_word(flow), length);
    let Some(tables) = MapTables::of(slot) else {
        return Outcome::taken(xdp_action::XDP_PASS).0;
    };
    let next = depart(&mut XdpFrame::new(ctx), &passing, &tables, MapFlows::get);
    leave(next, &passing).0
}

/// The same of an ICMP message.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn headgate_pass_message(ctx: *mut xdp_md, slot: u32, subject: u32, length: u32) -> u64 {
    let ctx = &XdpContext::new(ctx);
    let passing = passing(ctx, subject, Known::NONE, length);
    let Some(who) = Subject::from_word(subject) else {
        return Outcome::taken(xdp_action::XDP_PASS).0;
    };
    let Some(tables) = MapTables::of(slot) else {
        return Outcome::taken(xdp_action::XDP_PASS).0;
    };
    let frame = &mut XdpFrame::new(ctx);
    let departure = icmp::pass_on(
        frame,
        who,
        &passing,
        &tables,
        MapFlows::get,
        MapPlacements::get,
    );
    let next = departure.map(|departure| departure.map_or(Next::Stack, Next::Leaves));
    leave(next.map_err(Refusal::from), &passing).0
}

#[inline(always)]
fn passing(ctx: &XdpContext, backend: u32, flow: Known, length: u32) -> Passing {
    Passing {
        backend,
        flow,
        length,
        ifindex: ctx.ingress_ifindex() as u32,
    }
}

#[inline(always)]
fn leave(next: Result<Next, Refusal>, passing: &Passing) -> Outcome {
    match next {
        Ok(Next::Stack) => Outcome::taken(xdp_action::XDP_PASS),
        Ok(Next::Opens) => Outcome::taken(OPENS),
        Ok(Next::Settles) => Outcome::taken(SETTLES),
        Ok(Next::Leaves(departure)) => {
            if let Some(counter) = departure.counter {
                count(RULE_COUNTERS.get_ptr_mut(counter), passing.length);
            }
            Outcome::taken(send(passing.ifindex, &departure.way))
        }
        Err(refusal) => Outcome::refused(refusal),
    }
}

/// Makes a frame that was refused the ICMP error for its sender, if it is time for one; what the kernel is to
/// do.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn headgate_tell_sender(ctx: *mut xdp_md, slot: u32, outcome: u64, length: u32) -> u32 {
    let ctx = &XdpContext::new(ctx);
    let ifindex = ctx.ingress_ifindex() as u32;
    let Some(refusal) = Outcome(outcome).refusal().filter(|_| may_tell()) else {
        return xdp_action::XDP_DROP;
    };
    let Some(tables) = MapTables::of(slot) else {
        return xdp_action::XDP_DROP;
    };
    match report(&mut XdpFrame::new(ctx), &tables, refusal, length, ifindex) {
        Some(way) => send(ifindex, &way),
        None => xdp_action::XDP_DROP,
    }
}

#[btf_map]
static ERROR_BUDGETS: PerCpuArray<ErrorBudget, 1> = PerCpuArray::new();

/// Takes one from this CPU's budget of errors.
#[inline(always)]
fn may_tell() -> bool {
    let Some(budget) = ERROR_BUDGETS.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    // SAFETY: this CPU's own value, as in `maps::count`.
    let budget = unsafe { &mut *budget };
    budget.take(now)
}

#[inline(always)]
fn send(ifindex: u32, way: &Way) -> u32 {
    if way.passes_up() {
        return xdp_action::XDP_PASS;
    }
    if way.reflects() && way.ifindex == ifindex {
        return xdp_action::XDP_TX;
    }
    // SAFETY: a helper that keeps two numbers for when the program has ended.
    unsafe { bpf_redirect(way.ifindex, 0) as u32 }
}
