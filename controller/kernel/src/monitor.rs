//! Watching verdicts as they happen.

use std::{fs::File, num::NonZeroU32, path::PathBuf, time::Duration};

use aya::maps::{Map as AyaMap, MapData, RingBuf};
use headgate_datapath::{kernel::KernelError, state::PortIndex};
use headgate_layout::{
    maps::EVENTS,
    monitor::{ALLOWED, Budget, DROPPED, Event as RawEvent, NOT_IP, Order, TUNNEL_PORT},
    tables::NO_RULE,
    tunnel,
    verdict::{Action, Reason},
};
use rustix::time::{ClockId, clock_gettime};
use zerocopy::{FromBytes, IntoBytes};

use crate::{
    bpf::Map,
    error::{Asked, unusable},
    pins::Pins,
    shared::Shared,
};

/// How long programs go on after a monitor's last word.
const LEASE: Duration = Duration::from_secs(3);
/// What a CPU saves up of its rate for bursts.
const BURST: Duration = Duration::from_millis(250);

/// Which verdicts are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// Packets that are dropped.
    pub dropped: bool,
    /// IP packets that pass.
    pub allowed: bool,
    /// What is not IP, and passes.
    pub not_ip: bool,
}

impl Verdicts {
    fn word(self) -> u32 {
        let bit = |wanted, bit| if wanted { bit } else { 0 };
        bit(self.dropped, DROPPED) | bit(self.allowed, ALLOWED) | bit(self.not_ip, NOT_IP)
    }
}

/// What a monitor is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Verdicts.
    pub verdicts: Verdicts,
    /// Counter of the only rule whose packets are told.
    pub counter: Option<u32>,
    /// Events a second and CPU, at most.
    pub rate: NonZeroU32,
}

/// Who decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventCause {
    /// The rule with this counter.
    Rule(u32),
    /// No rule, for this reason.
    Reason(Reason),
    /// The tunnel.
    Tunnel(tunnel::Event),
}

/// One packet's verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, since the clock of [`now`] began; a few milliseconds coarse.
    pub time: Duration,
    /// Where it arrived; `None` where that, or where it was to leave, is the tunnel's device.
    pub port: Option<PortIndex>,
    /// Its verdict.
    pub action: Action,
    /// Who decided.
    pub cause: EventCause,
    /// First bytes of the digest of the tables that were asked, if any were.
    pub tables: Option<[u8; 8]>,
    /// Bytes as they are counted.
    pub length: u32,
    /// The frame's first bytes.
    pub frame: Vec<u8>,
}

/// Events that were not told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// For the rate's sake.
    pub limited: u64,
    /// Since they were not read as fast as they came.
    pub full: u64,
}

/// The clock of [`Event::time`]: it runs evenly and stands still while the node sleeps.
#[must_use]
pub fn now() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    // This clock is never negative.
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Sampling, which ends with this.
pub struct Monitor {
    /// Holds the lock.
    _folder: File,
    word: Map,
    order: Map,
    budgets: Map,
    events: RingBuf<MapData>,
    /// What had been lost before this began.
    before: Losses,
}

impl Monitor {
    pub(crate) fn start(pins: &Pins, filter: &Filter) -> Result<Self, KernelError> {
        let [word, order, budgets] = Shared::required(pins)?.monitored();
        let folder = locked(pins, &order)?;
        let path = pins.map(EVENTS.name);
        let events = MapData::from_pin(&path)
            .and_then(|map| RingBuf::try_from(AyaMap::RingBuf(map)))
            .map_err(std::io::Error::other)
            .asked(|| format!("opening the map {}", path.display()))?;
        let mut monitor = Self {
            _folder: folder,
            word,
            order,
            budgets,
            events,
            before: Losses::default(),
        };
        monitor.before = monitor.lost_ever()?;
        // What was left behind by one who was killed.
        while monitor.events.next().is_some() {}
        monitor.renew(filter)?;
        Ok(monitor)
    }

    /// Says that somebody is still there, and what is wanted from now on. To be called every second:
    /// after three without it, programs stop telling; and the loader clears the word whenever it
    /// loads one.
    ///
    /// # Errors
    /// The maps cannot be written.
    pub fn renew(&self, filter: &Filter) -> Result<(), KernelError> {
        let order = Order {
            until: nanoseconds(now() + LEASE),
            interval: 1_000_000_000 / u64::from(filter.rate.get()),
            burst: nanoseconds(BURST).max(1_000_000_000 / u64::from(filter.rate.get())),
            counter: filter.counter.unwrap_or(NO_RULE),
            holder: std::process::id(),
        };
        let asked = || "asking programs for events".to_owned();
        self.order.update(&[0; 4], order.as_bytes()).asked(asked)?;
        self.set_word(filter.verdicts.word()).asked(asked)
    }

    fn set_word(&self, word: u32) -> std::io::Result<()> {
        self.word.update(&[0; 4], &word.to_ne_bytes())
    }

    /// The next event, if one waits.
    pub fn next_event(&mut self) -> Option<Event> {
        while let Some(bytes) = self.events.next() {
            // What is none of ours can only have been written by another program of root's.
            if let Some(event) = read(&bytes) {
                return Some(event);
            }
        }
        None
    }

    /// What was not told since this began.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn losses(&self) -> Result<Losses, KernelError> {
        let ever = self.lost_ever()?;
        Ok(Losses {
            limited: ever.limited.saturating_sub(self.before.limited),
            full: ever.full.saturating_sub(self.before.full),
        })
    }

    fn lost_ever(&self) -> Result<Losses, KernelError> {
        let budgets = self
            .budgets
            .lookup(&[0; 4])
            .asked(|| "reading what was not told".to_owned())?;
        let each = budgets.chunks_exact(self.budgets.stride());
        let read = each.filter_map(|bytes| Budget::read_from_bytes(bytes).ok());
        Ok(read.fold(Losses::default(), |sum, budget| Losses {
            limited: sum.limited.wrapping_add(budget.limited),
            full: sum.full.wrapping_add(budget.full),
        }))
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        if let Err(error) = self.set_word(0) {
            tracing::warn!(%error, "programs go on for some seconds: cannot tell them to stop");
        }
    }
}

/// The pins' folder, locked: the kernel gives the lock back when its holder ends, however it does.
fn locked(pins: &Pins, order: &Map) -> Result<File, KernelError> {
    let path: PathBuf = pins.root().to_owned();
    let asked = || format!("locking the folder {}", path.display());
    let folder = File::open(&path).asked(asked)?;
    match folder.try_lock() {
        Ok(()) => Ok(folder),
        Err(std::fs::TryLockError::WouldBlock) => Err(unusable(
            format!("another monitor of this instance runs ({})", holder(order)),
            "end it first",
        )),
        Err(std::fs::TryLockError::Error(error)) => Err(error).asked(asked),
    }
}

fn holder(order: &Map) -> String {
    let order = order.lookup(&[0; 4]).ok();
    let order = order.and_then(|bytes| Order::read_from_bytes(&bytes).ok());
    order.map_or_else(
        || "unknown".to_owned(),
        |order| format!("pid {}", order.holder),
    )
}

fn nanoseconds(time: Duration) -> u64 {
    // Five centuries fit.
    time.as_nanos() as u64
}

/// `None` where the bytes are no event of this layout.
fn read(bytes: &[u8]) -> Option<Event> {
    let raw = RawEvent::read_from_bytes(bytes).ok()?;
    let at_tunnel = raw.port == TUNNEL_PORT;
    let cause = match raw.by_rule {
        0 if at_tunnel => {
            let mut events = tunnel::Event::ALL.iter();
            EventCause::Tunnel(*events.find(|event| **event as u32 == raw.cause)?)
        }
        0 => {
            let mut reasons = Reason::ALL.iter();
            EventCause::Reason(*reasons.find(|reason| **reason as u32 == raw.cause)?)
        }
        _ => EventCause::Rule(raw.cause),
    };
    let action = match raw.action {
        0 => Action::Allow,
        _ => Action::Drop,
    };
    Some(Event {
        time: Duration::from_nanos(raw.time),
        port: match at_tunnel {
            true => None,
            false => Some(PortIndex::new(u32::from(raw.port))?),
        },
        action,
        cause,
        tables: (raw.tables != [0; 8]).then_some(raw.tables),
        length: raw.length,
        frame: raw.frame.get(..raw.captured as usize)?.to_vec(),
    })
}
