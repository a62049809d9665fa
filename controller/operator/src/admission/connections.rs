//! The connections that stand: how many there may be, which goes to make room, and their end.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until, timeout},
};

use super::limits;

/// Between two attempts to make room.
const PAUSE: Duration = Duration::from_millis(100);

/// All connections.
pub(super) struct Connections {
    room: Arc<Semaphore>,
    standing: Mutex<Vec<Arc<Activity>>>,
}

impl Connections {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            room: Arc::new(Semaphore::new(limits::MOST_CONNECTIONS)),
            standing: Mutex::default(),
        })
    }

    /// A place for one more. Where there is none, the connection goes that has been silent for
    /// longest: who keeps connections without asking anything keeps nobody out.
    pub(super) async fn place(self: &Arc<Self>) -> Place {
        let room = loop {
            let room = Arc::clone(&self.room);
            if let Ok(room) = Arc::clone(&room).try_acquire_owned() {
                break room;
            }
            self.dismiss_the_most_silent();
            if let Ok(room) = timeout(PAUSE, room.acquire_owned()).await {
                break room.expect("the semaphore is never closed");
            }
        };
        let activity = Arc::new(Activity::new());
        lock(&self.standing).push(Arc::clone(&activity));
        Place {
            connections: Arc::clone(self),
            activity,
            _room: room,
        }
    }

    fn dismiss_the_most_silent(&self) {
        let standing = lock(&self.standing);
        let silent = |activity: &Arc<Activity>| Some((activity.silent()?, Arc::clone(activity)));
        let silent = standing.iter().filter_map(silent);
        if let Some((_, activity)) = silent.min_by_key(|(since, _)| *since) {
            activity.dismiss();
        }
    }

    /// Ends all of them, each when what is under way on it is answered. No other may come
    /// meanwhile.
    pub(super) async fn end(&self) {
        for activity in &*lock(&self.standing) {
            activity.dismiss();
        }
        let all = u32::try_from(limits::MOST_CONNECTIONS).expect("there are few");
        let _ = timeout(
            limits::FAREWELL + limits::GRACE,
            self.room.acquire_many(all),
        )
        .await;
    }
}

/// What a connection takes as long as it stands.
pub(super) struct Place {
    connections: Arc<Connections>,
    pub(super) activity: Arc<Activity>,
    _room: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        let is_another = |other: &Arc<Activity>| !Arc::ptr_eq(other, &self.activity);
        lock(&self.connections.standing).retain(is_another);
    }
}

/// What happens on a connection.
pub(super) struct Activity {
    requests: Mutex<Requests>,
    dismissed: Notify,
}

struct Requests {
    under_way: usize,
    /// When it came, or its last request was answered.
    silent_since: Instant,
    /// How long it may be silent.
    patience: Duration,
    is_dismissed: bool,
}

impl Activity {
    fn new() -> Self {
        Self {
            requests: Mutex::new(Requests {
                under_way: 0,
                silent_since: Instant::now(),
                patience: limits::HEAD,
                is_dismissed: false,
            }),
            dismissed: Notify::new(),
        }
    }

    /// Counts a request until what it gives is dropped: a client may give it up at any time.
    pub(super) fn start(self: &Arc<Self>) -> UnderWay {
        lock(&self.requests).under_way += 1;
        UnderWay(Arc::clone(self))
    }

    pub(super) fn is_busy(&self) -> bool {
        lock(&self.requests).under_way > 0
    }

    /// Waits until nothing of it is worth waiting for any more.
    pub(super) async fn wait_for_its_end(&self) {
        loop {
            let until = {
                let requests = lock(&self.requests);
                match requests.under_way {
                    0 => requests.silent_since + requests.patience,
                    _ => Instant::now() + limits::IDLE,
                }
            };
            if until <= Instant::now() {
                return;
            }
            tokio::select! {
                () = sleep_until(until) => {}
                () = self.dismissed() => return,
            }
        }
    }

    /// Waits until its place is wanted.
    pub(super) async fn dismissed(&self) {
        self.dismissed.notified().await;
        // Whoever waits next is to know, too.
        self.dismissed.notify_one();
    }

    /// Since when, where nothing is under way on it and nobody has dismissed it.
    fn silent(&self) -> Option<Instant> {
        let requests = lock(&self.requests);
        (requests.under_way == 0 && !requests.is_dismissed).then_some(requests.silent_since)
    }

    fn dismiss(&self) {
        lock(&self.requests).is_dismissed = true;
        self.dismissed.notify_one();
    }
}

/// A request that is under way as long as it lives.
pub(super) struct UnderWay(Arc<Activity>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut requests = lock(&self.0.requests);
        requests.under_way -= 1;
        requests.silent_since = Instant::now();
        requests.patience = limits::IDLE;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
