//! `headgate monitor` beside traffic.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Stdio},
};

use headgate_e2e_tests::{
    frames::{arp, tcp, udp},
    lab::Lab,
    node::{Node, SOON},
    policies::drop_udp,
    trials::on_node,
    wait::wait_for_some,
};
use libtest_mimic::Trial;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        on_node("a_monitor_tells_packets_with_the_agent_dead", told),
        on_node("a_monitor_tells_one_rule_in_lines_for_people", lines),
        on_node("one_monitor_runs_at_a_time_however_it_ended", one),
        on_node("a_monitor_ends_with_its_reader", reader),
    ]
}

/// A monitor in the background.
pub(crate) struct Monitor {
    child: Child,
    folder: TempDir,
}

impl Monitor {
    pub(crate) fn start(node: &Node, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name| File::create(folder.path().join(name)).expect("the folder is ours");
        let mut command = node.command(&[&["monitor"], arguments].concat());
        command.stdin(Stdio::null());
        command.stdout(file("stdout")).stderr(file("stderr"));
        let child = command.spawn().expect("nsenter can be run");
        Self { child, folder }
    }

    pub(crate) fn said(&self, name: &str) -> String {
        let path: PathBuf = self.folder.path().join(name);
        fs::read_to_string(path).expect("the folder is ours")
    }

    pub(crate) fn objects(&self) -> Vec<Value> {
        let stdout = self.said("stdout");
        let whole = stdout.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let objects = whole.lines().map(serde_json::from_str);
        objects.map(|object| object.expect("JSON")).collect()
    }

    /// Sends until it tells something that `find` takes.
    pub(crate) fn wait_for<T>(&self, send: impl Fn(), find: impl Fn(&Self) -> Option<T>) -> T {
        let (found, _) = wait_for_some(SOON, "the monitor tells it", || {
            send();
            find(self)
        });
        found
    }

    fn end(&mut self, signal: Signal) -> Option<i32> {
        let pid = Pid::from_raw(self.child.id().try_into().expect("a process id"));
        kill(pid, signal).expect("it is our child and was not waited for");
        self.child.wait().expect("it is our child").code()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn told() {
    let mut lab = Lab::enforcing(&[("a.yaml", &drop_udp("web", 9))]);
    let revision = lab.node.report()["live_revision"].clone();
    lab.node.kill();
    let mut monitor = Monitor::start(&lab.node, &["--type", "trace", "-o", "json"]);
    let frames = [
        udp("192.168.0.2:4242", "192.168.0.1:9"),
        tcp("192.168.0.2:4242", "192.168.0.1:22", "S"),
        udp("[fd00::2]:4242", "[fd00::1]:9"),
        arp(),
    ];
    let send = || {
        for frame in &frames {
            lab.client.wire.send(frame, 1);
        }
    };
    let with = |object: &Value, fields: &[(&str, Value)]| {
        let mut fields = fields.iter();
        fields.all(|(field, value)| &object[*field] == value)
    };
    let expected: [&[(&str, Value)]; 4] = [
        &[
            ("verdict", "Drop".into()),
            ("policy", "web".into()),
            ("rule", "udp".into()),
            ("source", "192.168.0.2".into()),
            ("sourcePort", 4242.into()),
            ("destinationPort", 9.into()),
            ("protocol", "udp".into()),
            ("revision", revision.clone()),
        ],
        &[
            ("verdict", "Allow".into()),
            ("reason", "DefaultAllow".into()),
            ("destinationPort", 22.into()),
            ("tcpFlags", serde_json::json!(["SYN"])),
            ("revision", revision),
        ],
        &[
            ("verdict", "Drop".into()),
            ("destination", "fd00::1".into()),
            ("rule", "udp".into()),
        ],
        &[
            ("verdict", "Allow".into()),
            ("reason", "NotIp".into()),
            ("etherType", "0x0806".into()),
        ],
    ];
    for fields in expected {
        let object = monitor.wait_for(send, |monitor| {
            let mut objects = monitor.objects().into_iter();
            objects.find(|object| with(object, fields))
        });
        assert_eq!(object["interface"], "eth0", "{object}");
        let frame = object["frame"].as_str().expect("hexadecimal digits");
        assert!(frame.len() >= 28, "{object}");
    }
    assert_eq!(monitor.end(Signal::SIGTERM), Some(0));
    assert_eq!(monitor.said("stderr"), "");
}

fn lines() {
    let lab = Lab::enforcing(&[
        ("a.yaml", &drop_udp("web", 9)),
        ("b.yaml", &drop_udp("dns", 53)),
    ]);
    let mut monitor = Monitor::start(&lab.node, &["--rule", "web/udp"]);
    let frames = [
        udp("192.168.0.2:4242", "192.168.0.1:53"),
        udp("192.168.0.2:4242", "192.168.0.1:9"),
    ];
    let send = || {
        for frame in &frames {
            lab.client.wire.send(frame, 1);
        }
    };
    let told = monitor.wait_for(send, |monitor| {
        let told = monitor.said("stdout");
        told.ends_with('\n').then_some(told)
    });
    for line in told.lines() {
        let (time, rest) = line.split_once(' ').expect("a time");
        assert_eq!(time.len(), "13:03:44.120".len(), "{line}");
        let begin = "eth0 Drop web/udp 192.168.0.2:4242 > 192.168.0.1:9 udp len ";
        assert!(rest.starts_with(begin), "{line}");
        assert!(rest.contains(" revision "), "{line}");
    }
    assert_eq!(monitor.end(Signal::SIGINT), Some(0));

    for (rule, remedy) in [
        ("wbe/udp", "there are: "),
        ("web/tcp", "those of this policy that are: udp"),
    ] {
        let said = lab.node.headgate(&["monitor", "--rule", rule]);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.errors.contains(remedy), "{said:?}");
    }
}

fn one() {
    let lab = Lab::enforcing(&[("a.yaml", &drop_udp("web", 9))]);
    let dropped = udp("192.168.0.2:4242", "192.168.0.1:9");
    let send = || lab.client.wire.send(&dropped, 1);
    let says = |monitor: &Monitor| (!monitor.objects().is_empty()).then_some(());
    let mut first = Monitor::start(&lab.node, &["-o", "json"]);
    first.wait_for(send, says);
    let said = lab.node.headgate(&["monitor"]);
    assert_eq!(said.code, 1, "{said:?}");
    let holder = format!(
        "another monitor of this instance runs (pid {})",
        first.child.id()
    );
    assert!(said.errors.contains(&holder), "{said:?}");
    first.end(Signal::SIGKILL);
    let second = Monitor::start(&lab.node, &["-o", "json"]);
    second.wait_for(send, says);
}

fn reader() {
    let lab = Lab::enforcing(&[("a.yaml", &drop_udp("web", 9))]);
    let mut command = lab.node.command(&["monitor"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = child.expect("nsenter can be run");
    // Whether packets come or not.
    drop(child.stdout.take());
    let (status, _) = wait_for_some(SOON, "the monitor ends", || {
        child.try_wait().expect("it is our child")
    });
    assert!(status.success(), "{status}");
}
