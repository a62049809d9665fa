//! When whoever keeps something in the API looks again, and how it removes what is its own.

use std::{fmt::Debug, sync::Arc, time::Duration};

use kube::{
    Api,
    api::{DeleteParams, Preconditions},
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::watch,
    time::{Interval, interval},
};

use crate::fleet::Fleet;

/// After a write that failed, before anything else is tried.
pub(crate) const PAUSE: Duration = Duration::from_secs(2);
/// How often to look although nothing changed.
const RETRY: Duration = Duration::from_secs(30);

/// Moments at which there may be something to do.
pub(crate) struct Turns {
    fleet: watch::Receiver<Arc<Fleet>>,
    is_leader: watch::Receiver<bool>,
    retry: Interval,
}

impl Turns {
    pub(crate) fn new(
        fleet: watch::Receiver<Arc<Fleet>>,
        is_leader: watch::Receiver<bool>,
    ) -> Self {
        Self {
            fleet,
            is_leader,
            retry: interval(RETRY),
        }
    }

    /// The fleet at the next such moment; `None` where it is not known, or another replica leads.
    pub(crate) async fn next(&mut self) -> Option<Arc<Fleet>> {
        tokio::select! {
            _ = self.fleet.changed() => {}
            _ = self.is_leader.changed() => {}
            _ = self.retry.tick() => {}
        }
        let now = self.fleet.borrow_and_update().clone();
        (now.is_known && *self.is_leader.borrow_and_update()).then_some(now)
    }
}

/// Deletes the object of this name, if it is still the one of this uid.
pub(crate) async fn delete_this<K>(api: &Api<K>, name: &str, uid: String) -> Result<(), kube::Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    let this_one = DeleteParams::default().preconditions(Preconditions {
        uid: Some(uid),
        resource_version: None,
    });
    match api.delete(name, &this_one).await {
        // The garbage collector was quicker.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        answer => answer.map(drop),
    }
}
