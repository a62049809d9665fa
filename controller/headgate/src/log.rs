//! What the long-running commands log, and how.

use std::io::{self, IsTerminal as _};

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::outcome::CliError;

/// How to log.
#[derive(Args, Debug)]
pub(crate) struct LogArguments {
    /// How to write the log.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// A line for each event, for people.
    Text,
    /// An object for each event, for log collectors.
    Json,
}

/// Logs to standard error from now on.
pub(crate) fn log_as(arguments: &LogArguments) -> Result<(), CliError> {
    let filter = match std::env::var("HEADGATE_LOG") {
        Ok(text) => EnvFilter::try_new(text).map_err(|e| CliError::LogFilter(e.to_string()))?,
        Err(std::env::VarError::NotPresent) => EnvFilter::new("info"),
        Err(error) => return Err(CliError::LogFilter(error.to_string())),
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    match arguments.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}
