//! `headgate pod list`.

use clap::Args;

use headgate_kernel::pods::neighbourhood;

use super::{
    names::{self, Names},
    view::{self, PodView, ProgramView},
};
use crate::{
    arguments::StateArguments,
    outcome::{CliError, Outcome},
    output::{OutputArguments, columns},
};

/// List the addresses of this node's pods: whose each is, interface, the number of the pod's end of it, the MTU of
/// the node's end, how packets get there, programs. What the API and the kernel do not agree on is listed too.
#[derive(Args, Debug)]
pub(super) struct ListArguments {
    #[command(flatten)]
    output: OutputArguments,

    #[command(flatten)]
    state: StateArguments,
}

pub(super) fn run(arguments: &ListArguments) -> Result<Outcome, CliError> {
    let names = Names::read(&arguments.state);
    let rows = names::all(&neighbourhood()?, names.pods.as_deref());
    let view = view::views(rows)?;
    names.tell();
    arguments.output.show(&view, |view| table(view))?;
    Ok(Outcome::Fine)
}

fn table(pods: &[PodView]) -> String {
    let rows = pods.iter().map(|pod| {
        let (address, owner) = (pod.address(), pod.owner());
        let Some(place) = &pod.place else {
            let reason = pod.reason.clone().unwrap_or_default();
            let nothing = String::new;
            return [
                address,
                owner,
                nothing(),
                nothing(),
                nothing(),
                nothing(),
                reason,
            ];
        };
        let programs: Vec<String> = place.programs.iter().map(ProgramView::line).collect();
        [
            address,
            owner,
            format!("{} ({})", place.interface, place.ifindex),
            place
                .peer_ifindex
                .map(|peer| peer.to_string())
                .unwrap_or_default(),
            place.mtu.to_string(),
            place.way(),
            programs.join(", "),
        ]
    });
    let titles = [
        "ADDRESS",
        "POD",
        "INTERFACE",
        "PEER",
        "MTU",
        "WAY",
        "PROGRAMS",
    ];
    columns(titles, rows)
}
