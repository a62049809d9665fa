//! Output for people and for programs.

use std::io::{self, Write as _};

use clap::{Args, ValueEnum};
use serde::Serialize;
use tabwriter::TabWriter;

use crate::outcome::CliError;

/// For whom a command writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs: all there is, in one object.
    Json,
}

/// The option of all commands that show something.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct OutputArguments {
    /// How to write it: for people, or as JSON with everything in it.
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

impl OutputArguments {
    /// Writes `view`, as a table by `table`.
    pub(crate) fn show<T: Serialize>(
        self,
        view: &T,
        table: impl FnOnce(&T) -> String,
    ) -> Result<(), CliError> {
        match self.output {
            Format::Table => print(&table(view)),
            Format::Json => {
                let mut text = serde_json::to_string_pretty(view)
                    .expect("views have string keys and no fallible parts");
                text.push('\n');
                print(&text)
            }
        }
    }
}

/// Writes to standard output; a reader who has seen enough is no error.
pub(crate) fn print(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CliError::Output(error)),
        _ => Ok(()),
    }
}

/// Rows in columns as wide as they need to be, three blanks between, nothing behind the last.
pub(crate) fn columns<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let header = header.map(str::to_owned);
    let lines = std::iter::once(header).chain(rows).map(|row| {
        let cells = row.map(|cell| match cell.as_str() {
            "" => "-".to_owned(),
            _ => plain(&cell),
        });
        cells.join("\t") + "\n"
    });
    aligned(&lines.collect::<String>())
}

/// `Name:` and value, a line each.
pub(crate) fn fields(rows: impl IntoIterator<Item = (&'static str, String)>) -> String {
    let line = |(name, value): (&str, String)| match name {
        "" => format!("\t{}\n", plain(&value)),
        _ => format!("{name}:\t{}\n", plain(&value)),
    };
    aligned(&rows.into_iter().map(line).collect::<String>())
}

/// A heading with indented lines under it; nothing where there are no lines.
pub(crate) fn section(heading: &str, lines: impl IntoIterator<Item = String>) -> String {
    let lines: String = lines
        .into_iter()
        .map(|line| format!("  {}\n", plain(&line)))
        .collect();
    match lines.as_str() {
        "" => lines,
        _ => format!("\n{heading}:\n{lines}"),
    }
}

fn aligned(tabbed: &str) -> String {
    let mut writer = TabWriter::new(Vec::new()).padding(3).minwidth(0);
    writer
        .write_all(tabbed.as_bytes())
        .and_then(|()| writer.flush())
        .expect("memory takes everything");
    let bytes = writer.into_inner().expect("it was flushed");
    String::from_utf8(bytes).expect("blanks were added to UTF-8")
}

/// The first line, without characters that would move a terminal's cursor.
fn plain(text: &str) -> String {
    let mut lines = text.trim_end().lines();
    let first = lines.next().unwrap_or_default();
    let mut plain: String = first
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if lines.next().is_some() {
        plain.push_str(" [more by -o json]");
    }
    plain
}

/// A size in the largest unit that keeps it at or above 1.
pub(crate) fn size(bytes: u64) -> String {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    match bytes {
        0..KIB => format!("{bytes} B"),
        KIB..MIB => format!("{} KiB", bytes.div_ceil(KIB)),
        // Tables are smaller than 2^29 bytes.
        _ => format!("{:.1} MiB", bytes as f64 / MIB as f64),
    }
}

/// So many of something.
pub(crate) fn count(number: usize, thing: &str) -> String {
    match number {
        1 => format!("1 {thing}"),
        _ => format!("{number} {thing}s"),
    }
}

/// A number where there is one.
pub(crate) fn number<T: ToString>(value: Option<T>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_nothing_trails() {
        let rows = [
            ["eth0".to_owned(), "1".to_owned(), "Enforced".to_owned()],
            ["a".to_owned(), String::new(), "no".to_owned()],
        ];
        assert_eq!(
            columns(["INTERFACE", "PORT", "STATE"], rows),
            "INTERFACE   PORT   STATE\n\
             eth0        1      Enforced\n\
             a           -      no\n"
        );
    }

    #[test]
    fn a_cell_cannot_break_the_table() {
        let rows = [["a\tb\u{1b}[2J".to_owned(), "first\nsecond".to_owned()]];
        assert_eq!(
            columns(["A", "B"], rows),
            "A         B\na b [2J   first [more by -o json]\n"
        );
    }

    #[test]
    fn a_field_without_a_name_goes_on_with_the_one_above() {
        let rows = [("Name", "x".to_owned()), ("", "y".to_owned())];
        assert_eq!(fields(rows), "Name:   x\n        y\n");
    }

    #[test]
    fn an_empty_section_is_left_out() {
        assert_eq!(section("Findings", []), "");
        assert_eq!(section("Findings", ["x".to_owned()]), "\nFindings:\n  x\n");
    }

    #[test]
    fn one_is_not_several() {
        assert_eq!(count(1, "rule"), "1 rule");
        assert_eq!(count(0, "rule"), "0 rules");
    }

    #[test]
    fn sizes_are_read_at_a_glance() {
        assert_eq!(size(192), "192 B");
        assert_eq!(size(65_536), "64 KiB");
        assert_eq!(size(1_572_864), "1.5 MiB");
    }
}
