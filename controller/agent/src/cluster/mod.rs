//! What the agent tells the cluster: its NodeDatapath, that it is alive, and Events. Nothing that
//! is enforced waits for any of it.

mod events;
mod lease;
mod node_datapath;
mod publish;

use std::{collections::BTreeMap, time::Duration};

use headgate_compile::snapshot::{ResourceName, Snapshot, Uid};
use headgate_source::kubernetes::{NodeObject, explain};
use kube::Client;
use tokio::sync::{mpsc, watch};

use crate::report::Report;
use events::Happening;
use publish::Wanted;

/// Who writes, in the API's books.
const FIELD_MANAGER: &str = "headgate-agent";
/// A write that has not come back by then has failed: a server that vanished says nothing.
const DEADLINE: Duration = Duration::from_secs(10);
/// Events that wait to be sent; more are dropped, for they are in the log and in the NodeDatapath.
const EVENTS_WAITING: usize = 64;

/// The tasks that write to the API; they end with it.
pub(crate) struct Cluster {
    wanted: watch::Sender<Option<Wanted>>,
    happenings: mpsc::Sender<Happening>,
    node: Option<NodeObject>,
    told: Report,
}

impl Cluster {
    /// Starts the tasks, on the running runtime.
    pub(crate) fn start(client: &Client, node_name: &str, namespace: &str) -> Self {
        let (wanted, heard) = watch::channel(None);
        let (happenings, waiting) = mpsc::channel(EVENTS_WAITING);
        tokio::spawn(lease::keep_renewed(
            client.clone(),
            namespace.to_owned(),
            heard.clone(),
        ));
        tokio::spawn(publish::keep_published(client.clone(), heard));
        tokio::spawn(events::send(client.clone(), node_name.to_owned(), waiting));
        Self {
            wanted,
            happenings,
            node: None,
            told: Report::default(),
        }
    }

    /// Tells what is new in `report`.
    pub(crate) fn tell(&mut self, report: &Report, node: Option<&NodeObject>, snapshot: &Snapshot) {
        let Some(node) = node else {
            return;
        };
        if self.node.as_ref() == Some(node) && self.told == *report {
            return;
        }
        let uids: BTreeMap<&ResourceName, &Uid> = snapshot
            .submitted
            .iter()
            .map(|submitted| (&submitted.name, &submitted.uid))
            .collect();
        for happening in events::news(report, &self.told, node, &uids) {
            // Where the API is slow, the NodeDatapath says it all the same.
            let _ = self.happenings.try_send(happening);
        }
        self.wanted.send_replace(Some(Wanted {
            name: report.node.clone(),
            node_uid: node.uid.clone(),
            status: node_datapath::status(report),
        }));
        self.node = Some(node.clone());
        self.told = report.clone();
    }
}

/// What `call` gives, or why it failed, for people.
async fn in_time<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, String> {
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(result) => result.map_err(|error| explain(&error)),
        Err(_) => Err(format!(
            "the API server has not answered within {} s",
            DEADLINE.as_secs()
        )),
    }
}
