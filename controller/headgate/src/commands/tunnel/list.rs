//! `headgate tunnel list`.

use clap::Args;

use super::view::{self, TunnelView};
use crate::{
    arguments::InstanceArguments,
    outcome::{CliError, Outcome},
    output::{OutputArguments, columns},
};

/// List the peers of this node's tunnel, its device, and what became of packets there.
#[derive(Args, Debug)]
#[command(after_help = "\
State of a peer:
  Enforced     packets go to it, and come from it; of the node itself: nothing is to be done. Of a Native
               peer: routes lead to it; who sends packets from its networks, Headgate does not ask
  NotSelected  its nodeSelector does not select this node
  Pending      it waits for something, such as a route to its endpoint
  Outdated     device, programs, tables, neighbours or routes are not as wanted
  NotEnforced  there is no tunnel, or there are no routes
  Stalled      its present content is refused; the last good one, if any, stays in effect
Reachable is a peer that a packet of the tunnel came from lately, or whose host answers a probe; nobody waits
for it: a peer that is down is Enforced. Seen is when the last packet of the tunnel came from it; of a Native peer none ever does.")]
pub(super) struct ListArguments {
    #[command(flatten)]
    output: OutputArguments,

    #[command(flatten)]
    place: InstanceArguments,
}

pub(super) fn run(arguments: &ListArguments) -> Result<Outcome, CliError> {
    let view = view::read(&arguments.place)?;
    arguments.output.show(&view, table)?;
    Ok(Outcome::Fine)
}

fn table(view: &TunnelView) -> String {
    let rows = view.peers.iter().map(|peer| {
        let summary = &peer.summary;
        let itself = if summary.is_own { " (this node)" } else { "" };
        [
            summary.name.clone(),
            format!("{}{itself}", summary.endpoint),
            format!("{:?}", summary.mode),
            summary.vni.map(|vni| vni.to_string()).unwrap_or_default(),
            summary.networks.join(", "),
            format!("{:?}", peer.state),
            peer.reachable().to_owned(),
            peer.seen(),
        ]
    });
    let titles = [
        "PEER",
        "ENDPOINT",
        "MODE",
        "VNI",
        "NETWORKS",
        "STATE",
        "REACHABLE",
        "SEEN",
    ];
    let mut text = columns(titles, rows);
    if let Some(device) = &view.device {
        let reason = device.reason.as_ref().map(|reason| format!(": {reason}"));
        text.push_str(&format!(
            "\n{}: UDP port {}, MTU {}, {}: {:?}{}\n",
            device.name,
            device.port,
            device.mtu,
            device.mac,
            device.state,
            reason.unwrap_or_default(),
        ));
    }
    for finding in view.oversized() {
        text.push_str(&format!("{finding}\n"));
    }
    for peer in &view.peers {
        if let Some(diversion) = &peer.diversion {
            text.push_str(&format!("\n{}: {diversion}\n", peer.summary.name));
        }
    }
    if !view.counters.is_empty() {
        let rows = view.counters.iter().map(|counter| {
            [
                counter.event.to_owned(),
                if counter.dropped { "dropped" } else { "" }.to_owned(),
                counter.packets.to_string(),
                counter.bytes.to_string(),
            ]
        });
        text.push('\n');
        text.push_str(&columns(["EVENT", "", "PACKETS", "BYTES"], rows));
    }
    text
}
