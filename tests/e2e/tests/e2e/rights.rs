//! What an agent says that lacks what it needs.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use headgate_e2e_tests::{
    binary::headgate,
    frames::udp,
    lab::Lab,
    node::SOON,
    paths::workspace,
    policies::drop_udp,
    said::Said,
    trials::{on_node, on_node_with},
    wait::wait_for,
};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        on_node("without_capabilities_the_agent_says_which", capabilities),
        on_node("as_an_ordinary_user_the_agent_says_so", ordinary_user),
        on_node_with(
            "a_read_only_bpffs_is_said_with_the_remedy",
            &["unshare"],
            read_only,
        ),
        on_node_with("an_absent_bpffs_is_mounted", &["unshare"], absent),
        on_node(
            "the_manifests_capabilities_suffice_and_each_is_needed",
            of_the_manifest,
        ),
    ]
}

/// The agent run by way of another program, which must end with an error.
fn refused(lab: &Lab, way: &[&str]) -> Said {
    refused_as(lab, way, headgate())
}

fn refused_as(lab: &Lab, way: &[&str], binary: &Path) -> Said {
    let said = Said::of(&mut agent_by(lab, way, binary));
    assert_eq!(said.code, 1, "{said:?}");
    assert!(!lab.node.namespace.ip("link show eth0").contains("xdp"));
    assert!(!lab.node.pins().exists(), "nothing is left");
    said
}

fn agent_by(lab: &Lab, way: &[&str], binary: &Path) -> Command {
    let mut command = lab.node.namespace.command(way[0]);
    command.args(&way[1..]).arg(binary);
    let arguments = lab.node.agent_arguments();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    lab.node.command_by(command, &arguments)
}

fn lab() -> Lab {
    let lab = Lab::new();
    lab.node.write("policy.yaml", &drop_udp("policy", 9));
    lab
}

fn capabilities() {
    let lab = lab();
    let none = refused(
        &lab,
        &["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"],
    );
    assert!(
        none.errors.contains("neither CAP_BPF nor CAP_SYS_ADMIN"),
        "{none:?}"
    );
    assert!(none.errors.contains("run as root"), "{none:?}");
    let some = refused(
        &lab,
        &[
            "setpriv",
            "--bounding-set=-sys_admin",
            "--inh-caps=-sys_admin",
            "--",
        ],
    );
    assert!(
        some.errors.contains("CAP_BPF but not CAP_SYS_ADMIN"),
        "{some:?}"
    );
}

fn ordinary_user() {
    let lab = lab();
    // Where everybody can run it, wherever it was built.
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let everybody = Permissions::from_mode(0o755);
    fs::set_permissions(folder.path(), everybody).expect("the folder is ours");
    let copy = folder.path().join("headgate");
    fs::copy(headgate(), &copy).expect("there is room for it");
    let way = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--",
    ];
    let said = refused_as(&lab, &way, &copy);
    assert!(
        said.errors.contains("ermission denied") && said.errors.contains("root"),
        "{said:?}"
    );
}

fn read_only() {
    let lab = lab();
    let script = "mount -o remount,bind,ro /sys/fs/bpf && exec \"$0\" \"$@\"";
    let said = refused(&lab, &["unshare", "--mount", "sh", "-c", script]);
    assert!(said.errors.contains("read-only"), "{said:?}");
    assert!(said.errors.contains("remount,rw"), "{said:?}");
}

/// An agent apart from its node, which ends with this.
struct Apart(Child);

impl Drop for Apart {
    fn drop(&mut self) {
        self.0.kill().expect("it is our child");
        self.0.wait().expect("it is our child");
    }
}

fn absent() {
    let lab = lab();
    let script = "while umount /sys/fs/bpf 2>/dev/null; do :; done; exec \"$0\" \"$@\"";
    let mut command = agent_by(
        &lab,
        &["unshare", "--mount", "sh", "-c", script],
        headgate(),
    );
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let log = folder.path().join("log");
    let written = File::create(&log).expect("the folder is ours");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(written);
    let agent = Apart(command.spawn().expect("nsenter can be run"));
    let attached = || lab.node.namespace.ip("link show eth0").contains("xdp");
    wait_for(SOON, "the program is attached", attached);
    lab.check_arrivals([udp("10.0.0.1:5", "192.168.0.1:9").dropped()]);
    let log = fs::read_to_string(log).expect("it was written");
    assert!(log.contains("mounting a BPF file system"), "{log}");
    drop(agent);
    wait_for(SOON, "the pins end with the mount", || !attached());
}

/// As a pod's agent: root, with these capabilities and no way to others.
fn with_capabilities(lab: &Lab, capabilities: &[String]) -> Command {
    let bounding: Vec<String> = capabilities
        .iter()
        .map(|name| format!(",+{}", name.to_lowercase()))
        .collect();
    let bounding = format!("--bounding-set=-all{}", bounding.concat());
    let way = [
        "setpriv",
        &bounding,
        "--inh-caps=-all",
        "--no-new-privs",
        "--",
    ];
    agent_by(lab, &way, headgate())
}

/// The capabilities that the DaemonSet adds to none.
fn capabilities_of_the_manifest() -> Vec<String> {
    let path = workspace().join("manifests/agent/daemonset.yaml");
    let text = fs::read_to_string(path).expect("it is a file of the repository");
    let mut lines = text.lines().map(str::trim);
    assert!(lines.any(|line| line == "drop: [ALL]"), "{text}");
    let added = lines.find_map(|line| line.strip_prefix("add: [")?.strip_suffix(']'));
    let added = added.expect("some are added").split(", ");
    added.map(str::to_owned).collect()
}

/// A peer at the lab's client.
const PEER: &str = "\
apiVersion: headgate.dev/v1alpha1
kind: TunnelPeer
metadata: {name: client}
spec: {podCIDRs: [10.244.2.0/24], endpoint: 192.168.0.2, vni: 7}
";

fn of_the_manifest() {
    let all = capabilities_of_the_manifest();
    for missing in 0..=all.len() {
        let lab = lab();
        lab.node.write("peer.yaml", PEER);
        let mut some = all.clone();
        let without = (missing < all.len()).then(|| some.remove(missing));
        let mut command = with_capabilities(&lab, &some);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let agent = Apart(
            command
                .stderr(Stdio::null())
                .spawn()
                .expect("it can be run"),
        );
        let works = || {
            let links = lab.node.namespace.ip("link show");
            links.contains("xdp") && links.contains("headgate_vxlan")
        };
        if let Some(without) = without {
            std::thread::sleep(Duration::from_secs(2));
            assert!(!works(), "it works without {without}");
        } else {
            wait_for(SOON, "program and tunnel are there", works);
            lab.check_arrivals([udp("10.0.0.1:5", "192.168.0.1:9").dropped()]);
        }
        drop(agent);
    }
}
