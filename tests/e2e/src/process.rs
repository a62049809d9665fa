//! Processes that end with the tests.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Sender},
    thread,
};

use crate::namespace::Namespace;

/// How much of a log is told when something went wrong.
const LAST_LINES: usize = 20;

/// A process in a network namespace, killed when dropped, or when the tests are.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
    /// Ends the thread that started the child, when dropped.
    _keeper: Sender<()>,
}

impl Process {
    /// Starts a program in `namespace`; what it says goes to the file `log`.
    pub(crate) fn start<'a>(
        namespace: &Namespace,
        program: &Path,
        arguments: impl IntoIterator<Item = &'a str>,
        log: PathBuf,
    ) -> Self {
        Self::start_with(namespace, program, arguments, &[], log)
    }

    /// The same with these variables in its environment.
    pub(crate) fn start_with<'a>(
        namespace: &Namespace,
        program: &Path,
        arguments: impl IntoIterator<Item = &'a str>,
        environment: &[(&str, OsString)],
        log: PathBuf,
    ) -> Self {
        let mut command = namespace.command("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)));
        Self::of(command, log)
    }

    /// Starts a command that sees to it by itself that it ends with the tests.
    pub(crate) fn of(mut command: Command, log: PathBuf) -> Self {
        let file = File::options().create(true).append(true).open(&log);
        let output = file.expect("the folder of logs is ours");
        let errors = output.try_clone().expect("a file can be had twice");
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let (child, keeper) = spawn(command).expect("nsenter can be run");
        Self {
            child,
            log,
            _keeper: keeper,
        }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its resident memory, in KiB.
    pub(crate) fn resident(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(path).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.expect("a process has memory")
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_some()
    }

    /// Panics where it has ended by itself, with the last that it said.
    pub(crate) fn assert_runs(&mut self) {
        if let Some(status) = self.child.try_wait().expect("it is our child") {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
            panic!("{}: it ended ({status}):\n{last}", self.log.display());
        }
    }
}

impl Process {
    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        // It fails only where it was waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts a command from a thread of its own: the signal that a parent's death sends comes when
/// the thread ends that forked, and threads of tests do not last.
fn spawn(mut command: Command) -> io::Result<(Child, Sender<()>)> {
    let (report, started) = mpsc::channel();
    let (keeper, end) = mpsc::channel();
    thread::spawn(move || {
        let _ = report.send(command.spawn());
        let _ = end.recv();
    });
    let child = started.recv().expect("the thread says how it went")?;
    Ok((child, keeper))
}
