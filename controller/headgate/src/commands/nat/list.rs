//! `headgate nat list`.

use std::net::{IpAddr, SocketAddr};

use clap::Args;
use headgate_compile::services::TCP;
use headgate_kernel::{FoundFlow, RunningKernel};
use serde::Serialize;

use crate::{
    arguments::InstanceArguments,
    outcome::{CliError, Outcome},
    output::{OutputArguments, columns},
};

/// List the flows that go through Nat: both ends, the address and port of this node between them, and how
/// long each is kept if nothing more is heard of it.
#[derive(Args, Debug)]
#[command(after_help = "\
State of a flow:
  New          the backend has not answered yet
  Answered     it has; a TCP client has not acknowledged that yet
  Established  the client has acknowledged it: no other flow can take its place
  Closing      one side has ended the connection")]
pub(super) struct ListArguments {
    /// Only flows of this client.
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,

    /// Only flows to this address of a service.
    #[arg(long, value_name = "ADDRESS")]
    service: Option<IpAddr>,

    /// Only flows to this backend.
    #[arg(long, value_name = "ADDRESS")]
    backend: Option<IpAddr>,

    #[command(flatten)]
    output: OutputArguments,

    #[command(flatten)]
    place: InstanceArguments,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FlowView {
    protocol: &'static str,
    client: SocketAddr,
    service: SocketAddr,
    /// Address and port of this node that the backend sees.
    local: SocketAddr,
    backend: SocketAddr,
    state: String,
    /// Seconds until it is forgotten if nothing more is heard; 0 where that is due.
    expires_seconds: u64,
}

pub(super) fn run(arguments: &ListArguments) -> Result<Outcome, CliError> {
    let place = &arguments.place;
    let kernel = RunningKernel::open_read_only(&place.kernel_instance(), &place.bpffs)?;
    let flows = kernel.flows()?;
    let mut views: Vec<_> = flows
        .iter()
        .filter(|flow| arguments.wants(flow))
        .map(view)
        .collect();
    views.sort_by_key(|view| (view.service, view.client));
    arguments.output.show(&views, |views| table(views))?;
    Ok(Outcome::Fine)
}

impl ListArguments {
    fn wants(&self, flow: &FoundFlow) -> bool {
        let is = |wanted: Option<IpAddr>, found: SocketAddr| {
            wanted.is_none_or(|wanted| wanted == found.ip())
        };
        is(self.client, flow.client)
            && is(self.service, flow.service)
            && is(self.backend, flow.backend)
    }
}

fn view(flow: &FoundFlow) -> FlowView {
    FlowView {
        protocol: if flow.protocol == TCP { "TCP" } else { "UDP" },
        client: flow.client,
        service: flow.service,
        local: flow.local,
        backend: flow.backend,
        state: format!("{:?}", flow.state),
        expires_seconds: flow.left.as_secs(),
    }
}

fn table(views: &[FlowView]) -> String {
    let rows = views.iter().map(|view| {
        [
            view.protocol.to_owned(),
            view.client.to_string(),
            view.service.to_string(),
            view.local.to_string(),
            view.backend.to_string(),
            view.state.clone(),
            format!("{} s", view.expires_seconds),
        ]
    });
    let header = [
        "PROTOCOL", "CLIENT", "SERVICE", "LOCAL", "BACKEND", "STATE", "EXPIRES",
    ];
    columns(header, rows)
}
