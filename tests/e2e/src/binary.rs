//! The binary under test.

use std::{
    env,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// The file that `HEADGATE_BINARY` names, or else what cargo builds, in the profile of the tests.
/// Built once a process; cargo's own lock keeps several runs apart.
///
/// # Panics
/// Where it does not build.
#[must_use]
pub fn headgate() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match env::var_os("HEADGATE_BINARY") {
        Some(path) => PathBuf::from(path),
        None => build(),
    })
}

fn build() -> PathBuf {
    let manifest = crate::paths::workspace().join("Cargo.toml");
    let mut build = escargot::CargoBuild::new()
        .manifest_path(manifest)
        .package("headgate")
        .bin("headgate");
    if !cfg!(debug_assertions) {
        build = build.release();
    }
    let run = build
        .run()
        .unwrap_or_else(|error| panic!("building headgate: {error}"));
    run.path().to_owned()
}
