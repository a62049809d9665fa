//! Writes the CRDs from the resource types, or compares them with the files that are there:
//! `xtask-crds FOLDER [--check]`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::Parser;

/// The reference of all fields, from the folder of the CRDs.
const REFERENCE: &str = "../docs/reference.md";

/// Writes the CRDs from the resource types.
#[derive(Parser)]
struct Args {
    /// The folder of the YAML files
    folder: PathBuf,
    /// Write nothing; fail where a file differs from the types
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = if args.check {
        check(&args.folder)
    } else {
        write(&args.folder)
    };
    match result {
        Ok(differing) if differing.is_empty() => ExitCode::SUCCESS,
        Ok(differing) => {
            for problem in differing {
                eprintln!("crds: {problem}");
            }
            eprintln!("crds: `cargo xtask crds` writes them from the types");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("crds: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn write(folder: &Path) -> Result<Vec<String>> {
    let wanted = headgate_crds::files();
    for stale in &present(folder)? - &wanted.iter().map(|(name, _)| name.clone()).collect() {
        let path = folder.join(stale);
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    for (name, content) in wanted {
        let path = folder.join(&name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        println!("crds: wrote {name}");
    }
    let path = folder.join(REFERENCE);
    fs::write(&path, headgate_crds::reference())
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("crds: wrote {}", path.display());
    Ok(Vec::new())
}

fn check(folder: &Path) -> Result<Vec<String>> {
    let mut stale = present(folder)?;
    let mut problems = Vec::new();
    for (name, content) in headgate_crds::files() {
        if !stale.remove(&name) {
            problems.push(format!("{name} is missing"));
        } else if fs::read_to_string(folder.join(&name))? != content {
            problems.push(format!("{name} differs from the types"));
        }
    }
    problems.extend(
        stale
            .into_iter()
            .map(|name| format!("{name} belongs to no type")),
    );
    Ok(problems)
}

fn present(folder: &Path) -> Result<BTreeSet<String>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut names = BTreeSet::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".yaml") {
            names.insert(name);
        }
    }
    Ok(names)
}
