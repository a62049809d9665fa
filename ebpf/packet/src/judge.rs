//! The verdict on a frame: parse, classify, failsafe.

use headgate_layout::{
    tables::{Header, NO_RULE},
    verdict::{Action, Reason},
};

use crate::{
    balance::Target,
    classify::classify,
    failsafe::Claim,
    flows::{FlowTable, Known},
    frame::Frame,
    nat::can_be_changed,
    parse::{Addresses, Parsed, parse},
    tables::Tables,
};

/// What a verdict needs besides the frame.
pub trait Environment {
    /// Whether the load balancer is asked.
    const BALANCES: bool;

    /// The tables of one policy set.
    type Tables: Tables;

    /// The tables of the active revision for this port, or `None` where there are none.
    fn tables(&self) -> Option<Self::Tables>;

    /// The flows that go through Nat.
    type Flows: FlowTable;

    /// The flows of this node, or `None` where nothing goes through Nat.
    fn flows(&self) -> Option<Self::Flows>;

    /// Whether the source is a failsafe peer that may send what has this claim.
    fn is_failsafe_peer(&self, addresses: &Addresses, claim: Claim) -> bool;
}

/// Who decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The rule with this counter.
    Rule(u32),
    /// No rule, for this reason.
    Reason(Reason),
}

/// What becomes of a frame, why, and the bytes to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Allow or drop.
    pub action: Action,
    /// Rule or reason.
    pub cause: Cause,
    /// Bytes to count.
    pub length: u32,
    /// Where the tables say which [`headgate_layout::services::Backend`] it goes to; 0: none.
    pub backend: u32,
    /// The flow that it belongs to.
    pub flow: Known,
}

impl Verdict {
    #[inline(always)]
    fn by(reason: Reason, length: u32) -> Self {
        Self {
            action: reason.action(),
            cause: Cause::Reason(reason),
            length,
            backend: 0,
            flow: Known::NONE,
        }
    }
}

/// Judges `frame`.
#[inline(always)]
pub fn judge<F: Frame + ?Sized, E: Environment>(frame: &F, environment: &E) -> Verdict {
    let packet = match parse(frame) {
        Ok(Parsed::Ip(packet)) => packet,
        Ok(Parsed::NotIp) => return Verdict::by(Reason::NotIp, frame.linear_length()),
        Err(error) => return Verdict::by(error.reason(), frame.linear_length()),
    };
    let Some(tables) = environment.tables() else {
        return Verdict::by(Reason::NoTables, packet.length);
    };
    // Asked before the tables are, although few packets need it: see `classify`.
    let claim = Claim::of(&packet);
    let Some(header) = tables.at::<Header>(0) else {
        return Verdict::by(Reason::NoTables, packet.length);
    };
    let claim = claim.blinded(header);
    let target = match E::BALANCES {
        true => Target::of(environment, &tables, header, &packet).blinded(header),
        false => Target::NONE,
    };
    if target.flow.is_some() && can_be_changed(frame) {
        return Verdict {
            backend: target.backend().and_then(Result::ok).unwrap_or(0),
            flow: target.flow,
            ..Verdict::by(Reason::KnownFlow, packet.length)
        };
    }
    let Some(decision) = classify(&tables, &packet) else {
        return Verdict::by(Reason::NoTables, packet.length);
    };
    let dropped = decision.action == Action::Drop as u32;
    let spared =
        dropped && (claim.needed() || environment.is_failsafe_peer(&packet.addresses, claim));
    let cause = match decision.counter {
        _ if spared => Cause::Reason(Reason::Failsafe),
        NO_RULE if dropped => Cause::Reason(Reason::DefaultDrop),
        NO_RULE => Cause::Reason(Reason::DefaultAllow),
        counter => Cause::Rule(counter),
    };
    let verdict = |action, backend| Verdict {
        action,
        cause,
        length: packet.length,
        backend,
        flow: Known::NONE,
    };
    if dropped && !spared {
        return verdict(Action::Drop, 0);
    }
    match target.backend() {
        None => verdict(Action::Allow, 0),
        Some(Ok(backend)) => verdict(Action::Allow, backend),
        Some(Err(reason)) => Verdict::by(reason, packet.length),
    }
}
