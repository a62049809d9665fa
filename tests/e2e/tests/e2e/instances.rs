//! Agents side by side, the CLI without an agent, and the end of it all.

use headgate_e2e_tests::{frames::udp, lab::Lab, policies::drop_udp, said::Said, trials::on_node};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        on_node("two_instances_live_side_by_side", side_by_side),
        on_node(
            "a_second_agent_of_an_instance_is_refused_with_the_pid",
            second_agent,
        ),
        on_node("the_cli_works_with_the_agent_dead", agent_dead),
        on_node("detach_waits_for_no_agent_and_then_leaves_nothing", detach),
        on_node("a_plan_changes_nothing_and_says_what_would_change", plan),
    ]
}

fn dropping(port: u16) -> Lab {
    Lab::enforcing(&[("policy.yaml", &drop_udp("policy", port))])
}

fn side_by_side() {
    let (one, mut other) = (dropping(1), dropping(2));
    let first = || udp("10.0.0.1:5", "192.168.0.1:1");
    let second = || udp("10.0.0.1:5", "192.168.0.1:2");
    one.check([first().dropped_by("policy/udp"), second().passes()]);
    other.check([first().passes(), second().dropped_by("policy/udp")]);
    other.node.kill();
    assert_eq!(other.node.headgate(&["detach"]).code, 0);
    other.check_arrivals([first().passes(), second().passes()]);
    one.check([first().dropped_by("policy/udp"), second().passes()]);
}

fn second_agent() {
    let lab = dropping(1);
    let arguments = lab.node.agent_arguments();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let second = lab.node.headgate(&arguments);
    assert_eq!(second.code, 1, "{second:?}");
    let expected = format!(
        "an agent of this instance is running (pid {})",
        lab.node.pid()
    );
    assert!(second.errors.contains(&expected), "{second:?}");
    lab.check([udp("10.0.0.1:5", "192.168.0.1:1").dropped_by("policy/udp")]);
}

fn agent_dead() {
    let mut lab = dropping(1);
    lab.check([udp("10.0.0.1:5", "192.168.0.1:1").dropped_by("policy/udp")]);
    lab.node.kill();
    let status = lab.node.headgate(&["status"]);
    assert_eq!(status.code, 0, "{status:?}");
    for words in ["not running", "eth0", "native", "Enforced"] {
        assert!(status.output.contains(words), "{words}: {status:?}");
    }
    // Counters are the kernel's, and go on.
    lab.check([udp("10.0.0.1:5", "192.168.0.1:1").dropped_by("policy/udp")]);
    let said = |arguments: &[&str]| -> Said { lab.node.headgate(arguments) };
    assert!(said(&["policy", "list"]).output.contains("policy"));
    assert_eq!(said(&["policy", "get", "policy"]).code, 0);
    let unknown = said(&["policy", "get", "polcy"]);
    assert_eq!(unknown.code, 1);
    assert!(unknown.errors.contains("there are: policy"), "{unknown:?}");
    assert_eq!(said(&["status", "--frobnicate"]).code, 2);
    lab.node.namespace.ip("link del eth0");
    let gone = said(&["status"]);
    assert_eq!(gone.code, 3, "{gone:?}");
    assert!(
        gone.output.contains("there is no such interface"),
        "{gone:?}"
    );
}

fn detach() {
    let mut lab = dropping(1);
    let refused = lab.node.headgate(&["detach"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.errors.contains(&format!("pid {}", lab.node.pid())),
        "{refused:?}"
    );
    lab.check([udp("10.0.0.1:5", "192.168.0.1:1").dropped_by("policy/udp")]);
    assert!(lab.node.pins().is_dir());

    lab.node.terminate();
    let detached = lab.node.headgate(&["detach"]);
    assert_eq!(detached.code, 0, "{detached:?}");
    assert!(
        detached.output.contains("detached from eth0"),
        "{detached:?}"
    );
    assert!(!lab.node.pins().exists(), "the pins are gone");
    assert!(!lab.node.namespace.ip("link show eth0").contains("xdp"));
    lab.check_arrivals([udp("10.0.0.1:5", "192.168.0.1:1").passes()]);
    let again = lab.node.headgate(&["detach"]);
    assert_eq!(again.code, 0, "{again:?}");

    lab.node.start();
    lab.check([udp("10.0.0.1:5", "192.168.0.1:1").dropped_by("policy/udp")]);
}

fn plan() {
    let lab = dropping(1);
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("policy.yaml");
    std::fs::write(&file, drop_udp("policy", 2)).expect("the folder is ours");
    let directory = folder.path().display().to_string();
    let planned = lab.node.headgate(&["plan", &directory]);
    assert_eq!(planned.code, 0, "{planned:?}");
    for words in ["build tables", "make slot"] {
        assert!(planned.output.contains(words), "{words}: {planned:?}");
    }
    lab.check([
        udp("10.0.0.1:5", "192.168.0.1:1").dropped_by("policy/udp"),
        udp("10.0.0.1:5", "192.168.0.1:2").passes(),
    ]);
    std::fs::write(&file, "kind: XdpPolicy").expect("the folder is ours");
    let refused = lab.node.headgate(&["plan", &directory]);
    assert_eq!(refused.code, 3, "{refused:?}");
    assert!(refused.output.contains("policy.yaml:1"), "{refused:?}");
}
