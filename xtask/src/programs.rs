//! Lints of crates that stand outside the workspace, as they are built for another target.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Result;

use crate::cargo;

const TARGET: &str = "bpfel-unknown-none";

/// Runs clippy in a folder of the checkout, with the toolchain that can compile for the target: this one where its sysroot has
/// `core` ready, else rustup's nightly, which builds it.
pub(crate) fn lint(folder: &Path) -> Result<()> {
    let sysroot = cargo::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let ready = Path::new(sysroot.trim())
        .join("lib/rustlib")
        .join(TARGET)
        .is_dir();
    let mut clippy = if ready {
        let mut clippy = cargo::command();
        clippy.env("RUSTC_BOOTSTRAP", "1").arg("clippy");
        clippy
    } else {
        let mut clippy = Command::new("rustup");
        clippy.env_remove("RUSTUP_TOOLCHAIN").args([
            "run",
            "nightly",
            "cargo",
            "clippy",
            "-Z",
            "build-std=core",
        ]);
        clippy
    };
    let target_dir =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| cargo::root().join("target"), PathBuf::from);
    clippy
        .current_dir(cargo::root().join(folder))
        .args(["--release", "--locked", "--target", TARGET])
        .arg("--target-dir")
        .arg(target_dir.join("programs"))
        .args(["--", "-D", "warnings"])
        .stdin(Stdio::null());
    cargo::succeed(&mut clippy)
}
