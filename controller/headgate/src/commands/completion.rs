//! `headgate completion`.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::{
    cli::Cli,
    outcome::{CliError, Outcome},
    output::print,
};

/// Write the script that lets a shell complete headgate's commands and options.
#[derive(Args, Debug)]
pub(crate) struct CompletionArguments {
    /// Which shell; for bash: headgate completion bash > /etc/bash_completion.d/headgate
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(arguments: &CompletionArguments) -> Result<Outcome, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(
        arguments.shell,
        &mut Cli::command(),
        "headgate",
        &mut script,
    );
    print(&String::from_utf8_lossy(&script))?;
    Ok(Outcome::Fine)
}
