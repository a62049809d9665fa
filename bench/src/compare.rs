//! Two ways to do one thing, in turn.

use std::time::Duration;

use crate::{statistics::Median, table::Table};

const ROUNDS: usize = 41;

/// Adds a row: the time that one way takes of the other's, in percent.
pub fn compare(
    table: &mut Table,
    what: &str,
    target: Option<f64>,
    ours: impl Fn() -> anyhow::Result<Duration>,
    theirs: impl Fn() -> anyhow::Result<Duration>,
) -> anyhow::Result<()> {
    ours()?;
    theirs()?;
    let mut shares = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS {
        // Whoever comes first has the other's caches.
        let (ours, theirs) = if round % 2 == 0 {
            let ours = ours()?;
            (ours, theirs()?)
        } else {
            let theirs = theirs()?;
            (ours()?, theirs)
        };
        shares.push(ours.as_secs_f64() / theirs.as_secs_f64() * 100.0);
    }
    table.median(what, Median::of(&mut shares), target, "%");
    Ok(())
}
