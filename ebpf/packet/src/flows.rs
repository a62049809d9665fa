//! Flows that go through Nat: found, begun, aged.

use core::ops::Range;

use headgate_layout::{
    flows::{
        Entry, Firmness, Flow, Guard, INDEX, Keep, ROW_WORDS, Shared, State, TRIES, is_given,
        one_if_negative, port, record, row,
    },
    services::{Backend, Way, hash_of, hash_of_flow, port_and_protocol},
};

use crate::aging::NEW;

/// The table, as `headgate_layout::flows` describes it.
pub trait FlowTable: Copy {
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
#[repr(C)]
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

    /// The same packet as its receiver would answer it.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
        }
    }
}

/// Which flow a packet belongs to, in two words that are cheap to carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Known {
    /// 0 if to none, else twice the record's number, plus 2, and 1 more where it comes from the backend.
    word: u32,
    /// Its [`Guard`] when it was found.
    guard: u32,
}

impl Known {
    /// To none.
    pub const NONE: Self = Self { word: 0, guard: 0 };

    #[inline(always)]
    const fn new(number: u32, guard: Guard, is_reply: bool) -> Self {
        Self {
            word: number * 2 + 2 + is_reply as u32,
            guard: guard.0,
        }
    }

    /// In one word, and [`Self::from_word`] back.
    #[inline(always)]
    #[must_use]
    pub const fn to_word(self) -> u64 {
        (self.guard as u64) << 32 | self.word as u64
    }

    /// See [`Self::to_word`].
    #[inline(always)]
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        Self {
            word: word as u32,
            guard: (word >> 32) as u32,
        }
    }

    /// Whether to any.
    #[inline(always)]
    #[must_use]
    pub const fn is_some(self) -> bool {
        self.word != 0
    }

    /// Whether it comes from the backend.
    #[inline(always)]
    #[must_use]
    pub const fn is_reply(self) -> bool {
        self.word & 1 != 0
    }

    /// The record's number.
    #[inline(always)]
    #[must_use]
    pub const fn number(self) -> u32 {
        (self.word >> 1).wrapping_sub(1)
    }

    /// What its record's guard was.
    #[inline(always)]
    #[must_use]
    pub const fn guard(self) -> Guard {
        Guard(self.guard)
    }
}

/// What a client's packet is compared with, besides its ends.
pub struct Asking<'a> {
    /// [`Ends::hash`].
    pub hash: u64,
    /// Whether it begins a TCP connection.
    pub begins: bool,
    /// Of UDP, the backend that the ring has for it.
    pub backend: Option<&'a Backend>,
}

/// The flow of a client's packet. A port that is used again begins anew, and so does UDP, which has no
/// connections to keep, where the ring has another backend. Of two flows of a row whose hashes agree in 49
/// bits only one would be found.
#[inline(always)]
pub fn of_client<T: FlowTable>(table: &T, ends: &Ends, asking: &Asking<'_>) -> Known {
    let Some((_, found)) = entry_of(table, asking.hash) else {
        return Known::NONE;
    };
    let Some(flow) = table.flow(found.number()) else {
        return Known::NONE;
    };
    let guard = Guard(flow.guard.get());
    let is_it = found.leads_to(guard) && guard.stands() && is_from_client(flow, ends);
    let begins_anew = match guard.state() {
        State::Closing => true,
        // Its second word may have been lost, without which nobody would see the answer.
        State::New => flow.to_backend.get().is_to_stack(),
        _ => false,
    };
    let has_ended = asking.begins && begins_anew
        || asking
            .backend
            .is_some_and(|backend| !goes_to(flow, backend))
        || Keep(flow.keep.get()).at(table.now()).0 == 0;
    match is_it && !has_ended {
        true => Known::new(found.number(), guard, false),
        false => Known::NONE,
    }
}

/// The last word of a flow's row that may be its own, and its number; 0 where none is.
#[inline(always)]
fn entry_of<T: FlowTable>(table: &T, hash: u64) -> Option<(u32, Entry)> {
    let start = row(hash);
    let (mut number, mut found) = (0, Entry(0));
    for word in 0..ROW_WORDS {
        let entry = Entry(table.entry(start + word * 8)?.get());
        let may_be = entry.may_be(hash);
        found = Entry(chosen(found.0, entry.0, may_be));
        number = chosen(number, u64::from(word), may_be);
    }
    Some((number as u32, found))
}

/// `other` where `factor` is 1, `one` where it is 0.
#[inline(always)]
pub(crate) fn chosen(one: u64, other: u64, factor: u64) -> u64 {
    one.wrapping_add(other.wrapping_sub(one).wrapping_mul(factor))
}

#[inline(always)]
fn goes_to(flow: &Flow, backend: &Backend) -> bool {
    let of_backend = differing(flow.backend.get(), backend.address)
        | u64::from(u32::from(flow.backend_port.get()) ^ backend.port);
    let is_seen_so = match backend.way.is_to_stack() {
        true => flow.to_backend.get().is_to_stack(),
        false => differing(flow.local.get(), backend.local) == 0,
    };
    of_backend == 0 && is_seen_so
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
        Some(flow) => {
            let guard = Guard(flow.guard.get());
            let is_kept = Keep(flow.keep.get()).at(table.now()).0 != 0;
            match guard.stands() && is_kept && is_from_backend(flow, ends) {
                true => Known::new(number, guard, true),
                false => Known::NONE,
            }
        }
        None => Known::NONE,
    }
}

/// The flow of a reply of a backend on this node.
#[inline(always)]
pub fn of_reply_here<T: FlowTable>(table: &T, ends: &Ends) -> Known {
    let Some((_, found)) = entry_of(table, ends.reversed().hash()) else {
        return Known::NONE;
    };
    let Some(flow) = table.flow(found.number()).filter(|_| found.0 != 0) else {
        return Known::NONE;
    };
    let guard = Guard(flow.guard.get());
    let is_kept = Keep(flow.keep.get()).at(table.now()).0 != 0;
    let is_it = found.leads_to(guard) && guard.stands() && is_from_backend(flow, ends);
    match is_it && is_kept && flow.to_backend.get().is_to_stack() {
        true => Known::new(found.number(), guard, true),
        false => Known::NONE,
    }
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
) -> Option<Known> {
    let hash = ends.hash();
    let now = table.now();
    let place = place(table, backend, ends.protocol, hash, now)?;
    let seen = seen_by(backend, ends, place.port);
    if backend.way.is_to_stack() && is_anothers(table, &seen, ends, now) {
        return None;
    }
    let flow = table.flow(place.number)?;
    let taken = place.guard.taken();
    if place.guard.state() == State::Taken
        || !table.exchange_guard(&flow.guard, place.guard.0, taken.0)
    {
        return None;
    }
    flow.keep.set(Keep::WRITTEN.0);
    flow.awaited.set(0);
    flow.counter.set(backend.counter as u16);
    flow.protocol.set(u16::from(ends.protocol));
    flow.client.set(ends.source);
    flow.service.set(ends.destination);
    flow.backend.set(backend.address);
    flow.local.set(seen.source);
    flow.client_port.set(ends.source_port);
    flow.service_port.set(ends.destination_port);
    flow.backend_port.set(backend.port as u16);
    flow.local_port.set(seen.source_port);
    flow.to_client.set(to_client);
    flow.to_backend.set(backend.way);
    let mut is_entered = enter(*table, place.number, taken, hash, now);
    if backend.way.is_to_stack() {
        is_entered &= enter(*table, place.number, taken, seen.hash(), now);
    }
    let (state, keep) = match is_entered {
        true => (State::New, Keep::until(now + NEW, Firmness::None)),
        false => (State::Free, Keep(0)),
    };
    flow.keep.set(keep.0);
    // Exchanged and not just set: on a processor that writes out of order, all of the above comes first.
    table.exchange_guard(&flow.guard, taken.0, taken.with(state).0);
    is_entered.then_some(Known::new(place.number, taken.with(state), false))
}

/// Whether the replies to a packet that the backend on this node would see so are awaited by another flow that
/// is more than begun: of the same client by another service.
#[inline(always)]
fn is_anothers<T: FlowTable>(table: &T, seen: &Ends, ends: &Ends, now: u32) -> bool {
    let Some((_, entry)) = entry_of(table, seen.hash()) else {
        return false;
    };
    let Some(flow) = table.flow(entry.number()) else {
        return false;
    };
    let keep = Keep(flow.keep.get()).at(now);
    let keep = entry.keep(Guard(flow.guard.get()), keep);
    !keep.yields(Firmness::None) && !is_from_client(flow, ends)
}

/// A client's packet as the backend sees it, which on this node is from the client itself.
#[inline(always)]
fn seen_by(backend: &Backend, ends: &Ends, port: u16) -> Ends {
    let (source, source_port) = match backend.way.is_to_stack() {
        true => (ends.source, ends.source_port),
        false => (backend.local, port),
    };
    Ends {
        source,
        source_port,
        destination: backend.address,
        destination_port: backend.port as u16,
        protocol: ends.protocol,
    }
}

/// A record that may be taken, and its port of this node.
struct Place {
    number: u32,
    port: u16,
    guard: Guard,
}

/// The record that is missed least among those that a flow may have.
#[inline(always)]
fn place<T: FlowTable>(
    table: &T,
    backend: &Backend,
    protocol: u8,
    hash: u64,
    now: u32,
) -> Option<Place> {
    let key = port_and_protocol(backend.port as u16, protocol);
    let mut best = Least::new();
    // Each look may be a cache miss, and most often the first finds a free one.
    best.look(0..FIRST_TRIES, TRIES, |number| {
        let flow = table.flow(record(backend.address, key, port(hash, number)))?;
        let keep = Keep(flow.keep.get()).at(now);
        Some((keep, u64::from(flow.guard.get())))
    })?;
    let port = port(hash, best.number()?);
    Some(Place {
        number: record(backend.address, key, port),
        port,
        guard: Guard(best.value as u32),
    })
}

/// Writes the index's word for a record: that which a flow of the same client had, else the one that is
/// missed least.
#[inline(never)]
fn enter<T: FlowTable>(table: T, number: u32, guard: Guard, hash: u64, now: u32) -> bool {
    let table = &table;
    let Some((former, entry)) = entry_of(table, hash) else {
        return false;
    };
    let first = (hash >> 20) as u32;
    let place_of = |number: u32| first.wrapping_add(number) & (ROW_WORDS - 1);
    let start = row(hash);
    let (word, old) = if entry.0 != 0 {
        (former, entry.0)
    } else {
        let mut best = Least::new();
        let looked = best.look(0..FIRST_WORDS, ROW_WORDS, |number| {
            let entry = Entry(table.entry(start + place_of(number) * 8)?.get());
            let flow = table.flow(entry.number())?;
            let keep = Keep(flow.keep.get()).at(now);
            Some((entry.keep(Guard(flow.guard.get()), keep), entry.0))
        });
        match looked.and(best.number()) {
            Some(number) => (place_of(number), best.value),
            None => return false,
        }
    };
    match table.entry(start + (word & (ROW_WORDS - 1)) * 8) {
        Some(entry) => table.exchange_entry(entry, old, Entry::new(number, guard, hash).0),
        None => false,
    }
}

/// Records, and words of a row, that are looked at first.
const FIRST_TRIES: u32 = 4;
const FIRST_WORDS: u32 = 2;

/// Which of several is kept least. Found without a branch, see [`Keep`].
pub(crate) struct Least {
    /// Above the number, in the lower byte.
    keep: u64,
    /// What goes with it.
    pub(crate) value: u64,
}

impl Least {
    pub(crate) const fn new() -> Self {
        Self {
            keep: (Keep::WRITTEN.0 as u64) << 8,
            value: 0,
        }
    }

    /// Looks at those with these numbers, and at all others up to `end` if none of them is free.
    #[inline(always)]
    pub(crate) fn look(
        &mut self,
        first: Range<u32>,
        end: u32,
        at: impl Fn(u32) -> Option<(Keep, u64)>,
    ) -> Option<()> {
        let rest = first.end..end;
        for number in first {
            let (keep, value) = at(number)?;
            self.offer(keep, number, value);
        }
        if self.found().0 == 0 {
            return Some(());
        }
        for number in rest {
            let (keep, value) = at(number)?;
            self.offer(keep, number, value);
        }
        Some(())
    }

    #[inline(always)]
    fn offer(&mut self, keep: Keep, number: u32, value: u64) {
        let offered = u64::from(keep.0) << 8 | u64::from(number);
        let is_less = one_if_negative(offered as i64 - self.keep as i64);
        self.keep = chosen(self.keep, offered, is_less);
        self.value = chosen(self.value, value, is_less);
    }

    #[inline(always)]
    pub(crate) fn found(&self) -> Keep {
        Keep((self.keep >> 8) as u32)
    }

    /// `None` where all are kept whatever comes.
    #[inline(always)]
    fn number(&self) -> Option<u32> {
        self.number_yielding(Firmness::Ending)
    }

    /// `None` where all are kept more firmly than this.
    #[inline(always)]
    pub(crate) fn number_yielding(&self, firmness: Firmness) -> Option<u32> {
        let yields = self.found().yields(firmness);
        yields.then_some(self.keep as u32 & 0xff)
    }
}
