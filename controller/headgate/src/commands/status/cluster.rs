//! `headgate status` of a cluster.

use crate::{
    cluster::{ClusterArguments, NodeView, nodes},
    outcome::{CliError, Outcome},
    output::{OutputArguments, columns},
};

pub(super) fn run(
    arguments: &ClusterArguments,
    output: OutputArguments,
) -> Result<Outcome, CliError> {
    let namespace = &arguments.namespace;
    let views = arguments.ask(|client| async move { nodes(&client, namespace).await })?;
    output.show(&views, |views| table(views))?;
    Ok(Outcome::fine_if(views.iter().all(NodeView::is_fine)))
}

fn table(views: &[NodeView]) -> String {
    let header = [
        "NODE",
        "READY",
        "AGENT",
        "REVISION",
        "INTERFACES",
        "REASON",
        "MESSAGE",
    ];
    let rows = views.iter().map(|view| {
        let names = view
            .interfaces
            .iter()
            .map(|interface| interface.name.as_str());
        [
            view.name.clone(),
            word(view.ready, ["yes", "no"]),
            word(view.agent_alive, ["alive", "dead"]),
            view.revision
                .iter()
                .map(|revision| short(revision))
                .collect(),
            names.collect::<Vec<_>>().join(","),
            view.reason.clone(),
            view.message.clone(),
        ]
    });
    columns(header, rows)
}

fn word(value: Option<bool>, [yes, no]: [&str; 2]) -> String {
    match value {
        Some(true) => yes.to_owned(),
        Some(false) => no.to_owned(),
        None => String::new(),
    }
}

fn short(digest: &str) -> &str {
    &digest[..digest.floor_char_boundary(12)]
}
