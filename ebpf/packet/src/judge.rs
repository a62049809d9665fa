//! The verdict on a frame: parse, classify, failsafe.

use headgate_layout::{
    tables::{Header, NO_RULE},
    verdict::{Action, Reason},
};

use crate::{
    balance::{Question, Target, find},
    blind::blinded,
    classify::{Shape, classify},
    failsafe::Claim,
    flows::{FlowTable, Known},
    frame::Frame,
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

    /// What services and flows say of a packet: the word of a [`Target`], and its flow into `flow`. `tables`
    /// are those that [`Self::tables`] gave.
    #[inline(always)]
    fn find(&self, tables: &Self::Tables, question: &Question, flow: &mut Known) -> u32
    where
        Self: Sized,
    {
        find(self, tables, question, flow)
    }

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

/// A verdict in three words: cheap to carry, and aligned, which the verifier wants of words on the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Words {
    decision: u64,
    flow: u64,
    rest: u64,
}

/// Of [`Words::cause`]: it is a [`Reason`], and no rule's counter.
pub const IS_REASON: u32 = 1 << 31;

impl Words {
    /// Those of `verdict`.
    #[inline(always)]
    #[must_use]
    pub const fn of(verdict: &Verdict) -> Self {
        let cause = match verdict.cause {
            Cause::Rule(counter) => counter,
            Cause::Reason(reason) => IS_REASON | reason as u32,
        };
        Self {
            decision: (verdict.action as u64) << 32 | cause as u64,
            flow: verdict.flow.to_word(),
            rest: (verdict.length as u64) << 32 | verdict.backend as u64,
        }
    }

    /// The words themselves, and [`Self::joined`] again.
    #[inline(always)]
    #[must_use]
    pub const fn split(self) -> (u64, [u64; 2]) {
        (self.decision, [self.flow, self.rest])
    }

    /// See [`Self::split`].
    #[inline(always)]
    #[must_use]
    pub const fn joined(decision: u64, [flow, rest]: [u64; 2]) -> Self {
        Self {
            decision,
            flow,
            rest,
        }
    }

    /// The same packet, dropped for another reason.
    #[inline(always)]
    #[must_use]
    pub const fn but(self, reason: Reason) -> Self {
        let cause = (IS_REASON | reason as u32) as u64;
        Self {
            decision: (reason.action() as u64) << 32 | cause,
            ..self
        }
    }

    /// Whether the frame may not pass.
    #[inline(always)]
    #[must_use]
    pub const fn is_drop(&self) -> bool {
        self.decision >> 32 != 0
    }

    /// A rule's counter, or [`IS_REASON`] and a [`Reason`]'s number.
    #[inline(always)]
    #[must_use]
    pub const fn cause(&self) -> u32 {
        self.decision as u32
    }

    /// [`Verdict::flow`].
    #[inline(always)]
    #[must_use]
    pub const fn flow(&self) -> Known {
        Known::from_word(self.flow)
    }

    /// [`Verdict::length`].
    #[inline(always)]
    #[must_use]
    pub const fn length(&self) -> u32 {
        (self.rest >> 32) as u32
    }

    /// [`Verdict::backend`].
    #[inline(always)]
    #[must_use]
    pub const fn backend(&self) -> u32 {
        self.rest as u32
    }
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
    let asked = u64::from(packet.length) << 32 | u64::from(claim.to_word());
    let [asked, shape] = blinded([asked, Shape::of(&packet).to_word()], header);
    let (length, claim) = ((asked >> 32) as u32, Claim::from_word(asked as u32));
    let shape = Shape::from_word(shape);
    let target = match E::BALANCES {
        true => Target::of(environment, &tables, &packet).blinded(header),
        false => Target::NONE,
    };
    if target.flow.is_some() {
        return Verdict {
            backend: target.backend().and_then(Result::ok).unwrap_or(0),
            flow: target.flow,
            ..Verdict::by(Reason::KnownFlow, length)
        };
    }
    let Some(decision) = classify(&tables, shape, &packet.addresses) else {
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
        length,
        backend,
        flow: Known::NONE,
    };
    if dropped && !spared {
        return verdict(Action::Drop, 0);
    }
    match target.backend() {
        None => verdict(Action::Allow, 0),
        Some(Ok(backend)) => verdict(Action::Allow, backend),
        Some(Err(reason)) => Verdict::by(reason, length),
    }
}
