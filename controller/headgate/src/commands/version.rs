//! `headgate version`.

use std::sync::LazyLock;

use clap::Args;
use headgate_layout::LAYOUT_VERSION;

use crate::{
    outcome::{CliError, Outcome},
    output::print,
};

/// Say which version this is, the layout of its maps and the eBPF object that it carries.
#[derive(Args, Debug)]
pub(crate) struct VersionArguments {}

/// Version, layout and object; what the agents of two binaries share is told by the last two.
pub(crate) fn text() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        format!(
            "{} (layout {LAYOUT_VERSION}, object {})",
            env!("CARGO_PKG_VERSION"),
            headgate_kernel::object_digest().short()
        )
    });
    &TEXT
}

pub(crate) fn run() -> Result<Outcome, CliError> {
    print(&format!("headgate {}\n", text()))?;
    Ok(Outcome::Fine)
}
