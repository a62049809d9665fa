//! Agents' pods come and go; what their nodes enforce does not.

use headgate_e2e_tests::{
    real::{NAMESPACE, RealCluster, RealNode, Traffic},
    trials::{on_real_nodes, soak},
};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{POLICY, Shared};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        on_real_nodes("a_roll_out_loses_nothing_and_leaks_nothing", rolled_out),
        on_real_nodes("a_deleted_agent_loses_nothing_and_leaks_nothing", deleted),
        on_real_nodes("a_killed_agent_loses_nothing_and_leaks_nothing", killed),
    ]
}

/// Datagrams that flow before and after.
const SOME: u64 = 200;

fn rolled_out() {
    undisturbed_by("a roll-out", 20, |cluster, _| {
        let agents = "daemonset/headgate-agent";
        cluster.run(&["rollout", "restart", agents, "-n", NAMESPACE]);
    });
}

fn deleted() {
    undisturbed_by("agents deleted", 20, |cluster, agents| {
        let names = agents
            .iter()
            .filter_map(|pod| pod["metadata"]["name"].as_str());
        // With no time to end, as when a node is in trouble.
        let force = [
            "delete",
            "pods",
            "-n",
            NAMESPACE,
            "--force",
            "--grace-period=0",
        ];
        let delete: Vec<&str> = force.into_iter().chain(names).collect();
        cluster.run(&delete);
    });
}

fn killed() {
    // Each time kubelet waits longer before it starts them again.
    undisturbed_by("agents killed", 3, |cluster, _| {
        cluster.nodes.iter().for_each(kill_agent);
    });
}

/// Lets traffic flow while something makes other agents of those that there are; so many times
/// where tests are to run as long as it takes to be sure.
fn undisturbed_by(what: &str, soaking: usize, replace: impl Fn(&RealCluster, &[Value])) {
    let cluster = Shared::enforcing();
    let traffic = Traffic::start(&cluster);
    traffic.go_on(SOME);
    let times = if soak() { soaking } else { 1 };
    for _ in 0..times {
        let before = cluster.agents();
        replace(&cluster, &before);
        let took = cluster.wait_for_other_agents(&before);
        traffic.go_on(SOME);
        println!("{what}: other agents are Ready after {took:?}");
    }
    traffic.stop_unbroken(what);
    cluster.wait_until_live(POLICY);
}

/// Kills the agent's process; nobody in its pod could.
fn kill_agent(node: &RealNode) {
    let script = r#"for process in /proc/[0-9]*; do
        case "$(tr '\0' ' ' <"$process/cmdline")" in
        "/headgate agent "*) kill -9 "${process#/proc/}" && echo killed ;;
        esac
    done"#;
    let said = node.said("bash", &["-c", script]);
    assert_eq!(said.output, "killed\n", "{}: {said:?}", node.name);
}
