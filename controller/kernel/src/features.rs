//! What the node must offer, asked for piece by piece and named where it is missing.

use std::{fmt, fs, io};

use headgate_datapath::kernel::KernelError;

use crate::{
    bpf::Program,
    error::{Asked, unusable},
    grace::GracePeriod,
};

/// What [`probe`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelFeatures {
    /// The kernel's release, as `uname -r` prints it.
    pub release: String,
    /// Whether programs are compiled to machine code; without it everything works, many times slower.
    pub jit: bool,
}

/// Release before which something that we need is missing or broken.
const MINIMUM: Version = Version(6, 1);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// Release from which on the verifier comes to an end with the load balancer: that of 6.1 marks numbers as
/// precise and keeps them so, and gives up after a million instructions.
const BALANCES: Version = Version(6, 12);

/// Why programs on this kernel have no load balancer; `None` where they have one.
#[must_use]
pub fn why_no_balancer() -> Option<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let version = version_of(&release);
    (version < BALANCES).then(|| {
        format!(
            "Linux {version} cannot verify programs with a load balancer; it takes Linux {BALANCES}"
        )
    })
}

const CAP_SYS_ADMIN: u32 = 21;
const CAP_BPF: u32 = 39;

/// Checks that this node and process can do what a plan needs.
///
/// # Errors
/// [`KernelError::Unusable`] with the first thing that is missing, and what to do about it.
pub fn probe() -> Result<KernelFeatures, KernelError> {
    let read = |path: &str| fs::read_to_string(path).asked(|| format!("reading {path}"));
    let release = read("/proc/sys/kernel/osrelease")?.trim().to_owned();
    check_release(&release)?;
    check_capabilities(&read("/proc/self/status")?)?;
    let program = Program::load_pass()
        .map_err(|error| lacking("XDP programs for frames in several buffers", &error))?;
    let jit = program
        .is_jited()
        .asked(|| "looking at a program".to_owned())?;
    GracePeriod::new()?.wait()?;
    Ok(KernelFeatures { release, jit })
}

fn version_of(release: &str) -> Version {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|number| number.parse().ok());
    Version(numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn check_release(release: &str) -> Result<(), KernelError> {
    if version_of(release) < MINIMUM {
        return Err(unusable(
            format!("kernel {release} is older than {MINIMUM}"),
            format!(
                "run kernel {MINIMUM} or later: XDP frags, batched map updates and links are all needed"
            ),
        ));
    }
    Ok(())
}

/// `status` is the text of /proc/self/status.
fn check_capabilities(status: &str) -> Result<(), KernelError> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|value| u64::from_str_radix(value.trim(), 16).ok())
        .ok_or_else(|| io::Error::other("no CapEff line"))
        .asked(|| "reading this process's capabilities".to_owned())?;
    let has = |capability: u32| effective & (1 << capability) != 0;
    if has(CAP_SYS_ADMIN) {
        return Ok(());
    }
    let what = if has(CAP_BPF) {
        "this process has CAP_BPF but not CAP_SYS_ADMIN, without which the kernel does not let anybody read back which tables are live"
    } else {
        "this process has neither CAP_BPF nor CAP_SYS_ADMIN"
    };
    Err(unusable(
        what,
        "run as root, or give the service or container CAP_SYS_ADMIN",
    ))
}

fn lacking(what: &str, error: &io::Error) -> KernelError {
    unusable(
        format!("the kernel does not take {what} ({error})"),
        "run a kernel with CONFIG_BPF_SYSCALL in the initial user namespace, and with kernel lockdown off or at `integrity`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(result: Result<(), KernelError>) -> String {
        result.expect_err("refused").to_string()
    }

    #[test]
    fn an_old_kernel_is_named_with_what_it_would_take() {
        assert!(
            words(check_release("5.10.0-32-amd64"))
                .starts_with("kernel 5.10.0-32-amd64 is older than 6.1")
        );
        assert!(check_release("6.1.0-9-amd64").is_ok());
        assert!(check_release("6.12").is_ok());
        assert!(check_release("10.0-rc1").is_ok());
    }

    #[test]
    fn missing_rights_are_told_apart() {
        let status = |bits: u64| format!("Name:\tx\nCapEff:\t{bits:016x}\nSeccomp:\t0\n");
        assert!(check_capabilities(&status(1 << CAP_SYS_ADMIN)).is_ok());
        assert!(
            words(check_capabilities(&status(0))).contains("neither CAP_BPF nor CAP_SYS_ADMIN")
        );
        assert!(
            words(check_capabilities(&status(1 << CAP_BPF)))
                .contains("has CAP_BPF but not CAP_SYS_ADMIN")
        );
    }
}
