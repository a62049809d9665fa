//! A real API server, real kubectl, and nodes that it knows.

mod accepted;
mod admission;
mod agents;
mod control_planes;
mod definitions;
mod endpoints;
mod from_nothing;
mod leader;
mod manifests;
mod nodes;
mod objects;
mod operator;
mod peers;
mod pods;
mod refused;
mod simulated;
mod submit;

use std::process::ExitCode;

use headgate_e2e_tests::{control_plane, leftovers};
use libtest_mimic::{Arguments, Trial};

/// The API server takes a core when it is asked; so does whoever asks.
const THREADS: usize = 2;

/// Some tests wait for minutes: a thread more, so that the others go on meanwhile.
const WAITING: usize = 1;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let threads = arguments.test_threads.unwrap_or(THREADS);
    arguments.test_threads = Some(if threads > 1 { threads + WAITING } else { 1 });
    let trials: Vec<Trial> = [
        from_nothing::trials(),
        definitions::trials(),
        manifests::trials(),
        refused::trials(),
        accepted::trials(),
        admission::trials(),
        agents::trials(),
        operator::trials(),
        endpoints::trials(),
        peers::trials(),
        pods::trials(),
        leader::trials(),
        simulated::trials(),
        nodes::trials(),
        control_planes::trials(),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !arguments.list && nix::unistd::geteuid().is_root() {
        leftovers::sweep();
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    admission::shut_down();
    control_plane::shut_down();
    conclusion.exit_code()
}
