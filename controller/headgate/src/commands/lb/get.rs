//! `headgate lb get`.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;

use super::view::{self, FrontendView, ServiceView, SettlingView};
use crate::{
    arguments::InstanceArguments,
    outcome::{CliError, Outcome},
    output::{OutputArguments, columns, fields, number, section},
    resource_state::{InterfaceView, generation},
};

/// Show one service of this node in full: interfaces, ports with counters, backends with the ways to
/// them, findings.
#[derive(Args, Debug)]
pub(super) struct GetArguments {
    /// Name of the service, NAMESPACE/NAME; a name alone is one of the namespace default.
    name: String,

    #[command(flatten)]
    output: OutputArguments,

    #[command(flatten)]
    place: InstanceArguments,
}

pub(super) fn run(arguments: &GetArguments) -> Result<Outcome, CliError> {
    let service = view::named(view::read(&arguments.place)?, &arguments.name)?;
    arguments.output.show(&service, table)?;
    Ok(Outcome::Fine)
}

fn table(service: &ServiceView) -> String {
    let mut text = fields([
        ("Name", service.name.clone()),
        ("File", service.place.clone()),
        (
            "Generation",
            generation(service.generation, service.effective_generation),
        ),
        ("State", format!("{:?}", service.state)),
    ]);
    let interfaces = service.interfaces.iter().map(InterfaceView::line);
    text.push_str(&section("Interfaces", interfaces));
    for frontend in &service.frontends {
        text.push('\n');
        text.push_str(&headline(frontend));
        let rows = frontend.backends.iter().map(|backend| {
            let weight = backend.weight.to_string();
            [backend.end().to_string(), weight, backend.way()]
        });
        text.push_str(&columns(["BACKEND", "WEIGHT", "NEXT HOP"], rows));
        text.push_str(
            &frontend
                .settling
                .as_ref()
                .map_or_else(String::new, settling),
        );
    }
    if let Some(limits) = &service.source_ranges {
        let dropped = format!(
            "from elsewhere: {} packets of {} bytes dropped",
            number(limits.packets),
            number(limits.bytes)
        );
        let ranges = limits.ranges.iter().cloned().chain([dropped]);
        text.push_str(&section("Source ranges", ranges));
    }
    let findings = service.findings.iter().map(ToString::to_string);
    text.push_str(&section("Findings", findings));
    text
}

fn settling(settling: &SettlingView) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let left = settling
        .until
        .saturating_sub(now.map_or(0, |now| now.as_secs()));
    let minutes = left.div_ceil(60);
    let text = format!("settling: connections stay with former backends for {minutes} min more");
    match settling.draining.as_slice() {
        [] => format!("{text}\n"),
        draining => {
            let draining: Vec<_> = draining.iter().map(ToString::to_string).collect();
            format!("{text}, and drain from {}\n", draining.join(", "))
        }
    }
}

fn headline(frontend: &FrontendView) -> String {
    format!(
        "{}: {} port {}/{} by {:?}, ring of {}, {} packets of {} bytes\n",
        frontend.name,
        frontend.address,
        frontend.port,
        frontend.protocol,
        frontend.forwarding,
        frontend.ring_size,
        number(frontend.packets),
        number(frontend.bytes),
    )
}
