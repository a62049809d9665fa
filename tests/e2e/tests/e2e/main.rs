//! Policies written, agents run, packets sent and counted.

mod balancing;
mod clients;
mod direct;
mod examples;
mod failsafe;
mod first_rule;
mod foreign;
mod hardships;
mod instances;
mod interfaces;
mod messages;
mod metrics;
mod modes;
mod monitor;
mod nodes;
mod overlaying;
mod pods;
mod replacing;
mod resources;
mod restarting;
mod rights;
mod rolling;
mod translating;
mod tunnel_clients;
mod tunnel_wire;
mod tunnelling;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// Tests wait more than they work, for the agent and for traffic that is paced.
const THREADS: usize = 4;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    if arguments.test_threads.is_none() {
        let wanted = std::env::var("RUST_TEST_THREADS").ok();
        let wanted = wanted.and_then(|number| number.parse().ok());
        arguments.test_threads = Some(wanted.unwrap_or(THREADS));
    }
    let trials: Vec<Trial> = [
        first_rule::trials(),
        examples::trials(),
        balancing::trials(),
        translating::trials(),
        clients::trials(),
        messages::trials(),
        rolling::trials(),
        tunnelling::trials(),
        direct::trials(),
        overlaying::trials(),
        tunnel_clients::trials(),
        tunnel_wire::trials(),
        pods::trials(),
        replacing::trials(),
        restarting::trials(),
        interfaces::trials(),
        foreign::trials(),
        instances::trials(),
        resources::trials(),
        failsafe::trials(),
        nodes::trials(),
        modes::trials(),
        monitor::trials(),
        metrics::trials(),
        hardships::trials(),
        rights::trials(),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !arguments.list && nix::unistd::geteuid().is_root() {
        headgate_e2e_tests::leftovers::sweep();
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
