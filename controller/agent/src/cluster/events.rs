//! Events for what a person should see with `kubectl describe` and `kubectl get events`.

use std::collections::BTreeMap;

use headgate_compile::{
    finding::{Finding, Severity},
    snapshot::{ResourceName, Uid},
};
use headgate_crds::API_VERSION;
use headgate_source::kubernetes::NodeObject;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::sync::mpsc;

use super::{FIELD_MANAGER, in_time};
use crate::report::{PortStatus, Report};

/// What an Event's note may have, in bytes.
const LONGEST_NOTE: usize = 1_024;

/// Something to tell, and about what.
pub(super) struct Happening {
    event: Event,
    regarding: ObjectReference,
}

/// What `report` says and `told` did not: of resources, and of this node's interfaces.
pub(super) fn news(
    report: &Report,
    told: &Report,
    node: &NodeObject,
    uids: &BTreeMap<&ResourceName, &Uid>,
) -> Vec<Happening> {
    let new = report
        .findings
        .iter()
        .filter(|f| !told.findings.contains(f));
    let mut news: Vec<Happening> = new
        .filter_map(|finding| of_finding(finding, &report.node, uids))
        .collect();
    for (port, now) in &report.ports {
        let before = told.ports.get(port).map(|before| &before.status);
        if before == Some(&now.status) {
            continue;
        }
        let interface = &now.interface;
        let (type_, reason, note) = match &now.status {
            PortStatus::Enforced => {
                let mode = now.mode.map(|mode| mode.to_string()).unwrap_or_default();
                (
                    EventType::Normal,
                    "Enforced",
                    format!("{interface} is enforced, {mode}"),
                )
            }
            PortStatus::Outdated(why) => (
                EventType::Warning,
                "Outdated",
                format!("{interface} is not as wanted: {why}"),
            ),
            PortStatus::NotEnforced(why) => (
                EventType::Warning,
                "NotEnforced",
                format!("{interface} is not enforced: {why}"),
            ),
        };
        news.push(Happening {
            event: event(type_, reason, &note),
            regarding: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Node".to_owned()),
                name: Some(report.node.clone()),
                uid: Some(node.uid.clone()),
                ..ObjectReference::default()
            },
        });
    }
    news
}

fn of_finding(
    finding: &Finding,
    node: &str,
    uids: &BTreeMap<&ResourceName, &Uid>,
) -> Option<Happening> {
    if finding.severity != Severity::Stalled {
        return None;
    }
    let resource = finding.resource.as_ref()?;
    let path = match finding.path.as_str() {
        "" => String::new(),
        path => format!("{path}: "),
    };
    let note = format!("on node {node}: {path}{}", finding.message);
    let (namespace, name) = resource.namespace_and_name();
    Some(Happening {
        event: event(EventType::Warning, &format!("{:?}", finding.reason), &note),
        regarding: ObjectReference {
            api_version: Some(API_VERSION.to_owned()),
            kind: Some(resource.kind.clone()),
            namespace: namespace.map(str::to_owned),
            name: Some(name.to_owned()),
            uid: uids.get(resource).map(|uid| (*uid).clone()),
            ..ObjectReference::default()
        },
    })
}

fn event(type_: EventType, reason: &str, note: &str) -> Event {
    let end = note.floor_char_boundary(LONGEST_NOTE);
    Event {
        type_,
        reason: reason.to_owned(),
        note: Some(note[..end].to_owned()),
        action: "Enforce".to_owned(),
        secondary: None,
    }
}

/// Sends what comes. What cannot be sent is logged and left: Events are a convenience.
pub(super) async fn send(client: Client, node: String, mut waiting: mpsc::Receiver<Happening>) {
    let reporter = Reporter {
        controller: FIELD_MANAGER.to_owned(),
        instance: Some(node),
    };
    let recorder = Recorder::new(client, reporter);
    while let Some(happening) = waiting.recv().await {
        let sent = recorder.publish(&happening.event, &happening.regarding);
        if let Err(reason) = in_time(sent).await {
            tracing::debug!("an Event is not sent: {reason}");
        }
    }
}
