//! `headgate tunnel trace`.

use std::net::IpAddr;

use clap::Args;
use headgate_crds::{LocalDelivery, TunnelMode};
use headgate_datapath::tunnel::DEVICE;
use serde::Serialize;

use super::view::{self, PeerView, TunnelView};
use crate::{
    arguments::InstanceArguments,
    outcome::{CliError, Outcome},
    output::{OutputArguments, section},
};

/// Tell what becomes of a packet between two addresses at this node's tunnel, hook by hook.
///
/// No packet is sent, and no policy asked. Where neither address is a peer's, there is nothing to tell.
#[derive(Args, Debug)]
pub(super) struct TraceArguments {
    /// Source of the packet.
    source: IpAddr,

    /// Destination of the packet.
    destination: IpAddr,

    #[command(flatten)]
    output: OutputArguments,

    #[command(flatten)]
    place: InstanceArguments,
}

/// What becomes of a packet.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Trace {
    /// Where it leaves this node for a peer.
    sent: Vec<String>,
    /// Where it comes to this node from a peer.
    received: Vec<String>,
}

pub(super) fn run(arguments: &TraceArguments) -> Result<Outcome, CliError> {
    let view = view::read(&arguments.place)?;
    let (source, destination) = (arguments.source, arguments.destination);
    if source.is_ipv4() != destination.is_ipv4() {
        return Err(CliError::TwoFamilies);
    }
    let trace = Trace {
        sent: sent(&view, destination),
        received: received(&view, source, destination),
    };
    arguments.output.show(&trace, |trace| {
        let sent = section("Sent", trace.sent.iter().cloned());
        sent + &section("Received", trace.received.iter().cloned())
    })?;
    Ok(Outcome::Fine)
}

/// The peer of the longest prefix around an address.
fn owner(view: &TunnelView, address: IpAddr) -> Option<&PeerView> {
    let joined = view.peers.iter().filter(|peer| peer.is_joined());
    let around = joined.filter_map(|peer| Some((peer.prefix_of(address)?, peer)));
    around
        .max_by_key(|(length, _)| *length)
        .map(|(_, peer)| peer)
}

fn sent(view: &TunnelView, destination: IpAddr) -> Vec<String> {
    let nowhere = || {
        let none = format!("no peer has {destination}: it does not go through the tunnel");
        vec![none]
    };
    let Some(peer) = owner(view, destination) else {
        return nowhere();
    };
    let summary = &peer.summary;
    let length = peer.prefix_of(destination);
    let route = peer.routes.iter().find(|route| {
        let prefix = route.network.rsplit_once('/');
        prefix.and_then(|(_, text)| text.parse().ok()) == length
    });
    let route = match route {
        Some(route) => format!("route: {}", route.line()),
        None => format!(
            "route: none of Headgate's, see the state of TunnelPeer/{}",
            summary.name
        ),
    };
    if summary.mode == TunnelMode::Native {
        let name = &summary.name;
        if let Some(diversion) = &peer.diversion {
            return vec![format!("not by TunnelPeer/{name}: {diversion}")];
        }
        let plainly = format!(
            "TunnelPeer/{name} has {destination}, Native: it leaves as it is, by no tunnel"
        );
        return vec![route, plainly];
    }
    let Some(device) = &view.device else {
        return nowhere();
    };
    if let Some(diversion) = &peer.diversion {
        return vec![format!("not by the tunnel: {diversion}")];
    }
    let local = summary.local.map(|local| format!("{local} -> "));
    vec![
        route,
        format!(
            "egress of {DEVICE}, headgate_tunnel_out: TunnelPeer/{} has {destination}: VNI {}, {}{} port {}",
            summary.name,
            summary.vni.unwrap_or_default(),
            local.unwrap_or_default(),
            summary.endpoint,
            device.port,
        ),
    ]
}

fn received(view: &TunnelView, source: IpAddr, destination: IpAddr) -> Vec<String> {
    let itself = |peer: &&PeerView| peer.is_joined() && peer.summary.endpoint == source;
    let mut itself_around = view.peers.iter().filter(|peer| peer.summary.is_own);
    let is_longest = |own: &PeerView| {
        let other = owner(view, source).and_then(|peer| peer.prefix_of(source));
        own.prefix_of(source)
            .is_some_and(|length| Some(length) >= other)
    };
    if itself_around.any(is_longest) {
        return vec![format!(
            "it does not come by the tunnel, for {source} is in this node's own networks; what comes there so is dropped, SpoofedSource"
        )];
    }
    let speaker = owner(view, source).or_else(|| view.peers.iter().find(itself));
    let Some(peer) = speaker else {
        return vec![match view.device {
            None => format!("no peer has {source}, and there is no tunnel that it could come by"),
            Some(_) => format!(
                "ingress of {DEVICE}, headgate_tunnel_in: no peer has {source}: dropped, UnknownSource"
            ),
        }];
    };
    if peer.summary.mode == TunnelMode::Native {
        return vec![
            format!(
                "{source} is TunnelPeer/{}'s, Native: it comes as it is, and nobody asks who sent it; through the tunnel it would be dropped, SpoofedSource",
                peer.summary.name
            ),
            "then the node's stack".to_owned(),
        ];
    }
    let own = view.peers.iter().filter(|peer| peer.summary.is_own);
    let vni = own.filter_map(|own| own.summary.vni).next();
    let vni = vni.or(peer.summary.vni).unwrap_or_default();
    vec![
        format!(
            "ingress of {DEVICE}, headgate_tunnel_in: {source} is TunnelPeer/{}'s: passed from {} with VNI {vni}, else dropped, SpoofedSource or WrongVni",
            peer.summary.name, peer.summary.endpoint,
        ),
        delivery(view, peer, destination),
    ]
}

fn delivery(view: &TunnelView, peer: &PeerView, destination: IpAddr) -> String {
    let is_direct = peer.summary.local_delivery == LocalDelivery::Direct;
    match view.pods.get(&destination).filter(|_| is_direct) {
        Some(ifindex) => format!(
            "then to the pod behind interface {}, past the node's stack (Delivered)",
            ifindex.0
        ),
        None if is_direct => format!(
            "then the node's stack: {destination} is no pod that packets can be given to directly"
        ),
        None => "then the node's stack".to_owned(),
    }
}
