//! `headgate-kernel` in the running kernel.

mod attaching;
mod balancing;
mod captured_frames;
#[path = "../../../../controller/compile/tests/captures/mod.rs"]
mod captures;
mod classifying;
mod compiled;
mod counting;
mod facts;
mod failsafe;
mod mending;
mod messages;
mod monitoring;
mod object;
mod overlay;
mod real_lists;
mod refusals;
mod replacing;
mod ring_blocks;
mod settling;
mod translating;
mod tunnelling;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    // One test starts this program again with fewer rights.
    if let Some(step) = std::env::var_os(refusals::CHILD) {
        return refusals::child(&step);
    }
    let trials: Vec<Trial> = [
        attaching::trials(),
        balancing::trials(),
        translating::trials(),
        tunnelling::trials(),
        classifying::trials(),
        captured_frames::trials(),
        counting::trials(),
        facts::trials(),
        failsafe::trials(),
        mending::trials(),
        messages::trials(),
        monitoring::trials(),
        object::trials(),
        overlay::trials(),
        real_lists::trials(),
        refusals::trials(),
        replacing::trials(),
        ring_blocks::trials(),
        settling::trials(),
    ]
    .into_iter()
    .flatten()
    .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
