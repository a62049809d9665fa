//! Sends frames into a cable and counts what comes out of its far end, above XDP: the tap sees what
//! a program passed and nothing that it dropped.

use std::{
    collections::HashMap,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, sendto,
        setsockopt, socket, sockopt::RcvBufForce,
    },
    unistd::Pid,
};

use crate::{
    cable::End,
    frames::{self, Frame, Stream},
    namespace::Namespace,
    wait::wait_for,
};

/// How often a thread looks whether it is to end, in milliseconds.
const LOOK_UP: u8 = 20;
/// Room for what waits to be counted, in bytes.
pub(crate) const ROOM: usize = 64 << 20;

/// Sends frames out of one end of a cable.
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
    interface: LinkAddr,
    source: [u8; 6],
    destination: [u8; 6],
}

impl Wire {
    /// Opens `from` in its namespace; frames go to `to` where they do not say otherwise.
    ///
    /// # Panics
    /// Where the kernel refuses.
    #[must_use]
    pub fn open(namespace: &Namespace, from: &End, to: &End) -> Self {
        // With protocol 0 it receives nothing.
        let (socket, interface) = open(namespace, &from.interface, None);
        Self {
            socket,
            interface,
            source: from.mac,
            destination: to.mac,
        }
    }

    /// Sends a frame `count` times.
    ///
    /// # Panics
    /// Where the kernel refuses.
    pub fn send(&self, frame: &Frame, count: u64) {
        let mut bytes = frame.bytes.clone();
        if bytes[..6] == [0; 6] {
            bytes[..6].copy_from_slice(&self.destination);
        }
        bytes[6..12].copy_from_slice(&self.source);
        for _ in 0..count {
            let sent = sendto(
                self.socket.as_raw_fd(),
                &bytes,
                &self.interface,
                MsgFlags::empty(),
            );
            sent.unwrap_or_else(|errno| panic!("sending {}: {errno}", frame.what));
        }
    }
}

/// Counts frames that come in at one end of a cable.
#[derive(Debug)]
pub struct Tap {
    counts: Arc<Mutex<HashMap<Stream, u64>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Tap {
    /// Begins to count at the end `at` what the end `from` sends. What goes the other way is left
    /// out: an ICMP error quotes the frame that it is about.
    ///
    /// # Panics
    /// Where the kernel refuses.
    #[must_use]
    pub fn open(namespace: &Namespace, at: &End, from: &End) -> Self {
        let (socket, _) = open(namespace, &at.interface, Some(SockProtocol::EthAll));
        let source = from.mac;
        let counts = Arc::new(Mutex::new(HashMap::new()));
        let ended = Arc::new(AtomicBool::new(false));
        let (shared, end) = (Arc::clone(&counts), Arc::clone(&ended));
        let thread = thread::spawn(move || count_into(&socket, source, &shared, &end));
        Self {
            counts,
            ended,
            thread: Some(thread),
        }
    }

    /// How many of a stream have come in.
    #[must_use]
    pub fn count(&self, stream: Stream) -> u64 {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(&stream).copied().unwrap_or(0)
    }

    /// Waits until everything that `wire` has sent is counted or lost: a cable keeps the order, so
    /// beacons that are sent last come in last. One from each CPU, for each has a queue of its own.
    ///
    /// # Panics
    /// Where the beacons do not come in.
    pub fn catch_up(&self, wire: &Wire) {
        let this = Pid::from_raw(0);
        let own = sched_getaffinity(this).expect("a thread may look at itself");
        for cpu in (0..CpuSet::count()).filter(|cpu| own.is_set(*cpu).unwrap_or(false)) {
            let mut only = CpuSet::new();
            only.set(cpu).expect("it is set in the thread's own");
            sched_setaffinity(this, &only).expect("the CPU is one of its own");
            let beacon = frames::beacon();
            wire.send(&beacon, 1);
            wait_for(Duration::from_secs(5), "a beacon at the far end", || {
                self.count(beacon.stream) == 1
            });
        }
        sched_setaffinity(this, &own).expect("it was so before");
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn count_into(
    socket: &OwnedFd,
    source: [u8; 6],
    counts: &Mutex<HashMap<Stream, u64>>,
    ended: &AtomicBool,
) {
    let mut buffer = vec![0; 1 << 16];
    while !ended.load(Ordering::Relaxed) {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => {
                let frame = &buffer[..length];
                if let Some(stream) = Stream::of(frame)
                    && frame[6..12] == source
                {
                    let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
                    *counts.entry(stream).or_default() += 1;
                }
            }
            Err(Errno::EAGAIN) => wait_readable(socket),
            // The interface went down or away; what came before was read.
            Err(Errno::ENETDOWN | Errno::EINTR) => {}
            Err(errno) => panic!("receiving frames: {errno}"),
        }
    }
}

/// Returns when there is something to read, or after a moment.
pub(crate) fn wait_readable(socket: &impl AsFd) {
    let mut waiting = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    // A signal only makes the wait shorter.
    let _ = poll(&mut waiting, PollTimeout::from(LOOK_UP));
}

fn open(
    namespace: &Namespace,
    interface: &str,
    protocol: Option<SockProtocol>,
) -> (OwnedFd, LinkAddr) {
    namespace.enter(|| {
        let address = link_address(interface);
        let opened = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::empty(),
            protocol,
        );
        let socket = opened.expect("root may open packet sockets");
        setsockopt(&socket, RcvBufForce, &ROOM).expect("root may set buffers");
        bind(socket.as_raw_fd(), &address).expect("the interface exists");
        (socket, address)
    })
}

fn link_address(interface: &str) -> LinkAddr {
    let addresses = getifaddrs().expect("interfaces can be listed");
    addresses
        .filter(|entry| entry.interface_name == interface)
        .find_map(|entry| entry.address?.as_link_addr().copied())
        .unwrap_or_else(|| panic!("no interface {interface} here"))
}
