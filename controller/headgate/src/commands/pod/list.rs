//! `headgate pod list`.

use clap::Args;

use super::view::{self, PodView, ProgramView};
use crate::{
    outcome::{CliError, Outcome},
    output::{OutputArguments, columns},
};

/// List the addresses of this node's pods: interface, the number of the pod's end of it, how packets get there,
/// programs.
#[derive(Args, Debug)]
pub(super) struct ListArguments {
    #[command(flatten)]
    output: OutputArguments,
}

pub(super) fn run(arguments: &ListArguments) -> Result<Outcome, CliError> {
    let view = view::all()?;
    arguments.output.show(&view, |view| table(view))?;
    Ok(Outcome::Fine)
}

fn table(pods: &[PodView]) -> String {
    let rows = pods.iter().map(|pod| {
        let address = pod.address.to_string();
        let Some(place) = &pod.place else {
            let reason = pod.reason.clone().unwrap_or_default();
            let nothing = String::new;
            return [address, nothing(), nothing(), nothing(), reason];
        };
        let programs: Vec<String> = place.programs.iter().map(ProgramView::line).collect();
        [
            address,
            format!("{} ({})", place.interface, place.ifindex),
            place
                .peer_ifindex
                .map(|peer| peer.to_string())
                .unwrap_or_default(),
            place.way(),
            programs.join(", "),
        ]
    });
    columns(["ADDRESS", "INTERFACE", "PEER", "WAY", "PROGRAMS"], rows)
}
