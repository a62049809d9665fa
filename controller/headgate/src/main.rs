//! The one binary: reads the command line and hands over to the command.

mod arguments;
mod cli;
mod cluster;
mod commands;
mod enforcement;
mod live;
mod log;
mod outcome;
mod output;
mod resource_state;
mod tunnel_state;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match commands::run(cli::Cli::parse()) {
        Ok(outcome) => outcome.into(),
        Err(error) => {
            eprintln!("headgate: {error}");
            ExitCode::from(outcome::FAILED)
        }
    }
}
