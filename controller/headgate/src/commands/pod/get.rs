//! `headgate pod get`.

use std::net::IpAddr;

use clap::Args;

use super::view::{self, PodView, ProgramView};
use crate::{
    outcome::{CliError, Outcome},
    output::{OutputArguments, fields, section},
};

/// Show where one address of a pod is, or why that cannot be said.
#[derive(Args, Debug)]
pub(super) struct GetArguments {
    /// The address.
    address: IpAddr,

    #[command(flatten)]
    output: OutputArguments,
}

pub(super) fn run(arguments: &GetArguments) -> Result<Outcome, CliError> {
    let view = view::one(arguments.address)?;
    arguments.output.show(&view, table)?;
    Ok(Outcome::Fine)
}

fn table(pod: &PodView) -> String {
    let Some(place) = &pod.place else {
        let reason = pod.reason.clone().unwrap_or_default();
        return fields([
            ("Address", pod.address.to_string()),
            ("Interface", format!("not known: {reason}")),
        ]);
    };
    let unknown = || "not known".to_owned();
    let peer = place.peer_ifindex.map(|peer| peer.to_string());
    let mut text = fields([
        ("Address", pod.address.to_string()),
        (
            "Interface",
            format!("{} ({})", place.interface, place.ifindex),
        ),
        ("Pod's end", peer.unwrap_or_else(unknown)),
        ("Way", place.way()),
        ("Device address", place.mac.clone().unwrap_or_else(unknown)),
    ]);
    let programs = place.programs.iter().map(ProgramView::line);
    text.push_str(&section("Programs", programs));
    text
}
