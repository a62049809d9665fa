//! The Pods of this node as the API tells them, kept on disk for `headgate pod`. Nothing that is enforced depends
//! on them: they are watched beside the loop, and make no turn of it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use headgate_source::kubernetes::{LocalPod, local_pods};
use kube::Client;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, interval, timeout_at};

use crate::store::{self, StoreError};

/// A burst of changes has ended when nothing came for so long.
const QUIET: Duration = Duration::from_millis(100);
/// A burst is cut off after so long.
const LONGEST_BURST: Duration = Duration::from_secs(1);
/// How often it is asked whether a trouble is over, of which no event tells.
const WHILE_IN_TROUBLE: Duration = Duration::from_secs(15);

const FILE: &str = "pods.json";

/// What was last heard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownPods {
    /// Name of the node.
    pub node: String,
    /// Its Pods, in order; those in the node's network namespace and those that have ended are left out. `None`
    /// before the first list.
    pub pods: Option<Vec<LocalPod>>,
    /// Why there is no news.
    pub trouble: Option<String>,
}

/// What the agent of the instance whose folder this is has last heard; `None` where it asks no API.
///
/// # Errors
/// It is there and cannot be read.
pub fn known(folder: &Path) -> Result<Option<KnownPods>, StoreError> {
    store::read(&folder.join(FILE))
}

/// Forgets what a former agent has heard: nobody keeps it current.
pub(crate) fn forget(folder: &Path) {
    if let Err(error) = store::remove(&folder.join(FILE)) {
        tracing::warn!("a former agent's list of Pods stays: {error}");
    }
}

/// Watches the Pods of the node for ever, and keeps what is heard in `folder`.
pub(crate) async fn keep(client: Client, node: String, folder: PathBuf) {
    let mut watched = local_pods(client, &node);
    let mut kept = Kept::of_former(&node, &folder);
    let mut audit = interval(WHILE_IN_TROUBLE);
    loop {
        tokio::select! {
            is_new = watched.next() => if !is_new { continue },
            _ = audit.tick(), if kept.pods.trouble.is_some() => {}
        }
        let latest = Instant::now() + LONGEST_BURST;
        loop {
            let quiet = (Instant::now() + QUIET).min(latest);
            if timeout_at(quiet, watched.next()).await.is_err() {
                break;
            }
        }
        let pods = watched.is_listed().then(|| {
            let mut pods: Vec<LocalPod> = watched.objects().flatten().cloned().collect();
            pods.sort();
            pods
        });
        kept.take(pods, watched.trouble());
    }
}

/// What the file holds.
struct Kept {
    path: PathBuf,
    pods: KnownPods,
}

impl Kept {
    /// What was heard by a former agent of the same node counts until there is news.
    fn of_former(node: &str, folder: &Path) -> Self {
        let path = folder.join(FILE);
        let former = known(folder).ok().flatten();
        let pods = former
            .filter(|former| former.node == node)
            .unwrap_or_else(|| KnownPods {
                node: node.to_owned(),
                ..KnownPods::default()
            });
        Self { path, pods }
    }

    /// Written only where something changed; what cannot be written is tried again with the next news.
    fn take(&mut self, pods: Option<Vec<LocalPod>>, trouble: Option<String>) {
        let now = KnownPods {
            node: self.pods.node.clone(),
            pods: pods.or_else(|| self.pods.pods.clone()),
            trouble,
        };
        if now == self.pods {
            return;
        }
        if now.trouble != self.pods.trouble {
            match &now.trouble {
                Some(trouble) => {
                    tracing::warn!(
                        "the node's Pods are not heard of, and are only shown: {trouble}"
                    );
                }
                None => tracing::info!("the node's Pods are heard of again"),
            }
        }
        match store::write(&self.path, &now) {
            Ok(()) => self.pods = now,
            Err(error) => tracing::warn!("the node's Pods are not kept: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_heard_stays_until_there_is_news() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().to_owned();
        let pod = LocalPod {
            namespace: "shop".to_owned(),
            name: "web-0".to_owned(),
            uid: "1".to_owned(),
            addresses: [[10, 244, 1, 2].into()].into(),
        };
        let now = || known(&folder).expect("readable");
        assert_eq!(now(), None);
        let mut kept = Kept::of_former("node", &folder);
        kept.take(Some(vec![pod.clone()]), None);
        let mut next = Kept::of_former("node", &folder);
        next.take(None, Some("refused".to_owned()));
        let expected = KnownPods {
            node: "node".to_owned(),
            pods: Some(vec![pod]),
            trouble: Some("refused".to_owned()),
        };
        assert_eq!(now(), Some(expected));
        // At rest nothing is written.
        std::fs::remove_file(folder.join(FILE)).expect("it is there");
        next.take(None, Some("refused".to_owned()));
        assert_eq!(now(), None);
        next.take(Some(Vec::new()), None);
        assert_eq!(now().expect("written").pods, Some(Vec::new()));
        let other = Kept::of_former("another", &folder);
        assert_eq!(other.pods.pods, None, "another node's Pods are none of it");
        forget(&folder);
        assert_eq!(now(), None);
    }
}
