//! Files of the repository that tests read.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The root of the workspace.
#[must_use]
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The text of a file below `examples/`.
///
/// # Panics
/// Where it cannot be read.
#[must_use]
pub fn example(name: &str) -> String {
    let path = workspace().join("examples").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// File names of `examples/policies/*.yaml`, sorted.
///
/// # Panics
/// Where the folder cannot be read.
#[must_use]
pub fn example_policies() -> Vec<String> {
    let folder = workspace().join("examples/policies");
    let mut names: Vec<String> = fs::read_dir(folder)
        .and_then(|entries| {
            entries
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect()
        })
        .expect("examples/policies is a folder");
    names.retain(|name| name.ends_with(".yaml"));
    names.sort();
    names
}

/// The CIDRs of a CidrGroup in one of `examples/data/`, as written.
#[must_use]
pub fn example_cidrs(name: &str) -> Vec<String> {
    let text = example(&format!("data/{name}"));
    let items = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- "));
    items.map(str::to_owned).collect()
}

/// The first block of commands below a heading of docs/install.md.
///
/// # Panics
/// Where there is none.
#[must_use]
pub fn documented(heading: &str) -> String {
    let path = workspace().join("docs/install.md");
    let text =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let below = text.split_once(&format!("\n## {heading}\n"));
    let block = below.and_then(|(_, below)| {
        let section = below.split("\n## ").next()?;
        let (_, block) = section.split_once("```sh\n")?;
        Some(block.split_once("```")?.0.to_owned())
    });
    block.unwrap_or_else(|| panic!("{}: no commands below {heading:?}", path.display()))
}
