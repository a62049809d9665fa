//! Layout of the table of flows that go through Nat: records, and an index by client.
//!
//! ```text
//! client, service ──hash──► a row of the index ──► Flow
//! backend, port of this node ──hash─────────────► Flow
//! ```
//!
//! A packet to a backend carries an address and a port of this node, and the backend answers to these.
//! The port is chosen so that it leads to a record that is free: a reply finds its record by its own
//! hash, and no two flows to one port of a backend can have the same port of this node. A backend on this
//! node sees the client's own address and port: its replies are found by a second word of the index. Nothing
//! is ever moved, and nobody waits for a lock: records and words of the index are taken by comparing and
//! exchanging one word.

use core::{cell::UnsafeCell, hint::black_box};

use zerocopy::{FromBytes, IntoBytes, KnownLayout};

use crate::services::{Way, half_mix, hash_of};

/// Flows of a node at most; a power of two.
pub const FLOWS: u32 = 1 << 18;

/// Words of a row.
pub const ROW_WORDS: u32 = 8;

/// Rows of the index; a power of two. Where all records are taken by flows of two words each, two words a row,
/// one in some thousand rows is full.
pub const ROWS: u32 = FLOWS;

/// Where the rows begin, behind the records.
pub const INDEX: u32 = FLOWS * size_of::<Flow>() as u32;

/// Bytes of the table.
pub const BYTES: u32 = INDEX + ROWS * ROW_WORDS * 8;

/// Records that are tried for a new flow, each with a port of its own.
pub const TRIES: u32 = 16;

/// The ports of this node that are given to flows: below those that Linux gives to its own connections
/// (`net.ipv4.ip_local_port_range`) and to Services of type NodePort.
pub const FIRST_PORT: u16 = 10_000;
/// How many.
pub const PORTS: u16 = 20_000;

/// A value that programs on several processors read and write.
#[derive(FromBytes, IntoBytes, KnownLayout, Debug)]
#[repr(transparent)]
pub struct Shared<T>(UnsafeCell<T>);

// SAFETY: a `T` is plain data that `get` and `set` copy as a whole. Who reads while another writes may get
// parts of both: what is read counts only beside a `Flow::guard` that says that it stands.
unsafe impl<T: Copy + Send> Sync for Shared<T> {}

impl<T: Copy> Shared<T> {
    /// The value at this moment.
    #[inline(always)]
    pub fn get(&self) -> T {
        // SAFETY: the memory is this value's, and any bytes make a `T`; volatile, as others write it.
        unsafe { self.0.get().read_volatile() }
    }

    /// Puts another value in its place.
    #[inline(always)]
    pub fn set(&self, value: T) {
        // SAFETY: as in `get`.
        unsafe { self.0.get().write_volatile(value) }
    }

    /// Where it lies.
    #[inline(always)]
    #[must_use]
    pub const fn as_ptr(&self) -> *mut T {
        self.0.get()
    }
}

/// One flow. Addresses are as in [`crate::services::Service::address`].
#[derive(FromBytes, KnownLayout, Debug)]
#[repr(C)]
pub struct Flow {
    /// A [`Guard`].
    pub guard: Shared<u32>,
    /// A [`Keep`].
    pub keep: Shared<u32>,
    /// TCP: the acknowledgement by which the client shows that the backend's answer reached it.
    pub awaited: Shared<u32>,
    /// Index of the rule counter of the service's port.
    pub counter: Shared<u16>,
    /// IP protocol number.
    pub protocol: Shared<u16>,
    /// The client's address.
    pub client: Shared<[u64; 2]>,
    /// The service's address.
    pub service: Shared<[u64; 2]>,
    /// The backend's address.
    pub backend: Shared<[u64; 2]>,
    /// The address of this node that the backend sees; the client's own where the backend is on this node.
    pub local: Shared<[u64; 2]>,
    /// The client's port.
    pub client_port: Shared<u16>,
    /// The service's port.
    pub service_port: Shared<u16>,
    /// The backend's port.
    pub backend_port: Shared<u16>,
    /// The port of this node that the backend sees.
    pub local_port: Shared<u16>,
    /// Where the client's latest packet came from.
    pub to_client: Shared<Way>,
    /// The way to the backend when the ring last had the same one for it.
    pub to_backend: Shared<Way>,
}

const _: () = assert!(size_of::<Flow>() == 128);

/// Nanoseconds of a unit of time, as a shift: 1.07 seconds.
pub const SECOND: u32 = 30;

/// How far a flow has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    /// No flow.
    Free = 0,
    /// Being written.
    Taken = 1,
    /// Only the client was heard.
    New = 2,
    /// The backend has answered: in TCP, with SYN and ACK.
    Answered = 3,
    /// The client has acknowledged the answer, which it cannot without having got it; in UDP it has only
    /// spoken again.
    Established = 4,
    /// A side of an established connection has said that it ends.
    Closing = 5,
}

/// State of a record, and how often it was taken: a word of the index that is older than its record does
/// not lead there any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard(pub u32);

impl Guard {
    /// The state; a number that is none counts as one being written.
    #[inline(always)]
    #[must_use]
    pub const fn state(self) -> State {
        match self.0 & 7 {
            0 => State::Free,
            2 => State::New,
            3 => State::Answered,
            4 => State::Established,
            5 => State::Closing,
            _ => State::Taken,
        }
    }

    /// The same record in another state.
    #[inline(always)]
    #[must_use]
    pub const fn with(self, state: State) -> Self {
        Self(self.0 & !7 | state as u32)
    }

    /// The record in the hands of somebody else.
    #[inline(always)]
    #[must_use]
    pub const fn taken(self) -> Self {
        Self(self.0.wrapping_add(8)).with(State::Taken)
    }

    /// Whether it is the same record in the same hands.
    #[inline(always)]
    #[must_use]
    pub const fn is_same(self, other: Self) -> bool {
        self.0 >> 3 == other.0 >> 3
    }

    /// Whether it stands for a flow.
    #[inline(always)]
    #[must_use]
    pub const fn stands(self) -> bool {
        !matches!(self.state(), State::Free | State::Taken)
    }

    /// What a word of the index keeps of it.
    #[inline(always)]
    #[must_use]
    pub const fn generation(self) -> u32 {
        self.0 >> 3 & 0xfff
    }
}

/// How long a record is kept for its flow, and how firmly: 0 if it is free, else until when if nothing more
/// is heard, in [`SECOND`]s of `CLOCK_MONOTONIC`, below a [`Firmness`]. Of two, the lesser goes first.
/// Reckoned without a branch: the verifier would walk all that follows for each way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep(pub u32);

/// What it takes for another flow to get a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Firmness {
    /// Nothing: anybody could have begun it, and no answer is on the way to a client that waits.
    None = 0,
    /// That none of the former is there.
    Little = 1,
    /// That none of the former is there: it ends anyway.
    Ending = 2,
    /// Not before its time.
    Full = 3,
}

impl Keep {
    const TIME_BITS: u32 = 30;

    /// Of a record that is being written.
    pub const WRITTEN: Self = Self(u32::MAX);

    /// Until then.
    #[inline(always)]
    #[must_use]
    pub const fn until(time: u32, firmness: Firmness) -> Self {
        Self(time | (firmness as u32) << Self::TIME_BITS)
    }

    /// Until when.
    #[inline(always)]
    #[must_use]
    pub const fn time(self) -> u32 {
        self.0 & ((1 << Self::TIME_BITS) - 1)
    }

    /// 0 where nobody has it any more at this time.
    #[inline(always)]
    #[must_use]
    pub fn at(self, now: u32) -> Self {
        let left = i64::from(self.time()) - i64::from(now);
        Self(self.0 * one_if_negative(-left) as u32)
    }

    /// Whether it is kept no more firmly than this.
    #[inline(always)]
    #[must_use]
    pub const fn yields(self, firmness: Firmness) -> bool {
        self.0 >> Self::TIME_BITS <= firmness as u32
    }
}

/// A word of the index: 0 where it is free, else a record's number and generation, and a part of the hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry(pub u64);

impl Entry {
    /// The word for a record.
    #[inline(always)]
    #[must_use]
    pub const fn new(number: u32, guard: Guard, flow: u64) -> Self {
        let record = number | 1 << 19 | (guard.generation() << 20);
        Self(record as u64 | flow >> 32 << 32)
    }

    /// 1 where it may stand for a flow with this hash, else 0.
    #[inline(always)]
    #[must_use]
    pub fn may_be(self, flow: u64) -> u64 {
        let differing = (self.0 ^ flow) >> 32;
        one_if_negative(differing as i64 - 1) * self.is_used()
    }

    const fn is_used(self) -> u64 {
        self.0 >> 19 & 1
    }

    /// The record's number.
    #[inline(always)]
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0 as u32 & (FLOWS - 1)
    }

    /// Whether it leads to the record with this guard.
    #[inline(always)]
    #[must_use]
    pub const fn leads_to(self, guard: Guard) -> bool {
        self.differs(guard) == 0
    }

    /// How it is kept, if its record is kept so: a word that does not lead there any more is free.
    #[inline(always)]
    #[must_use]
    pub fn keep(self, guard: Guard, keep: Keep) -> Keep {
        let leads = one_if_negative(i64::from(self.differs(guard)) - 1) * self.is_used();
        Keep(keep.0 * leads as u32)
    }

    const fn differs(self, guard: Guard) -> u32 {
        self.0 as u32 >> 20 ^ guard.generation()
    }
}

/// 1 where `number` is below 0, else 0: a factor for what a branch would choose, which the verifier would
/// follow both ways. It does so for masks as well (`maybe_fork_scalars` in kernel/bpf/verifier.c), and the
/// compiler makes a branch of a factor of which it knows how it came about.
#[inline(always)]
#[must_use]
pub fn one_if_negative(number: i64) -> u64 {
    black_box(black_box(number) as u64 >> 63)
}

/// Where the row of a flow with this hash begins.
#[inline(always)]
#[must_use]
pub const fn row(flow: u64) -> u32 {
    INDEX + (flow as u32 & (ROWS - 1)) * ROW_WORDS * 8
}

/// Which port a flow with this hash gets at the `number`th try.
#[inline(always)]
#[must_use]
pub const fn port(flow: u64, number: u32) -> u16 {
    let hash = (flow >> 32) as u32;
    let hash = hash.wrapping_add(number.wrapping_mul(0x9e37_79b9));
    FIRST_PORT + ((hash as u64 * PORTS as u64) >> 32) as u16
}

/// Whether this port may be one that was given to a flow.
#[inline(always)]
#[must_use]
pub const fn is_given(port: u16) -> bool {
    port.wrapping_sub(FIRST_PORT) < PORTS
}

/// Number of the record that belongs to a port of this node towards a port of a backend, given as
/// [`crate::services::port_and_protocol`].
#[inline(always)]
#[must_use]
pub const fn record(backend: [u64; 2], backend_port: u32, local_port: u16) -> u32 {
    let hash = hash_of(backend, backend_port).wrapping_add(local_port as u64);
    half_mix(hash.wrapping_mul(0x9e37_79b9_7f4a_7c15)) as u32 & (FLOWS - 1)
}

/// Where a record lies.
#[inline(always)]
#[must_use]
pub const fn at(number: u32) -> u32 {
    (number & (FLOWS - 1)) * size_of::<Flow>() as u32
}
