//! `headgate lb trace`.

use std::net::{IpAddr, SocketAddr};

use clap::{Args, ValueEnum};
use headgate_compile::services::{self, sources};
use headgate_crds::ServiceProtocol;
use serde::Serialize;

use super::view::{self, BackendView, FrontendView, ServiceView};
use crate::{
    arguments::InstanceArguments,
    outcome::{CliError, Outcome},
    output::{OutputArguments, fields},
};

/// Tell which backend of this node's load balancer a flow goes to, if policies let it through, and why.
///
/// No packet is sent and no policy asked.
#[derive(Args, Debug)]
pub(super) struct TraceArguments {
    /// Address and port of the client, such as 192.0.2.7:40000 or [2001:db8::7]:40000.
    client: SocketAddr,

    /// Address and port of the service.
    service: SocketAddr,

    /// The transport protocol.
    #[arg(long, value_enum, default_value_t = Protocol::Tcp)]
    protocol: Protocol,

    #[command(flatten)]
    output: OutputArguments,

    #[command(flatten)]
    place: InstanceArguments,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Protocol {
    Tcp,
    Udp,
}

impl From<Protocol> for ServiceProtocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
        }
    }
}

/// Where a flow goes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Trace {
    service: String,
    port: String,
    /// Absent where it goes nowhere.
    #[serde(flatten)]
    place: Option<Place>,
    /// Why it goes nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped: Option<String>,
}

/// Which backend a flow has, and by which entry.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Place {
    /// Place in the ring, from 0.
    ring_entry: u32,
    ring_size: u32,
    backend: BackendView,
    /// Where it goes instead if it began before a change of backends from which the service settles.
    #[serde(skip_serializing_if = "Option::is_none")]
    former_backend: Option<IpAddr>,
}

pub(super) fn run(arguments: &TraceArguments) -> Result<Outcome, CliError> {
    let views = view::read(&arguments.place)?;
    let trace = trace(&views, arguments)?;
    arguments.output.show(&trace, table)?;
    Ok(Outcome::Fine)
}

fn trace(views: &[ServiceView], asked: &TraceArguments) -> Result<Trace, CliError> {
    let (address, port) = (asked.service.ip(), asked.service.port());
    let protocol = ServiceProtocol::from(asked.protocol);
    if asked.client.is_ipv4() != asked.service.is_ipv4() {
        return Err(CliError::TwoFamilies);
    }
    let serves = |frontend: &&FrontendView| {
        let key = (frontend.address, frontend.port, frontend.protocol.as_str());
        key == (address, port, protocol.as_str())
    };
    let mut found = views.iter().filter_map(|service| {
        let frontend = service.frontends.iter().find(serves)?;
        Some((service, frontend))
    });
    let Some((service, frontend)) = found.next() else {
        return Err(CliError::not_served(asked.service, protocol.as_str()));
    };
    let dropped = dropped(service, frontend, asked.client.ip());
    let place = || place(frontend, asked, protocol);
    Ok(Trace {
        service: service.name.clone(),
        port: frontend.name.clone(),
        place: dropped.is_none().then(place),
        dropped,
    })
}

/// Why the load balancer drops what `client` sends there.
fn dropped(service: &ServiceView, frontend: &FrontendView, client: IpAddr) -> Option<String> {
    if let Some(limits) = &service.source_ranges
        && !sources::admit(&limits.ranges, client)
    {
        let ranges = limits.ranges.join(", ");
        return Some(format!("{client} is outside of sourceRanges: {ranges}"));
    }
    frontend.backends.is_empty().then(|| "NoBackend".to_owned())
}

/// `frontend` has backends.
fn place(frontend: &FrontendView, asked: &TraceArguments, protocol: ServiceProtocol) -> Place {
    let backends = frontend.backends.iter();
    let backends: Vec<_> = backends.map(|b| (b.address, b.weight)).collect();
    let (ring_entry, number) = services::place_of(
        asked.client,
        asked.service,
        protocol,
        &backends,
        frontend.ring_size,
    );
    let history = frontend.settling.as_ref().map(|settling| &settling.history);
    let former_backend =
        history.and_then(|history| services::former_place_of(asked.client, asked.service, history));
    Place {
        former_backend,
        ring_entry,
        ring_size: frontend.ring_size,
        backend: frontend.backends[number].clone(),
    }
}

fn table(trace: &Trace) -> String {
    let mut rows = vec![
        ("Service", trace.service.clone()),
        ("Port", trace.port.clone()),
    ];
    if let Some(place) = &trace.place {
        let entry = format!("{} of {}", place.ring_entry, place.ring_size);
        rows.push(("Ring entry", entry));
        rows.push(("Backend", place.backend.end().to_string()));
        rows.push(("Next hop", place.backend.way()));
        if let Some(former) = place.former_backend {
            let stays = format!("what began before backends changed stays with {former}");
            rows.push(("Settling", stays));
        }
    }
    rows.extend(trace.dropped.clone().map(|why| ("Dropped", why)));
    fields(rows)
}
