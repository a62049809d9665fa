//! Help, and what bad flags get. Nothing here needs root.

mod common;

use std::{
    path::Path,
    process::{Command, Stdio},
};

use common::{Run, headgate};

fn here(arguments: &[&str]) -> Run {
    headgate(Path::new(env!("CARGO_TARGET_TMPDIR")), arguments)
}

/// Runs with arguments that are bad usage and gives the message.
fn refused(arguments: &[&str]) -> String {
    let run = here(arguments);
    assert_eq!(run.code, 2, "{arguments:?}: {}", run.stderr);
    assert_eq!(run.stdout, "", "{arguments:?}");
    run.stderr
}

#[test]
fn every_command_explains_itself_and_its_reach() {
    let commands: [&[&str]; 10] = [
        &["agent"],
        &["status"],
        &["policy"],
        &["policy", "list"],
        &["policy", "get"],
        &["policy", "counters"],
        &["plan"],
        &["monitor"],
        &["detach"],
        &[],
    ];
    for command in commands {
        let run = here(&[command, &["--help"]].concat());
        assert_eq!(run.code, 0, "{command:?}: {}", run.stderr);
        assert!(
            run.stdout.contains("this node"),
            "{command:?}: {}",
            run.stdout
        );
    }
}

#[test]
fn commands_for_scripts_say_their_exit_codes() {
    for command in ["status", "plan", "monitor", "detach"] {
        let help = here(&[command, "--help"]).stdout;
        assert!(help.contains("Exit codes:\n  0  "), "{help}");
    }
}

#[test]
fn the_version_names_layout_and_object() {
    let long = here(&["version"]);
    let flag = here(&["--version"]);
    assert_eq!(long.stdout, flag.stdout);
    let expected = format!("headgate {} (layout ", env!("CARGO_PKG_VERSION"));
    assert!(long.stdout.starts_with(&expected), "{}", long.stdout);
    assert!(long.stdout.contains(", object "), "{}", long.stdout);
}

#[test]
fn an_instance_name_that_could_leave_its_folder_is_refused() {
    for name in ["", "../default", "a/b", "Default", "a_b", &"x".repeat(33)] {
        for command in [["status"].as_slice(), &["detach"], &["policy", "list"]] {
            let message = refused(&[command, &["--instance", name]].concat());
            let remedy = "write 1 to 32 lower-case letters, digits and '-'";
            assert!(message.contains(remedy), "{name}: {message}");
        }
    }
}

#[test]
fn an_agent_needs_a_source() {
    assert!(refused(&["agent"]).contains("--source <DIR|kubernetes>"));
}

#[test]
fn flags_of_the_node_are_checked_before_anything_starts() {
    let cases = [
        (
            "--failsafe-cidr",
            "10.0.0.1",
            "the prefix length is missing; write ADDRESS/LENGTH",
        ),
        ("--failsafe-cidr", "010.0.0.0/8", "the address is malformed"),
        (
            "--failsafe-cidr",
            "10.0.0.1/8",
            "bits are set behind the prefix; write 10.0.0.0/8",
        ),
        ("--node-labels", "role", "write KEY=VALUE,KEY=VALUE"),
        ("--node-labels", "role=a b", "\"a b\" is no label value"),
        (
            "--node-name",
            "Worker_1",
            "write lower-case letters, digits, '-' and '.'",
        ),
        ("--log-format", "xml", "[possible values: text, json]"),
    ];
    for (flag, value, reason) in cases {
        let message = refused(&["agent", "--source", ".", flag, value]);
        assert!(message.contains(reason), "{flag} {value}: {message}");
    }
}

#[test]
fn what_to_monitor_is_checked_before_anything_starts() {
    let cases = [
        ("--type", "reject", "[possible values: drop, allow, trace]"),
        (
            "--rule",
            "web",
            "write the policy's name, a slash and the rule's name",
        ),
        ("--rate", "0", "write a number from 1 to 1000000"),
        ("--output", "xml", "[possible values: table, json]"),
    ];
    for (flag, value, reason) in cases {
        let message = refused(&["monitor", flag, value]);
        assert!(message.contains(reason), "{flag} {value}: {message}");
    }
}

#[test]
fn made_up_interfaces_are_no_measure_for_a_live_node() {
    let message = refused(&["plan", ".", "--interfaces", "eth0"]);
    assert!(message.contains("add --against DIR"), "{message}");
    let twice = refused(&["plan", ".", "--against", ".", "--interfaces", "eth0,eth0"]);
    assert!(twice.contains("given twice"), "{twice}");
}

#[test]
fn a_bpffs_that_is_none_is_an_error_in_one_line_with_a_remedy() {
    let folder = tempfile::tempdir().expect("a folder");
    for command in [
        ["status"].as_slice(),
        &["monitor"],
        &["policy", "list"],
        &["policy", "get", "x"],
    ] {
        let flags = ["--bpffs", ".", "--state-dir", "."];
        let run = headgate(folder.path(), &[command, &flags].concat());
        assert_eq!(run.code, 1, "{command:?}");
        assert_eq!(run.stdout, "", "{command:?}");
        let lines: Vec<_> = run.stderr.lines().collect();
        let [line] = lines.as_slice() else {
            panic!("{command:?}: {}", run.stderr);
        };
        assert!(
            line.starts_with("headgate: no BPF file system is mounted at ."),
            "{line}"
        );
    }
}

#[test]
fn a_reader_who_has_seen_enough_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_headgate"))
        .args(["completion", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    drop(child.stdout.take());
    let run = Run::from(child.wait_with_output().expect("it ends"));
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
}
