//! A node: a network namespace with an agent of its own in it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, SystemTime},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    binary::headgate,
    cluster::ClusterNode,
    namespace::{Namespace, unique_name},
    said::Said,
    wait::{wait_for, wait_for_some},
};

/// Time within which the agent must have done what it is about to do, on a busy machine.
pub const SOON: Duration = Duration::from_secs(10);

const BPFFS: &str = "/sys/fs/bpf";

/// A node. Its agent, everything attached, and its folders go away with it.
#[derive(Debug)]
pub struct Node {
    /// Where it lives; another node may share it.
    pub namespace: Arc<Namespace>,
    /// Name of its instance.
    pub instance: String,
    /// Further arguments of its agent, for the next start.
    pub arguments: Vec<String>,
    /// Where its agent reads resources, if not in its directory of policies.
    source: Option<Vec<String>>,
    /// Its name where they are read from the directory.
    name: String,
    folder: TempDir,
    agent: Option<Child>,
    starts: u32,
}

impl Node {
    /// A node without policies, whose agent is not started.
    ///
    /// # Panics
    /// Where its folders cannot be made.
    #[must_use]
    pub fn new(namespace: &Arc<Namespace>) -> Self {
        let instance = unique_name();
        let folder = tempfile::Builder::new()
            .prefix(&format!("{instance}-"))
            .tempdir();
        let folder = folder.expect("a temporary folder can be made");
        for name in ["policies", "edits", "state"] {
            fs::create_dir(folder.path().join(name)).expect("the folder is new and empty");
        }
        Self {
            namespace: Arc::clone(namespace),
            instance,
            arguments: Vec::new(),
            source: None,
            name: "node".to_owned(),
            folder,
            agent: None,
            starts: 0,
        }
    }

    /// A node of a cluster, whose agent reads resources from the API and is not started.
    #[must_use]
    pub fn of_cluster(node: &ClusterNode) -> Self {
        let mut own = Self::new(&node.member.namespace);
        own.read_from(&node.kubeconfig, &node.name);
        own
    }

    /// Lets its agent read from the API by this kubeconfig, as the node of this name.
    pub fn read_from(&mut self, kubeconfig: &Path, name: &str) {
        let kubeconfig = kubeconfig.display().to_string();
        let source = [
            "kubernetes",
            "--kubeconfig",
            &kubeconfig,
            "--node-name",
            name,
        ];
        self.source = Some(source.map(str::to_owned).to_vec());
    }

    /// Lets its agent read its directory of policies, as the node of this name.
    pub fn read_from_directory(&mut self, name: &str) {
        self.source = None;
        name.clone_into(&mut self.name);
    }

    /// The directory of its policies.
    #[must_use]
    pub fn policies(&self) -> PathBuf {
        self.folder.path().join("policies")
    }

    /// The folder in which its instance keeps its state.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state").join(&self.instance)
    }

    /// The folder of its pins.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        Path::new(BPFFS).join("headgate").join(&self.instance)
    }

    /// Puts a file into the directory of policies, whole at once, as `git` and `kubectl` do.
    ///
    /// # Panics
    /// Where it cannot be written.
    pub fn write(&self, file: &str, text: &str) {
        let edited = self.folder.path().join("edits").join(file);
        fs::write(&edited, text).expect("the folder is ours");
        fs::rename(&edited, self.policies().join(file)).expect("both folders are ours");
    }

    /// Takes a file out of the directory of policies.
    ///
    /// # Panics
    /// Where it is not there.
    pub fn remove(&self, file: &str) {
        fs::remove_file(self.policies().join(file)).expect("the file is there");
    }

    /// Changes the directory of policies and waits until another revision is live; says how long
    /// that took.
    ///
    /// # Panics
    /// Where none goes live.
    pub fn live_after(&self, change: impl FnOnce(&Self)) -> Duration {
        let before = self.live_revision();
        change(self);
        wait_for(SOON, "another revision is live", || {
            self.live_revision() != before && self.is_settled()
        })
    }

    /// Writes a file and waits until another revision is live.
    pub fn apply(&self, file: &str, text: &str) -> Duration {
        self.live_after(|node| node.write(file, text))
    }

    /// A command of the headgate binary, in the node's namespace and for its instance.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_by(self.namespace.command(headgate()), arguments)
    }

    /// The same, given how the binary is run.
    #[must_use]
    pub fn command_by(&self, mut command: Command, arguments: &[&str]) -> Command {
        command.args(arguments).args(["--instance", &self.instance]);
        command
            .arg("--state-dir")
            .arg(self.folder.path().join("state"));
        command.args(["--bpffs", BPFFS]);
        command
    }

    /// Arguments with which its agent is started.
    #[must_use]
    pub fn agent_arguments(&self) -> Vec<String> {
        let directory = || {
            let policies = self.policies().display().to_string();
            vec![policies, "--node-name".to_owned(), self.name.clone()]
        };
        let command = ["agent", "--source"].map(str::to_owned).into_iter();
        let source = self.source.clone().unwrap_or_else(directory);
        command
            .chain(source)
            .chain(self.arguments.iter().cloned())
            .collect()
    }

    /// Runs the headgate binary to its end.
    ///
    /// # Panics
    /// Where it cannot be run.
    #[must_use]
    pub fn headgate(&self, arguments: &[&str]) -> Said {
        Said::of(&mut self.command(arguments))
    }

    /// Starts the agent and waits for nothing.
    ///
    /// # Panics
    /// Where it cannot be started.
    pub fn spawn(&mut self) {
        assert!(self.agent.is_none(), "the agent of {} runs", self.instance);
        self.starts += 1;
        let arguments = self.agent_arguments();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let log = File::create(self.log_path()).expect("the folder is ours");
        // Should the tests be killed, it goes with them.
        let mut command = self.namespace.command("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(headgate());
        let mut command = self.command_by(command, &arguments);
        let spawned = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.agent = Some(spawned.expect("nsenter can be run"));
    }

    /// Starts the agent and waits until it has said what it found.
    ///
    /// # Panics
    /// Where it ends at once.
    pub fn start_unsettled(&mut self) {
        let before = self.report_written();
        self.spawn();
        wait_for(SOON, "the agent's first report", || {
            let agent = self.agent.as_mut().expect("it was just started");
            if let Ok(Some(status)) = agent.try_wait() {
                let path = self
                    .folder
                    .path()
                    .join(format!("agent-{}.log", self.starts));
                let log = fs::read_to_string(path).unwrap_or_default();
                panic!("the agent ended ({status}):\n{log}");
            }
            self.report_written() != before
        });
    }

    /// Starts the agent and waits until all that is wanted is enforced.
    ///
    /// # Panics
    /// Where it is not.
    pub fn start(&mut self) {
        self.start_unsettled();
        self.settle();
    }

    /// Waits until all that is wanted is enforced.
    ///
    /// # Panics
    /// Where it is not, with the report.
    pub fn settle(&self) {
        let settled = || self.is_settled().then_some(());
        let reason = format!("enforcement as wanted on {}", self.instance);
        wait_for_some(SOON, &reason, settled);
    }

    /// Kills the agent by SIGKILL and waits for its end.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn kill(&mut self) {
        self.end(Signal::SIGKILL);
    }

    /// Stops the agent by SIGTERM and waits for its end.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn terminate(&mut self) -> ExitStatus {
        self.end(Signal::SIGTERM)
    }

    /// Halts the agent where it is.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets a halted agent go on.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().try_into().expect("a process id"));
        kill(pid, signal).expect("it is our child and was not waited for");
    }

    fn end(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        let mut agent = self.agent.take().expect("it was just signalled");
        agent.wait().expect("it is our child")
    }

    /// Process id of the agent.
    ///
    /// # Panics
    /// Where it does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.agent.as_ref().expect("the agent runs").id()
    }

    fn log_path(&self) -> PathBuf {
        self.folder
            .path()
            .join(format!("agent-{}.log", self.starts))
    }

    /// What its agent has used of the CPUs so far.
    ///
    /// # Panics
    /// Where it does not run.
    #[must_use]
    pub fn cpu_time(&self) -> Duration {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid()));
        let threads = threads.expect("its agent runs").flatten();
        let used = threads.filter_map(|thread| {
            // A thread may just have ended. The first figure is the time on a CPU, in nanoseconds:
            // Documentation/scheduler/sched-stats.rst.
            let statistics = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            statistics.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(used.sum())
    }

    /// What the agent has said since its last start.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Waits until the agent has said this.
    ///
    /// # Panics
    /// Where it does not, with what it said.
    pub fn wait_for_log(&self, words: &str) {
        let what = format!("{words:?} in the log of {}", self.instance);
        wait_for(SOON, &what, || self.log().contains(words));
    }

    /// When the agent wrote its report last.
    #[must_use]
    pub fn report_written(&self) -> Option<SystemTime> {
        let metadata = fs::metadata(self.state().join("report.json")).ok()?;
        metadata.modified().ok()
    }

    /// What the agent wrote last, or null.
    #[must_use]
    pub fn report(&self) -> Value {
        let text = fs::read(self.state().join("report.json"));
        text.ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or(Value::Null)
    }

    fn live_revision(&self) -> Value {
        self.report()["live_revision"].clone()
    }

    fn is_settled(&self) -> bool {
        let report = self.report();
        let ports = report["ports"].as_object();
        report["live_revision"] == report["wanted_revision"]
            && report["failures"].as_array().is_some_and(Vec::is_empty)
            && ports.is_some_and(|ports| ports.values().all(|port| port["status"] == "Enforced"))
    }

    /// What `headgate status -o json` prints.
    ///
    /// # Panics
    /// Where it prints no JSON.
    #[must_use]
    pub fn status(&self) -> Value {
        self.headgate(&["status", "-o", "json"]).json()
    }

    /// What `headgate status -o json` says of an interface, or null.
    #[must_use]
    pub fn interface(&self, name: &str) -> Value {
        let status = self.status();
        let interfaces = status["interfaces"].as_array().cloned().unwrap_or_default();
        let mut named = interfaces
            .into_iter()
            .filter(|view| view["interface"] == name);
        named.next().unwrap_or(Value::Null)
    }

    /// Packets by `POLICY/RULE`, and by reason over all interfaces, read by the CLI.
    ///
    /// # Panics
    /// Where it prints no JSON.
    #[must_use]
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let mut counters = BTreeMap::new();
        let rules = self.headgate(&["policy", "counters", "-o", "json"]).json();
        for rule in rules.as_array().into_iter().flatten() {
            let text = |field: &str| rule[field].as_str().unwrap_or_default().to_owned();
            let name = format!("{}/{}", text("policy"), text("rule"));
            counters.insert(name, rule["packets"].as_u64().unwrap_or(0));
        }
        let status = self.status();
        for interface in status["interfaces"].as_array().into_iter().flatten() {
            for reason in interface["counters"].as_array().into_iter().flatten() {
                let name = reason["reason"].as_str().unwrap_or_default().to_owned();
                *counters.entry(name).or_default() += reason["packets"].as_u64().unwrap_or(0);
            }
        }
        counters
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.agent.is_some() {
            self.kill();
        }
        let said = self.command(&["detach"]).output();
        if !said.as_ref().is_ok_and(|output| output.status.success()) {
            eprintln!("taking down {}: {said:?}", self.instance);
        }
        if std::thread::panicking() {
            eprintln!("last log of {}:\n{}", self.instance, self.log());
            eprintln!("last report: {:#}", self.report());
        }
    }
}
