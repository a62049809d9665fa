//! A node: namespaces of its own with a containerd, a kubelet and a kube-proxy in them.

use std::{
    env, fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use serde_json::Value;

use super::{
    cgroups::Cgroups,
    config::{self, ProxyMode},
    images,
};
use crate::{
    assets::NODES,
    cluster::Member,
    control_plane::ControlPlane,
    namespace::{run, unique_name},
    paths::workspace,
    process::Process,
    said::Said,
    wait::wait_for,
};

/// Time within which each of its programs is at work, on a busy machine.
const START: Duration = Duration::from_secs(60);

/// Enters the control groups that are listed in a file, and then the namespaces of a process: who
/// only enters the namespaces stays in groups that runc finds to be none of the node's.
const ENTER: &str = r#"while read -r folder; do echo $$ >"$folder/cgroup.procs"; done <"$0"
pid=$1; shift; exec nsenter --target "$pid" --all --wd=/ -- "$@""#;
/// Becomes the first process of a node: in the control groups that are listed in a file, and in
/// namespaces whose last process ends with the one that made them.
const BECOME: &str = r#"while read -r folder; do echo $$ >"$folder/cgroup.procs"; done <"$0"
exec unshare --mount --uts --ipc --pid --cgroup --fork --kill-child "$@""#;

/// A node. All of it goes away with it.
#[derive(Debug)]
pub struct RealNode {
    // Before the groups: what is in them ends with it.
    #[allow(dead_code, reason = "its processes are killed when dropped")]
    daemons: Vec<Process>,
    proxy: Option<Proxy>,
    init: Process,
    #[allow(dead_code, reason = "they are removed when dropped")]
    cgroups: Cgroups,
    folder: PathBuf,
    /// Its first process, as this process sees it.
    pid: u32,
    /// Its name in the API.
    pub name: String,
    /// Its place on the switch.
    pub member: Member,
}

/// A kube-proxy.
#[derive(Debug)]
struct Proxy {
    process: Process,
    mode: ProxyMode,
    kubeconfig: PathBuf,
}

impl RealNode {
    /// One that has a containerd with all images, and nothing that makes it known to the API. It
    /// keeps what it has in a folder of its own, which is there.
    ///
    /// # Panics
    /// Where something of it does not start.
    pub(crate) fn boot(name: &str, member: Member, folder: &Path) -> Self {
        for inner in ["containerd", "kubelet", "networks", "tunables"] {
            fs::create_dir(folder.join(inner)).expect("the folder is new and empty");
        }
        let cgroups = Cgroups::new(&format!("{}-{name}", unique_name()));
        write_lines(&folder.join("roots"), cgroups.roots());
        write_lines(&folder.join("cgroups"), &cgroups.joined());
        let mut init = start_init(name, &member, folder);
        wait_for(START, "the node has its file system", || {
            init.assert_runs();
            folder.join("ready").exists()
        });
        let pid = only_child(init.id());
        cgroups.hand_over(&[init.id(), pid]);
        let mut node = Self {
            daemons: Vec::new(),
            proxy: None,
            init,
            cgroups,
            folder: folder.to_owned(),
            pid,
            name: name.to_owned(),
            member,
        };
        node.start_containerd();
        node
    }

    fn start_containerd(&mut self) {
        let config = config::containerd(&self.folder.join("networks"));
        let config = self.write("containerd.toml", &config);
        let config = config.display().to_string();
        self.start(
            "containerd",
            Path::new("containerd"),
            &["--config", &config],
        );
        wait_for(START, "containerd answers", || {
            self.assert_runs();
            self.said("ctr", &["version"]).code == 0
        });
        for image in images() {
            let image = image.display().to_string();
            let import = ["-n", "k8s.io", "images", "import", &image];
            run(self.command(Path::new("ctr")).args(import));
        }
    }

    /// Starts kubelet and kube-proxy: the node makes itself known.
    ///
    /// # Panics
    /// Where they cannot be run.
    pub(crate) fn register(&mut self, control_plane: &ControlPlane) {
        let address = self.address().to_string();
        let user = format!("system:node:{}", self.name);
        let kubeconfig = control_plane.kubeconfig_of(&self.name, &user, "system:nodes");
        let serves = format!("{}-serves", self.name);
        let serving = control_plane.server_certificate(&serves, &[&address, &self.name]);
        let resolver = self.write("resolv.conf", "nameserver 127.0.0.1\n");
        let authority = control_plane.authority();
        let config = config::kubelet(self.address(), &authority, &serving, &resolver);
        let arguments = [
            format!("--config={}", self.write_json("kubelet.yaml", &config)),
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--hostname-override={}", self.name),
            format!("--node-ip={address}"),
        ];
        self.start("kubelet", &NODES.program("kubelet"), &arguments);
        let proxy = format!("{}-proxy", self.name);
        let kubeconfig =
            control_plane.kubeconfig_of(&proxy, "system:kube-proxy", "system:node-proxier");
        self.start_proxy(kubeconfig, ProxyMode::Nftables);
    }

    fn start_proxy(&mut self, kubeconfig: PathBuf, mode: ProxyMode) {
        let config = config::kube_proxy(&kubeconfig, mode);
        let arguments = [
            format!("--config={}", self.write_json("kube-proxy.yaml", &config)),
            format!("--hostname-override={}", self.name),
        ];
        let process = self.process("kube-proxy", &NODES.program("kube-proxy"), &arguments);
        self.proxy = Some(Proxy {
            process,
            mode,
            kubeconfig,
        });
    }

    /// Has kube-proxy work in this mode from now on; what it did in the other one it takes back itself.
    ///
    /// # Panics
    /// Where there is none, or it cannot be run.
    pub fn proxy_by(&mut self, mode: ProxyMode) {
        let former = self
            .proxy
            .take()
            .expect("there is one since it is registered");
        if former.mode == mode {
            self.proxy = Some(former);
            return;
        }
        // What entered the node is here; what works there is its child.
        let worker = only_child(former.process.id());
        let worker = Pid::from_raw(worker.try_into().expect("a process id"));
        signal::kill(worker, Signal::SIGTERM).expect("it is our own");
        let mut process = former.process;
        wait_for(START, "kube-proxy ends", || process.has_ended());
        self.start_proxy(former.kubeconfig, mode);
    }

    /// Gives its pods a network with addresses from this range.
    ///
    /// # Panics
    /// Where that cannot be written.
    pub(crate) fn give_network(&self, range: &str) {
        self.write_json("networks/10-pods.conflist", &config::network(range));
    }

    /// Where it is reached.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.member.end.v4
    }

    /// A command that will run in it as one of its own processes, with nothing of the environment
    /// of the tests.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("bash");
        command
            .args(["-c", ENTER])
            .arg(self.folder.join("cgroups"))
            .arg(self.pid.to_string())
            .arg(program);
        with_clean_environment(&mut command);
        command
    }

    /// Runs a program in it to its end.
    ///
    /// # Panics
    /// Where it cannot be run.
    #[must_use]
    pub fn said(&self, program: &str, arguments: &[&str]) -> Said {
        Said::of(self.command(Path::new(program)).args(arguments))
    }

    /// Panics where one of its programs has ended, with the last that it said.
    pub(crate) fn assert_runs(&mut self) {
        self.init.assert_runs();
        let proxy = self.proxy.iter_mut().map(|proxy| &mut proxy.process);
        let daemons = self.daemons.iter_mut().chain(proxy);
        daemons.for_each(Process::assert_runs);
    }

    fn start(&mut self, name: &str, program: &Path, arguments: &[impl AsRef<str>]) {
        let process = self.process(name, program, arguments);
        self.daemons.push(process);
    }

    fn process(&self, name: &str, program: &Path, arguments: &[impl AsRef<str>]) -> Process {
        let mut command = self.command(program);
        command.args(arguments.iter().map(AsRef::as_ref));
        Process::of(command, self.folder.join(format!("{name}.log")))
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.join(name);
        fs::write(&path, text).expect("the folder is ours");
        path
    }

    /// JSON is YAML too.
    fn write_json(&self, name: &str, value: &Value) -> String {
        self.write(name, &value.to_string()).display().to_string()
    }

    /// The last that its programs said.
    #[must_use]
    pub fn logs(&self) -> String {
        let mut logs = String::new();
        for name in ["containerd", "kubelet", "kube-proxy"] {
            let path = self.folder.join(format!("{name}.log"));
            let log = fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(30)..].join("\n");
            logs.push_str(&format!("{name} of {}:\n{last}\n", self.name));
        }
        logs
    }
}

fn start_init(name: &str, member: &Member, folder: &Path) -> Process {
    let script = workspace().join("tests/e2e/src/real/node-init.sh");
    // Should the tests be killed, it goes with them, and with it all of the node.
    let mut command = member.namespace.command("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--", "bash", "-c", BECOME])
        .arg(folder.join("roots"))
        .arg("bash")
        .arg(script)
        .arg(name)
        .arg(folder);
    with_clean_environment(&mut command);
    Process::of(command, folder.join("init.log"))
}

fn with_clean_environment(command: &mut Command) {
    let path = env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).env("HOME", "/root");
}

fn only_child(process: u32) -> u32 {
    let path = format!("/proc/{process}/task/{process}/children");
    let children = fs::read_to_string(path).expect("it runs");
    let child = children.split_whitespace().next();
    child
        .and_then(|child| child.parse().ok())
        .expect("what it forked has made the file that was waited for")
}

fn write_lines(path: &Path, folders: &[PathBuf]) {
    let lines: String = folders
        .iter()
        .map(|folder| format!("{}\n", folder.display()))
        .collect();
    fs::write(path, lines).expect("the folder is ours");
}
