//! Network namespaces.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use nix::sched::{CloneFlags, setns};

/// How names of what tests make begin; the process id follows.
pub(crate) const PREFIX: &str = "hge-";

/// A network namespace of its own, gone when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one, with its loopback up.
    ///
    /// # Panics
    /// Where it cannot be made.
    #[must_use]
    pub fn new(role: &str) -> Self {
        // The first `ip netns add` on a machine mounts the folder of names: one at a time.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let name = format!("{}-{role}", unique_name());
        run(Command::new("ip").args(["netns", "add", &name]));
        let namespace = Self { name };
        namespace.ip("link set lo up");
        namespace
    }

    /// The file that stands for it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Runs `ip` on it and gives what that prints.
    ///
    /// # Panics
    /// Where it fails.
    pub fn ip(&self, arguments: &str) -> String {
        let arguments = arguments.split_whitespace();
        let namespace = ["-n", self.name.as_str()];
        let output = run(Command::new("ip").args(namespace).args(arguments));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A command that will run in it, and see the same mounts as this process.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display()));
        command.arg("--").arg(program);
        command
    }

    /// Runs `work` in a thread inside of it. Sockets opened there stay there.
    ///
    /// # Panics
    /// Where the namespace cannot be entered, or `work` panics.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = File::open(self.path()).expect("the namespace exists as long as this value");
        let worker = || {
            setns(&file, CloneFlags::CLONE_NEWNET).expect("root may enter a network namespace");
            work()
        };
        let result = thread::scope(|scope| scope.spawn(worker).join());
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let deleted = Command::new("ip")
            .args(["netns", "del", &self.name])
            .output();
        if !deleted.is_ok_and(|output| output.status.success()) {
            eprintln!("the network namespace {} could not be deleted", self.name);
        }
    }
}

/// A name that nobody else has: short lower-case letters, digits and '-'.
#[must_use]
pub fn unique_name() -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{PREFIX}{}-{count}", std::process::id())
}

/// Runs a command to its end.
///
/// # Panics
/// Where it cannot be run or fails, with what it said.
pub fn run(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    output
}
