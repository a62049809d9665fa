//! `headgate lb list`.

use clap::Args;

use super::view::{self, ServiceView};
use crate::{
    arguments::InstanceArguments,
    outcome::{CliError, Outcome},
    output::{OutputArguments, columns, number},
};

/// List what this node serves: each address and port, its backends, and how many packets were sent on.
#[derive(Args, Debug)]
#[command(after_help = "\
State of a service:
  Enforced     served on every interface that it selects
  NotSelected  its nodeSelector does not select this node
  Pending      it waits for something, such as the next hop to a backend
  Outdated     an interface serves something else than is wanted
  NotEnforced  an interface serves nothing
  Stalled      its present content is refused; the last good one, if any, stays in effect")]
pub(super) struct ListArguments {
    #[command(flatten)]
    output: OutputArguments,

    #[command(flatten)]
    place: InstanceArguments,
}

pub(super) fn run(arguments: &ListArguments) -> Result<Outcome, CliError> {
    let views = view::read(&arguments.place)?;
    arguments.output.show(&views, |views| table(views))?;
    Ok(Outcome::Fine)
}

fn table(views: &[ServiceView]) -> String {
    let rows = views.iter().flat_map(|view| {
        let state = format!("{:?}", view.state);
        if view.frontends.is_empty() {
            let name = view.name.clone();
            let empty = String::new;
            return vec![[
                name,
                empty(),
                empty(),
                empty(),
                empty(),
                empty(),
                empty(),
                state,
            ]];
        }
        let rows = view.frontends.iter().map(|frontend| {
            [
                view.name.clone(),
                frontend.name.clone(),
                frontend.address.to_string(),
                format!("{}/{}", frontend.port, frontend.protocol),
                frontend.backends.len().to_string(),
                number(frontend.packets),
                number(frontend.bytes),
                state.clone(),
            ]
        });
        rows.collect()
    });
    let header = [
        "SERVICE", "NAME", "ADDRESS", "PORT", "BACKENDS", "PACKETS", "BYTES", "STATE",
    ];
    columns(header, rows)
}
