//! An emulated machine that runs the tests once.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

/// Begins the line in which a machine says with which status the tests ended.
pub(super) const DONE: &str = "DONE rc=";

/// What a machine writes: what the tests say, and what the kernel says.
pub(super) const OUTPUT: &str = "tests.log";
const CONSOLE: &str = "console.log";

/// Many times what a machine takes where it has this computer for itself: the verifier's work,
/// emulated, is what takes long.
const TIME_OUT: Duration = Duration::from_secs(60 * 60);

/// What came of it.
pub(crate) struct Run {
    /// What the tests said.
    pub(crate) output: String,
    /// What the kernel said.
    pub(crate) console: String,
    /// The tests' exit status, where they came to an end.
    pub(crate) status: Option<i32>,
    /// How the machine ended.
    pub(crate) end: &'static str,
}

/// Boots a kernel, waits for the machine's end and leaves what it wrote in `folder`.
pub(crate) fn boot(image: &Path, initramfs: &Path, folder: &Path) -> Result<Run> {
    let serial = |name: &str| format!("file:{}", folder.join(name).display());
    let mut command = Command::new("qemu-system-x86_64");
    command
        // Emulated, so that it works within virtual machines. Without cmpxchg16b, which some
        // kernels crash on now and then under emulation.
        .args(["-accel", "tcg", "-cpu", "max,-cx16"])
        .args(["-m", "1024", "-smp", "2"])
        .args(["-nodefaults", "-display", "none", "-no-reboot"])
        .arg("-kernel")
        .arg(image)
        .arg("-initrd")
        .arg(initramfs)
        // With -no-reboot, a panic ends the machine. Mitigations slow down emulation most of all.
        .args(["-append", "console=ttyS0 panic=-1 mitigations=off"])
        .args(["-serial", &serial(CONSOLE)])
        .args(["-serial", &serial(OUTPUT)])
        .stdin(Stdio::null());
    let mut machine = command.spawn().context("cannot run qemu-system-x86_64")?;
    let end = wait(&mut machine)?;
    let read = |name: &str| -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(folder.join(name))?).into_owned())
    };
    let output = read(OUTPUT)?;
    Ok(Run {
        status: status(&output),
        output,
        console: read(CONSOLE)?,
        end,
    })
}

fn wait(machine: &mut Child) -> Result<&'static str> {
    let started = Instant::now();
    while started.elapsed() < TIME_OUT {
        if machine.try_wait()?.is_some() {
            return Ok("stopped");
        }
        thread::sleep(Duration::from_millis(100));
    }
    machine.kill()?;
    machine.wait()?;
    Ok("was stopped after an hour")
}

fn status(output: &str) -> Option<i32> {
    let last = output.lines().next_back()?;
    last.strip_prefix(DONE)?.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::status;

    #[test]
    fn only_the_last_line_tells_the_status() {
        assert_eq!(status("test result: ok.\nDONE rc=101\r\n"), Some(101));
        assert_eq!(status("DONE rc=0\nrunning 3 tests\n"), None);
        assert_eq!(status(""), None);
    }
}
