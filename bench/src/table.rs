//! The table and its JSON.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use crate::statistics::Median;

/// Rows so far.
pub struct Table {
    rows: Vec<Value>,
}

impl Table {
    /// Prints the head.
    pub fn new() -> Self {
        println!(
            "{:<58} {:>9} {:>17} {:>9}  met",
            "what", "measured", "95% interval", "at most"
        );
        Self { rows: Vec::new() }
    }

    /// A median with its interval. Met if the interval's low end is at or under `target`.
    pub fn median(&mut self, what: &str, median: Median, target: Option<f64>, unit: &str) {
        let met = target.map(|target| median.low <= target);
        println!(
            "{what:<58} {:>6.1} {unit:<2} {:>8.1}..{:<7.1} {:>9}  {}",
            median.value,
            median.low,
            median.high,
            target.map(|t| format!("{t:.0} {unit}")).unwrap_or_default(),
            verdict(met),
        );
        self.rows.push(json!({
            "what": what, "unit": unit, "median": median.value,
            "low": median.low, "high": median.high, "target": target, "met": met,
        }));
    }

    /// A single figure.
    pub fn figure(&mut self, what: &str, value: f64, target: Option<f64>, unit: &str) {
        let met = target.map(|target| value <= target);
        println!(
            "{what:<58} {value:>6.1} {unit:<2} {:>17} {:>9}  {}",
            "",
            target.map(|t| format!("{t:.0} {unit}")).unwrap_or_default(),
            verdict(met),
        );
        self.rows.push(
            json!({"what": what, "unit": unit, "value": value, "target": target, "met": met}),
        );
    }

    /// Prints the surroundings and writes the JSON.
    pub fn finish(self) -> anyhow::Result<()> {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let cpus = fs::read_to_string("/proc/cpuinfo")?;
        let model = cpus
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
        let date = Command::new("date").arg("-uIseconds").output()?.stdout;
        let document = json!({
            "kernel": kernel.trim(),
            "cpu": model.unwrap_or("unknown"),
            "cpus": cpus.lines().filter(|line| line.starts_with("processor")).count(),
            "date": String::from_utf8_lossy(&date).trim(),
            "rows": self.rows,
        });
        println!(
            "kernel {}, {}",
            kernel.trim(),
            model.unwrap_or("unknown CPU")
        );
        let path = Path::new("bench-results.json");
        fs::write(path, serde_json::to_string_pretty(&document)?)?;
        println!("JSON: {}", path.display());
        Ok(())
    }
}

fn verdict(met: Option<bool>) -> &'static str {
    match met {
        Some(true) => "yes",
        Some(false) => "NO",
        None => "",
    }
}
