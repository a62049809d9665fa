//! Waiting for what is to come, as long as it may take and no longer.

use std::{
    thread,
    time::{Duration, Instant},
};

const POLL: Duration = Duration::from_millis(5);

/// Polls until `condition` holds and says how long that took.
///
/// # Panics
/// With `what` where it does not hold within `limit`.
pub fn wait_for(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    wait_for_some(limit, what, || condition().then_some(())).1
}

/// Polls until `find` finds something; gives it and how long that took.
///
/// # Panics
/// With `what` where it finds nothing within `limit`.
pub fn wait_for_some<T>(
    limit: Duration,
    what: &str,
    mut find: impl FnMut() -> Option<T>,
) -> (T, Duration) {
    let started = Instant::now();
    loop {
        if let Some(found) = find() {
            return (found, started.elapsed());
        }
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        thread::sleep(POLL);
    }
}
