//! Finds out whether peers of the tunnel are there.
//!
//! A packet of the tunnel that came from a peer says so; a peer of which none came lately is asked: a TCP
//! connection to the tunnel's port is refused by any host that has nobody there. That wants no rights and no
//! Headgate at the other end. It proves that the host is up and that packets get there and back; not that UDP
//! to the port does, nor that its tunnel works.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use headgate_kernel::{Instance, RunningKernel};
use tokio::{
    net::TcpStream,
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    now,
    reachability::{Book, Heard, due, note},
};

/// Between two rounds.
const PAUSE: Duration = Duration::from_secs(2);

/// Whoever was heard within this is there.
const LATELY: Duration = Duration::from_secs(4);

/// How long an answer is waited for. Longer than the kernel asks for a neighbour, so that it is its to say
/// that there is none; a SYN goes out three times meanwhile.
const ANSWER: Duration = Duration::from_secs(4);

/// Peers asked in one round.
const MOST: usize = 200;

/// Endpoints to watch, with the tunnel's port.
pub(crate) type Targets = BTreeMap<IpAddr, u16>;

/// The task that watches, as the agent has it. It ends with this value.
#[derive(Debug)]
pub(crate) struct Prober {
    /// `None` before anybody said whom to watch: what a former agent found is kept until then.
    targets: watch::Sender<Option<Targets>>,
    found: watch::Receiver<Book>,
}

impl Prober {
    /// Begins with what a former agent found.
    pub(crate) fn start(instance: Instance, bpffs: PathBuf, former: Book) -> Self {
        let (targets, wanted) = watch::channel(None);
        let (told, found) = watch::channel(former);
        tokio::spawn(watch_over(instance, bpffs, wanted, told));
        Self { targets, found }
    }

    /// Watches these from now on.
    pub(crate) fn follow(&self, targets: Targets) {
        self.targets.send_if_modified(|known| {
            let targets = Some(targets);
            let is_new = *known != targets;
            *known = targets;
            is_new
        });
    }

    /// What is known.
    pub(crate) fn found(&mut self) -> Book {
        self.found.borrow_and_update().clone()
    }

    /// Returns when something else is known.
    pub(crate) async fn changed(&mut self) {
        if self.found.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

async fn watch_over(
    instance: Instance,
    bpffs: PathBuf,
    mut wanted: watch::Receiver<Option<Targets>>,
    told: watch::Sender<Book>,
) {
    let mut asked = BTreeMap::new();
    let mut trends = BTreeMap::new();
    let mut round = 0_u64;
    loop {
        let targets = wanted.borrow_and_update().clone();
        let Some(targets) = targets.filter(|targets| !targets.is_empty()) else {
            if wanted.borrow().is_some() {
                told.send_if_modified(|book| !std::mem::take(book).is_empty());
            }
            if wanted.changed().await.is_err() {
                return;
            }
            continue;
        };
        let ages = ages(&instance, &bpffs);
        let lately = ages.iter().filter(|(_, age)| **age <= LATELY);
        let heard: BTreeSet<IpAddr> = lately.map(|(endpoint, _)| *endpoint).collect();
        let endpoints: BTreeSet<IpAddr> = targets.keys().copied().collect();
        let silent: BTreeSet<IpAddr> = endpoints.difference(&heard).copied().collect();
        asked.retain(|endpoint, _| endpoints.contains(endpoint));
        trends.retain(|endpoint, _| endpoints.contains(endpoint));
        let mut answers = JoinSet::new();
        for endpoint in due(&silent, &asked, MOST) {
            asked.insert(endpoint, round);
            let place = SocketAddr::new(endpoint, targets[&endpoint]);
            answers.spawn(async move { (endpoint, ask(place).await) });
        }
        let mut found: Vec<_> = heard
            .into_iter()
            .map(|endpoint| (endpoint, Heard::Packet))
            .collect();
        found.extend(answers.join_all().await);
        told.send_if_modified(|book| {
            let before = book.clone();
            book.retain(|endpoint, _| endpoints.contains(endpoint));
            let found = found.into_iter();
            for (endpoint, heard) in found.filter(|(endpoint, _)| endpoints.contains(endpoint)) {
                let sends = ages.contains_key(&endpoint);
                note(book, &mut trends, (endpoint, sends), heard, now());
            }
            *book != before
        });
        if told.is_closed() {
            return;
        }
        round += 1;
        sleep(PAUSE).await;
    }
}

/// Who sent packets of the tunnel, and how long ago; nobody where the kernel does not tell.
fn ages(instance: &Instance, bpffs: &std::path::Path) -> BTreeMap<IpAddr, Duration> {
    let kernel = RunningKernel::open_read_only(instance, bpffs);
    let ages = kernel.and_then(|kernel| kernel.tunnel_seen());
    ages.unwrap_or_default()
}

/// Whether there is a host.
async fn ask(place: SocketAddr) -> Heard {
    let silent = "no packet of the tunnel comes from it, and";
    let what = format!("a TCP connection to {place}, which a host that is up refuses,");
    match timeout(ANSWER, TcpStream::connect(place)).await {
        Ok(Ok(_)) => Heard::Answer,
        Ok(Err(error)) if is_answer(&error) => Heard::Answer,
        Ok(Err(error)) => Heard::Nothing(format!("{silent} {what} failed: {error}")),
        Err(_) => Heard::Nothing(format!(
            "{silent} {what} is not answered within {} s: it is down, or something drops packets on the way, a policy or a firewall",
            ANSWER.as_secs()
        )),
    }
}

/// `PermissionDenied` is ICMPv6's "prohibited", which somebody at the other end has sent (`tcp_v6_err`,
/// net/ipv6/tcp_ipv6.c); that of IPv4 reads like a neighbour that is not there.
fn is_answer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::PermissionDenied
    )
}
