//! Benchmarks: prints one table, and the same as JSON.
//!
//! Costs are nanoseconds over a bare `XDP_DROP`, fed in turn with the program under test in one test
//! run; what is printed is the median of all pairs of neighbouring chunks and its 95% interval.

mod admission;
mod balance;
mod cluster;
mod compare;
mod driver;
mod edits;
mod lists;
mod node;
mod policy;
mod probe;
mod proxied;
mod replacement;
mod statistics;
mod table;
mod tunnel;

use std::{os::unix::process::CommandExt as _, process::Command};

use anyhow::Context as _;

use crate::table::Table;

/// Set in the copy of this process that runs in a network namespace of its own.
const INSIDE: &str = "HEADGATE_BENCH_INSIDE";

fn main() -> anyhow::Result<()> {
    if std::env::var_os(INSIDE).is_none() {
        let program = std::env::current_exe().context("finding this program")?;
        let error = Command::new("unshare")
            .arg("--net")
            .arg(program)
            .args(std::env::args_os().skip(1))
            .env(INSIDE, "1")
            .exec();
        return Err(error).context("running unshare, of util-linux, as root");
    }
    let only: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |name: &str| only.is_empty() || only.iter().any(|o| o == name);
    let mut table = Table::new();
    if wanted("policy") {
        policy::measure(&mut table)?;
    }
    if wanted("balance") {
        balance::measure(&mut table)?;
    }
    if wanted("proxied") {
        proxied::measure(&mut table)?;
    }
    if wanted("replacement") {
        replacement::measure(&mut table)?;
    }
    if wanted("tunnel") {
        tunnel::measure(&mut table)?;
    }
    if wanted("admission") {
        admission::measure(&mut table)?;
    }
    if wanted("edits") {
        edits::measure(&mut table)?;
    }
    if wanted("cluster") {
        cluster::measure(&mut table)?;
    }
    table.finish()
}
