//! `headgate policy list` and `get` of a cluster.

use crate::{
    cluster::{ClusterArguments, PolicyOnNodes, Standing, policies},
    outcome::{CliError, Outcome},
    output::{OutputArguments, columns, fields, number, section},
};

pub(super) fn list(
    arguments: &ClusterArguments,
    output: OutputArguments,
) -> Result<Outcome, CliError> {
    let views = read(arguments)?;
    output.show(&views, |views| table(views))?;
    Ok(Outcome::Fine)
}

pub(super) fn get(
    arguments: &ClusterArguments,
    name: &str,
    output: OutputArguments,
) -> Result<Outcome, CliError> {
    let views = read(arguments)?;
    let known: Vec<String> = views.iter().map(|view| view.name.clone()).collect();
    let mut named = views.into_iter().filter(|view| view.name == name);
    let view = named.next().ok_or_else(|| CliError::NoPolicy {
        name: name.to_owned(),
        known: format!("in the cluster are: {}", known.join(", ")),
    })?;
    output.show(&view, in_full)?;
    Ok(Outcome::fine_if(
        view.standing()
            .is_none_or(|worst| worst == Standing::Enforced),
    ))
}

fn read(arguments: &ClusterArguments) -> Result<Vec<PolicyOnNodes>, CliError> {
    let namespace = &arguments.namespace;
    arguments.ask(|client| async move { policies(client, namespace).await })
}

fn table(views: &[PolicyOnNodes]) -> String {
    let header = [
        "NAME",
        "PRIORITY",
        "DEFAULT",
        "RULES",
        "GENERATION",
        "NODES",
        "STATE",
        "COMMIT",
    ];
    let rows = views.iter().map(|view| {
        [
            view.name.clone(),
            number(view.priority),
            view.default_action.clone().unwrap_or_default(),
            view.rules.len().to_string(),
            view.generation.to_string(),
            format!("{}/{}", view.enforced(), view.nodes.len()),
            state(view),
            commit(view).unwrap_or_else(|| "-".to_owned()),
        ]
    });
    columns(header, rows)
}

fn state(view: &PolicyOnNodes) -> String {
    match view.standing() {
        Some(standing) => format!("{standing:?}"),
        // Refused as it stands, and no agent has said so yet.
        None if view.priority.is_none() => "Refused".to_owned(),
        None => "NoNodesSelected".to_owned(),
    }
}

/// The commit, short enough for a table; Flux puts a branch before it.
fn commit(view: &PolicyOnNodes) -> Option<String> {
    let revision = view.commit.as_deref()?;
    let hash = revision.rsplit([':', '/']).next().unwrap_or(revision);
    Some(hash.chars().take(12).collect())
}

fn in_full(view: &PolicyOnNodes) -> String {
    let mut text = fields([
        ("Name", view.name.clone()),
        ("Generation", view.generation.to_string()),
        ("State", state(view)),
        ("Priority", number(view.priority)),
        ("Default", view.default_action.clone().unwrap_or_default()),
        (
            "Commit",
            view.commit.clone().unwrap_or_else(|| "-".to_owned()),
        ),
        ("Rules", view.rules.join(", ")),
    ]);
    let nodes = view.nodes.iter().map(|node| match node.message.as_str() {
        "" => format!("{}: {:?}", node.node, node.standing),
        message => format!("{}: {:?}: {message}", node.node, node.standing),
    });
    text.push_str(&section("Nodes", nodes));
    text
}
