//! Paced UDP flows between sockets, numbered so that every datagram is accounted for.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};

use crate::{
    namespace::Namespace,
    tap::{ROOM, wait_readable},
};

/// Names a flow at the far end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowId(u32);

/// Most datagrams sent at once by a sender that fell behind: a cable's queue holds 256.
const BURST: u64 = 16;

/// A sender at work.
#[derive(Debug)]
pub struct Flow {
    /// Its name.
    pub id: FlowId,
    sent: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flow {
    /// Begins to send from each of `sources` in turn, `rate` datagrams a second in all, until it is
    /// stopped or `most` are sent.
    ///
    /// # Panics
    /// Where a source is no address of the namespace.
    #[must_use]
    pub fn start(
        from: &Namespace,
        sources: &[IpAddr],
        to: SocketAddr,
        rate: u32,
        most: u64,
    ) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = FlowId(NEXT.fetch_add(1, Ordering::Relaxed));
        let sockets = open_all(
            from,
            sources.iter().map(|source| SocketAddr::new(*source, 0)),
        );
        let sent = Arc::new(AtomicU64::new(0));
        let ended = Arc::new(AtomicBool::new(false));
        let (count, end) = (Arc::clone(&sent), Arc::clone(&ended));
        let thread = thread::spawn(move || send(id, &sockets, to, (rate, most), &count, &end));
        Self {
            id,
            sent,
            ended,
            thread: Some(thread),
        }
    }

    /// How many were sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    /// Ends the flow and says how many it sent in all.
    #[must_use]
    pub fn stop(mut self) -> u64 {
        self.end();
        self.sent()
    }

    fn end(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.end();
    }
}

fn send(
    id: FlowId,
    sockets: &[UdpSocket],
    to: SocketAddr,
    (rate, most): (u32, u64),
    count: &AtomicU64,
    ended: &AtomicBool,
) {
    let mut begun = Instant::now();
    let mut number = 0_u64;
    while !ended.load(Ordering::Relaxed) && number < most {
        let due = (begun.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        let behind = due.saturating_sub(number);
        if behind > BURST {
            // What was not sent in time is left out rather than sent all at once.
            begun += Duration::from_secs_f64((behind - BURST) as f64 / f64::from(rate));
        }
        for _ in 0..behind.min(BURST).min(most - number) {
            let mut datagram = [0; 12];
            datagram[..4].copy_from_slice(&id.0.to_be_bytes());
            datagram[4..].copy_from_slice(&number.to_be_bytes());
            let socket = &sockets[number as usize % sockets.len()];
            // An ICMP error that came for an earlier one: this one was not sent.
            if socket.send_to(&datagram, to).is_ok() {
                number += 1;
                count.store(number, Ordering::Release);
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Counts what arrives at UDP ports of a namespace.
#[derive(Debug)]
pub struct Receiver {
    seen: Arc<Mutex<HashMap<FlowId, Seen>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Which datagrams of a flow arrived.
#[derive(Clone, Debug, Default)]
struct Seen {
    numbers: Vec<bool>,
    unique: u64,
}

impl Seen {
    fn note(&mut self, number: u64) {
        let index = number as usize;
        if self.numbers.len() <= index {
            self.numbers.resize(index + 1, false);
        }
        if !std::mem::replace(&mut self.numbers[index], true) {
            self.unique += 1;
        }
    }
}

impl Receiver {
    /// Opens these ports, for both families.
    ///
    /// # Panics
    /// Where one is taken.
    #[must_use]
    pub fn open(namespace: &Namespace, ports: &[u16]) -> Self {
        let any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let sockets = open_all(
            namespace,
            ports.iter().map(|port| SocketAddr::new(any, *port)),
        );
        for socket in &sockets {
            setsockopt(socket, RcvBufForce, &ROOM).expect("root may set buffers");
        }
        let seen = Arc::new(Mutex::new(HashMap::new()));
        let ended = Arc::new(AtomicBool::new(false));
        let (shared, end) = (Arc::clone(&seen), Arc::clone(&ended));
        let thread = thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                read_all(&sockets, &shared);
                sockets.iter().for_each(wait_readable);
            }
        });
        Self {
            seen,
            ended,
            thread: Some(thread),
        }
    }

    /// How many different datagrams of a flow have arrived.
    #[must_use]
    pub fn received(&self, flow: FlowId) -> u64 {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(&flow).map_or(0, |seen| seen.unique)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn read_all(sockets: &[UdpSocket], seen: &Mutex<HashMap<FlowId, Seen>>) {
    let mut datagram = [0; 12];
    for socket in sockets {
        while let Ok(12) = socket.recv(&mut datagram) {
            let (id, number) = datagram
                .split_first_chunk()
                .expect("12 bytes are more than 4");
            let id = FlowId(u32::from_be_bytes(*id));
            let number = u64::from_be_bytes(number.try_into().expect("8 bytes are left"));
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.entry(id).or_default().note(number);
        }
    }
}

fn open_all(
    namespace: &Namespace,
    addresses: impl Iterator<Item = SocketAddr> + Send,
) -> Vec<UdpSocket> {
    namespace.enter(|| {
        let open = |address| {
            let socket = UdpSocket::bind(address);
            let socket = socket.unwrap_or_else(|error| panic!("binding {address}: {error}"));
            socket.set_nonblocking(true).expect("sockets can be so set");
            socket
        };
        addresses.map(open).collect()
    })
}
