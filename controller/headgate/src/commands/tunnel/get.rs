//! `headgate tunnel get`.

use clap::Args;

use super::view::{self, PeerView, RouteView};
use crate::{
    arguments::InstanceArguments,
    outcome::{CliError, Outcome},
    output::{OutputArguments, fields, section},
    resource_state::generation,
};

/// Show one peer of this node's tunnel in full: where it is, the routes to its networks, findings.
#[derive(Args, Debug)]
pub(super) struct GetArguments {
    /// Name of the peer.
    name: String,

    #[command(flatten)]
    output: OutputArguments,

    #[command(flatten)]
    place: InstanceArguments,
}

pub(super) fn run(arguments: &GetArguments) -> Result<Outcome, CliError> {
    let peer = view::named(view::read(&arguments.place)?, &arguments.name)?;
    arguments.output.show(&peer, table)?;
    Ok(Outcome::Fine)
}

fn table(peer: &PeerView) -> String {
    let summary = &peer.summary;
    let local = match (summary.is_own, summary.local) {
        (true, _) => "this node".to_owned(),
        (false, Some(local)) => format!("{local} here"),
        (false, None) => "no route to it".to_owned(),
    };
    let mut text = fields([
        ("Name", summary.name.clone()),
        ("File", summary.place.clone()),
        (
            "Generation",
            generation(summary.generation, summary.effective),
        ),
        ("State", format!("{:?}", peer.state)),
        ("Endpoint", format!("{} ({local})", summary.endpoint)),
        ("VNI", summary.vni.to_string()),
        ("Device address", summary.mac.clone()),
        ("Local delivery", format!("{:?}", summary.local_delivery)),
        ("Reachable", reachable(peer)),
        ("Seen", peer.seen()),
        ("Networks", summary.networks.join(", ")),
    ]);
    let routes = peer.routes.iter().map(RouteView::line);
    text.push_str(&section("Routes", routes));
    text.push_str(&section("Diverted", peer.diversion.iter().cloned()));
    let findings = peer.findings.iter().map(ToString::to_string);
    text.push_str(&section("Findings", findings));
    text
}

fn reachable(peer: &PeerView) -> String {
    let reason = peer
        .reachability
        .as_ref()
        .and_then(|found| found.reason.as_ref());
    match reason {
        Some(reason) => format!("{}: {reason}", peer.reachable()),
        None => peer.reachable().to_owned(),
    }
}
