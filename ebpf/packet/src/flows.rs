//! Flows that go through Nat: found, begun, aged.

use core::ops::Range;

use headgate_layout::{
    flows::{
        Entry, Flow, Guard, INDEX, Keep, ROW_WORDS, Shared, State, TRIES, is_given,
        one_if_negative, port, record, row,
    },
    services::{Backend, Way, hash_of, hash_of_flow, port_and_protocol},
    tables::Header,
};

use crate::blind::blinded;

/// The table, as `headgate_layout::flows` describes it.
pub trait FlowTable {
    /// The record with this number.
    fn flow(&self, number: u32) -> Option<&Flow>;

    /// The word of the index at this offset.
    fn entry(&self, offset: u32) -> Option<&Shared<u64>>;

    /// Puts `new` in the place of `old`, at once for all processors; false where something else stood
    /// there.
    fn exchange_guard(&self, word: &Shared<u32>, old: u32, new: u32) -> bool;

    /// As [`Self::exchange_guard`].
    fn exchange_entry(&self, word: &Shared<u64>, old: u64, new: u64) -> bool;

    /// The time, in [`headgate_layout::flows::SECOND`]s of `CLOCK_MONOTONIC`.
    fn now(&self) -> u32;
}

/// The table in the host's memory, for one thread.
#[derive(Clone, Copy, Debug)]
pub struct HostFlows<'a> {
    /// [`headgate_layout::flows::FLOWS`] records.
    pub flows: &'a [Flow],
    /// [`headgate_layout::flows::ROWS`] rows.
    pub index: &'a [Shared<u64>],
    /// See [`FlowTable::now`].
    pub now: u32,
}

impl FlowTable for HostFlows<'_> {
    fn flow(&self, number: u32) -> Option<&Flow> {
        self.flows.get(number as usize)
    }

    fn entry(&self, offset: u32) -> Option<&Shared<u64>> {
        self.index.get((offset.checked_sub(INDEX)? / 8) as usize)
    }

    fn exchange_guard(&self, word: &Shared<u32>, old: u32, new: u32) -> bool {
        exchange(word, old, new)
    }

    fn exchange_entry(&self, word: &Shared<u64>, old: u64, new: u64) -> bool {
        exchange(word, old, new)
    }

    fn now(&self) -> u32 {
        self.now
    }
}

fn exchange<T: Copy + PartialEq>(word: &Shared<T>, old: T, new: T) -> bool {
    let stands = word.get() == old;
    if stands {
        word.set(new);
    }
    stands
}

/// Both ends of a packet, as in [`headgate_layout::services::Service`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Source address.
    pub source: [u64; 2],
    /// Destination address.
    pub destination: [u64; 2],
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u8,
}

impl Ends {
    /// Hash of a flow, of which this is a packet of the client's.
    #[inline(always)]
    #[must_use]
    pub fn hash(&self) -> u64 {
        let service = hash_of(
            self.destination,
            port_and_protocol(self.destination_port, self.protocol),
        );
        hash_of_flow(service, self.source, self.source_port)
    }
}

/// Which flow a packet belongs to, in one word that is cheap to carry: 0 if to none, else twice the
/// record's number, plus 2, and 1 more where it comes from the backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known(pub u32);

impl Known {
    /// To none.
    pub const NONE: Self = Self(0);

    #[inline(always)]
    const fn new(number: u32, is_reply: bool) -> Self {
        Self(number * 2 + 2 + is_reply as u32)
    }

    /// Whether to any.
    #[inline(always)]
    #[must_use]
    pub const fn is_some(self) -> bool {
        self.0 != 0
    }

    /// Whether it comes from the backend.
    #[inline(always)]
    #[must_use]
    pub const fn is_reply(self) -> bool {
        self.0 & 1 != 0
    }

    /// The record's number.
    #[inline(always)]
    #[must_use]
    pub const fn number(self) -> u32 {
        (self.0 >> 1).wrapping_sub(1)
    }

    /// The same, of which the verifier knows nothing: see [`blinded`].
    #[inline(always)]
    #[must_use]
    pub fn blinded(self, header: &Header) -> Self {
        Self(blinded(self.0, header))
    }
}

/// The flow of a client's packet; `hash` is [`Ends::hash`]. Of two flows of a row whose hashes agree in 49
/// bits only one would be found.
#[inline(always)]
pub fn of_client<T: FlowTable>(table: &T, ends: &Ends, hash: u64) -> Known {
    let start = row(hash);
    let mut found = Entry(0);
    for word in 0..ROW_WORDS {
        let Some(entry) = table.entry(start + word * 8) else {
            return Known::NONE;
        };
        let entry = Entry(entry.get());
        let may_be = entry.may_be(hash);
        found = Entry(
            found
                .0
                .wrapping_add(entry.0.wrapping_sub(found.0).wrapping_mul(may_be)),
        );
    }
    let Some(flow) = table.flow(found.number()) else {
        return Known::NONE;
    };
    let guard = Guard(flow.guard.get());
    match found.leads_to(guard) && stands(guard) && is_from_client(flow, ends) {
        true => Known::new(found.number(), false),
        false => Known::NONE,
    }
}

/// The flow of a backend's reply.
#[inline(always)]
pub fn of_reply<T: FlowTable>(table: &T, ends: &Ends) -> Known {
    if !is_given(ends.destination_port) {
        return Known::NONE;
    }
    let key = port_and_protocol(ends.source_port, ends.protocol);
    let number = record(ends.source, key, ends.destination_port);
    match table.flow(number) {
        Some(flow) if stands(Guard(flow.guard.get())) && is_from_backend(flow, ends) => {
            Known::new(number, true)
        }
        _ => Known::NONE,
    }
}

#[inline(always)]
fn stands(guard: Guard) -> bool {
    !matches!(guard.state(), State::Free | State::Taken)
}

#[inline(always)]
fn is_from_client(flow: &Flow, ends: &Ends) -> bool {
    let differing = differing(flow.client.get(), ends.source)
        | differing(flow.service.get(), ends.destination)
        | u64::from(flow.client_port.get() ^ ends.source_port)
        | u64::from(flow.service_port.get() ^ ends.destination_port)
        | u64::from(flow.protocol.get() ^ u16::from(ends.protocol));
    differing == 0
}

#[inline(always)]
fn is_from_backend(flow: &Flow, ends: &Ends) -> bool {
    let differing = differing(flow.backend.get(), ends.source)
        | differing(flow.local.get(), ends.destination)
        | u64::from(flow.backend_port.get() ^ ends.source_port)
        | u64::from(flow.local_port.get() ^ ends.destination_port)
        | u64::from(flow.protocol.get() ^ u16::from(ends.protocol));
    differing == 0
}

#[inline(always)]
fn differing(one: [u64; 2], other: [u64; 2]) -> u64 {
    one[0] ^ other[0] | one[1] ^ other[1]
}

/// Begins the flow of a client's packet that came by the way back `to_client`. `None`: there is no room.
#[inline(always)]
pub fn begin<T: FlowTable>(
    table: &T,
    ends: &Ends,
    backend: &Backend,
    to_client: Way,
) -> Option<u32> {
    let hash = ends.hash();
    let now = table.now();
    let (number, port) = place(table, backend, ends.protocol, hash, now)?;
    let flow = table.flow(number)?;
    let guard = Guard(flow.guard.get());
    let taken = guard.taken();
    if guard.state() == State::Taken || !table.exchange_guard(&flow.guard, guard.0, taken.0) {
        return None;
    }
    flow.keep.set(Keep::WRITTEN.0);
    flow.awaited.set(0);
    flow.counter.set(backend.counter as u16);
    flow.protocol.set(u16::from(ends.protocol));
    flow.client.set(ends.source);
    flow.service.set(ends.destination);
    flow.backend.set(backend.address);
    flow.local.set(backend.local);
    flow.client_port.set(ends.source_port);
    flow.service_port.set(ends.destination_port);
    flow.backend_port.set(backend.port as u16);
    flow.local_port.set(port);
    flow.to_client.set(to_client);
    flow.to_backend.set(backend.way);
    let is_entered = enter(table, number, taken, hash, now);
    let (state, keep) = match is_entered {
        true => (State::New, Keep::until(now + NEW, false)),
        false => (State::Free, Keep(0)),
    };
    flow.keep.set(keep.0);
    // Exchanged and not just set: on a processor that writes out of order, all of the above comes first.
    table.exchange_guard(&flow.guard, taken.0, taken.with(state).0);
    is_entered.then_some(number)
}

/// The record, and its port of this node, that is missed least among those that a flow may have.
#[inline(always)]
fn place<T: FlowTable>(
    table: &T,
    backend: &Backend,
    protocol: u8,
    hash: u64,
    now: u32,
) -> Option<(u32, u16)> {
    let key = port_and_protocol(backend.port as u16, protocol);
    let least = |numbers: Range<u32>| {
        let mut least = Least::new();
        for number in numbers {
            let record = record(backend.address, key, port(hash, number));
            least.offer(Keep(table.flow(record)?.keep.get()).at(now), number);
        }
        least.number()
    };
    // Each look may be a cache miss: under a flood a few must do.
    let number = least(0..FIRST_TRIES).or_else(|| least(FIRST_TRIES..TRIES))?;
    let port = port(hash, number);
    Some((record(backend.address, key, port), port))
}

/// Writes the index's word for a record.
#[inline(always)]
fn enter<T: FlowTable>(table: &T, number: u32, guard: Guard, hash: u64, now: u32) -> bool {
    let start = row(hash);
    let first = (hash >> 20) as u32;
    let word_at = |number: u32| start + (first.wrapping_add(number) & (ROW_WORDS - 1)) * 8;
    let least = |numbers: Range<u32>| {
        let mut least = Least::new();
        for number in numbers {
            let entry = Entry(table.entry(word_at(number))?.get());
            let flow = table.flow(entry.number())?;
            let keep = Keep(flow.keep.get()).at(now);
            least.offer(entry.keep(Guard(flow.guard.get()), keep), number);
        }
        least.number()
    };
    let Some(word) = least(0..FIRST_WORDS).or_else(|| least(FIRST_WORDS..ROW_WORDS)) else {
        return false;
    };
    match table.entry(word_at(word)) {
        Some(entry) => {
            let new = Entry::new(number, guard, hash);
            table.exchange_entry(entry, entry.get(), new.0)
        }
        None => false,
    }
}

/// Records, and words of a row, that are looked at first.
const FIRST_TRIES: u32 = 4;
const FIRST_WORDS: u32 = 2;

/// Which of several is kept least, and how long: its number in the lower byte. Found without a branch, see
/// [`Keep`], and one after the other: all at a time would not fit on the stack of a program.
struct Least(u64);

impl Least {
    const fn new() -> Self {
        Self((Keep::WRITTEN.0 as u64) << 8)
    }

    #[inline(always)]
    fn offer(&mut self, keep: Keep, number: u32) {
        let offered = u64::from(keep.0) << 8 | u64::from(number);
        let is_less = one_if_negative(offered as i64 - self.0 as i64);
        self.0 = self
            .0
            .wrapping_add(offered.wrapping_sub(self.0).wrapping_mul(is_less));
    }

    /// `None` where all are kept whatever comes.
    #[inline(always)]
    fn number(&self) -> Option<u32> {
        let yields = Keep((self.0 >> 8) as u32).yields();
        yields.then_some(self.0 as u32 & 0xff)
    }
}

/// How long a flow in each state is kept with nothing heard, in units of 1.07 s.
pub const NEW: u32 = 30;
/// See [`NEW`]: the client's acknowledgement is missing.
pub const ANSWERED_TCP: u32 = 60;
/// See [`NEW`].
pub const ANSWERED_UDP: u32 = 120;
/// See [`NEW`]: longer than two hours, when Linux asks a silent peer whether it lives
/// (`tcp_keepalive_time`).
pub const ESTABLISHED: u32 = 7_800;
/// See [`NEW`]: as conntrack waits for the other side's end.
pub const CLOSING: u32 = 120;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

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
    /// Whether it begins a connection.
    #[inline(always)]
    #[must_use]
    pub const fn begins(&self) -> bool {
        self.flags & (SYN | ACK | RST | FIN) == SYN
    }
}

/// Keeps a flow young, and follows how far it has come; `segment` is `None` for UDP.
#[inline(always)]
pub fn advance<T: FlowTable>(table: &T, flow: &Flow, is_reply: bool, segment: Option<Segment>) {
    let guard = Guard(flow.guard.get());
    let state = guard.state();
    let next = match segment {
        // What nobody confirmed must not be kept for having ended: one could send both oneself.
        Some(segment) if segment.flags & (FIN | RST) != 0 => match state {
            State::Established => State::Closing,
            State::New | State::Answered if segment.flags & RST != 0 => State::Free,
            _ => state,
        },
        Some(segment) if is_reply => match (state, segment.flags & (SYN | ACK)) {
            (State::New | State::Answered, BOTH) => {
                flow.awaited.set(segment.sequence.wrapping_add(1));
                State::Answered
            }
            (State::New, _) => State::Answered,
            _ => state,
        },
        Some(segment) => {
            let confirms =
                segment.flags & ACK != 0 && segment.acknowledgement == flow.awaited.get();
            match state {
                State::Answered if confirms => State::Established,
                _ => state,
            }
        }
        None if is_reply && state == State::New => State::Answered,
        None => state,
    };
    let (lifetime, is_confirmed) = match (next, segment) {
        (State::Established, _) => (ESTABLISHED, true),
        (State::Closing, _) => (CLOSING, true),
        (State::Answered, Some(_)) => (ANSWERED_TCP, false),
        (State::Answered, None) => (ANSWERED_UDP, false),
        _ => (NEW, false),
    };
    let keep = match next {
        State::Free => Keep(0),
        _ => Keep::until(table.now() + lifetime, is_confirmed),
    };
    if flow.keep.get() != keep.0 {
        flow.keep.set(keep.0);
    }
    if next != state {
        // Somebody else was quicker: then it is theirs to say.
        table.exchange_guard(&flow.guard, guard.0, guard.with(next).0);
    }
}

const BOTH: u8 = SYN | ACK;

/// Gives up a flow.
#[inline(always)]
pub fn end<T: FlowTable>(table: &T, flow: &Flow) {
    let guard = Guard(flow.guard.get());
    flow.keep.set(0);
    table.exchange_guard(&flow.guard, guard.0, guard.with(State::Free).0);
}
