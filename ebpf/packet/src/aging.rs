//! How far flows through Nat have come, and how long they are kept.

use headgate_layout::flows::{Firmness, Flow, Guard, Keep, State};

use crate::flows::{FlowTable, Known};

/// How long a flow in each state is kept with nothing heard, in units of 1.07 s.
pub const NEW: u32 = 30;
/// See [`NEW`]: the client's acknowledgement is missing.
pub const ANSWERED: u32 = 60;
/// See [`NEW`]: longer than two hours, when Linux asks a silent peer whether it lives
/// (`tcp_keepalive_time`).
pub const ESTABLISHED_TCP: u32 = 7_800;
/// See [`NEW`]: as in `nf_conntrack_udp_timeout_stream`.
pub const ESTABLISHED_UDP: u32 = 120;
/// See [`NEW`]: as conntrack waits for the other side's end.
pub const CLOSING: u32 = 120;

/// Whether a segment with these flags begins a connection.
#[inline(always)]
#[must_use]
pub const fn begins(flags: u8) -> bool {
    flags & (SYN | ACK | RST | FIN) == SYN
}

/// Whether a segment with these flags says that its connection ends.
#[inline(always)]
#[must_use]
pub const fn ends(flags: u8) -> bool {
    flags & (FIN | RST) != 0
}

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Whether a backend's first answer to a flow that has just begun looks so: what is no answer to a SYN
/// belongs to a connection of the backend's own, which somebody else may have forged the SYN into.
#[inline(always)]
#[must_use]
pub const fn answers(state: State, flags: u8) -> bool {
    !matches!(state, State::New) || flags & (SYN | RST) != 0
}

/// What a TCP segment says of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The flags.
    pub flags: u8,
    /// Its sequence number.
    pub sequence: u32,
    /// The sequence number that it awaits.
    pub acknowledgement: u32,
}

impl Segment {
    /// Whether it ends a connection at once.
    #[inline(always)]
    #[must_use]
    pub const fn resets(&self) -> bool {
        self.flags & RST != 0
    }
}

/// Keeps the flow young that was found with this guard, and follows how far it has come; `segment` is `None`
/// for UDP.
#[inline(always)]
pub fn advance<T: FlowTable>(table: &T, flow: &Flow, known: Known, segment: Option<Segment>) {
    let guard = known.guard();
    let state = guard.state();
    let next = match segment {
        Some(segment) => after_segment(flow, state, known.is_reply(), segment),
        None => match (state, known.is_reply()) {
            (State::New, true) => State::Answered,
            (State::Answered, false) => State::Established,
            _ => state,
        },
    };
    if next != state && !table.exchange_guard(&flow.guard, guard.0, guard.with(next).0) {
        // Somebody else was quicker: then it is theirs to say.
        return;
    }
    if next == State::New && flow.to_backend.get().is_to_stack() {
        // As in `of_client`: what nobody answers begins anew after a while.
        return;
    }
    let (lifetime, firmness) = match (next, segment) {
        (State::Established, Some(_)) => (ESTABLISHED_TCP, Firmness::Full),
        (State::Established, None) => (ESTABLISHED_UDP, Firmness::Little),
        (State::Closing, _) => (CLOSING, Firmness::Ending),
        (State::Answered, Some(_)) => (ANSWERED, Firmness::Little),
        _ => (NEW, Firmness::None),
    };
    let keep = Keep::until(table.now() + lifetime, firmness);
    if flow.keep.get() != keep.0 && guard.is_same(Guard(flow.guard.get())) {
        flow.keep.set(keep.0);
    }
}

/// Nothing that can be forged without an answer leads beyond [`State::Answered`], and what was not confirmed
/// does not end: whoever forges both would have a record for the price of two packets.
#[inline(always)]
fn after_segment(flow: &Flow, state: State, is_reply: bool, segment: Segment) -> State {
    const SYN_ACK: u8 = SYN | ACK;
    match state {
        State::New | State::Answered if is_reply && segment.flags & (SYN_ACK | RST) == SYN_ACK => {
            flow.awaited.set(segment.sequence.wrapping_add(1));
            State::Answered
        }
        State::Answered
            if !is_reply
                && segment.flags & (ACK | RST) == ACK
                && segment.acknowledgement == flow.awaited.get() =>
        {
            State::Established
        }
        State::Established if ends(segment.flags) => State::Closing,
        _ => state,
    }
}
