//! Agents that obey the API.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use headgate_e2e_tests::{
    binary::headgate,
    control_plane::{AGENT_NAMESPACE, ControlPlane},
    fleet::{Fleet, SOON},
    flow::{Flow, Receiver},
    node::Node,
    said::Said,
    trials::{on_cluster, soak},
    wait::wait_for,
};
use libtest_mimic::Trial;
use serde_json::{Value, json};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        on_cluster("what_is_applied_is_enforced_on_every_node", apply),
        on_cluster("a_node_selector_follows_the_nodes_labels", labels),
        on_cluster(
            "without_the_api_everything_stays_over_a_restart",
            without_api,
        ),
        on_cluster("a_closed_node_still_reaches_its_api_server", closed),
        on_cluster("what_is_missing_is_said_and_waited_for", missing),
        on_cluster("rights_and_definitions_may_come_later", later),
        on_cluster("kubectl_headgate_tells_of_all_nodes", plugin),
        on_cluster("what_got_past_the_api_is_refused_by_the_agent", forced),
        on_cluster("at_rest_nothing_is_written_but_leases", at_rest),
        on_cluster(
            "kills_and_an_outage_lose_and_leak_nothing",
            kills_and_outage,
        ),
    ]
}

fn is_ready(status: &Value) -> bool {
    status["conditions"][0]["status"] == "True"
}

fn apply() {
    let fleet = Fleet::started(3);
    let (closed, open) = (7001, 7002);
    for node in 0..3 {
        assert_eq!(fleet.arrivals(node, closed), 20);
    }
    fleet.apply(&fleet.drop_udp("web", closed, &[]));
    let mut digests = Vec::new();
    for node in 0..3 {
        fleet.wait_until(node, closed, true);
        assert_eq!(fleet.arrivals(node, open), 20, "another port");
        let status = fleet.wait_for_datapath(node, "shows the interface", |status| {
            status["interfaces"][0]["enforced"] == true && is_ready(status)
        });
        assert_eq!(status["interfaces"][0]["name"], "eth0");
        assert_eq!(status["interfaces"][0]["attachMode"], "Native");
        assert_eq!(status["exceptions"], Value::Null);
        let revision = fleet.nodes[node].report()["live_revision"].clone();
        assert_eq!(status["revision"], revision);
        digests.push(status["inputsDigest"].as_str().map(str::to_owned));
    }
    // The hostname is a label of each node.
    digests.dedup();
    assert_eq!(digests.len(), 3, "{digests:?}");
    let owner = fleet.datapath(0)["metadata"]["ownerReferences"][0]["kind"].clone();
    assert_eq!(owner, "Node");

    // A group, first used by an edit.
    let source = fleet.cluster.client.end.v4;
    fleet.apply(&json!({
        "apiVersion": "headgate.dev/v1alpha1",
        "kind": "CidrGroup",
        "metadata": {"name": fleet.named("clients"), "labels": {"list": fleet.cluster.name}},
        "spec": {"cidrs": [format!("{source}/32")]},
    }));
    let mut policy = fleet.drop_udp("web", open, &[]);
    let list = json!({"selector": {"matchLabels": {"list": fleet.cluster.name}}});
    policy["spec"]["rules"][0]["from"] = json!({"cidrGroups": list});
    fleet.apply(&policy);
    for node in 0..3 {
        fleet.wait_until(node, open, true);
        fleet.wait_until(node, closed, false);
    }
    // A label counts no generation up, and selects all the same.
    let group = fleet.named("clients");
    let unlabel = ["label", "cidrgroup", &group, "list-"];
    fleet.cluster.kubectl().run(&unlabel);
    for node in 0..3 {
        fleet.wait_until(node, open, false);
    }
    fleet.delete("xdppolicy", "web");
    fleet.delete("cidrgroup", "clients");
    for node in 0..3 {
        fleet.wait_for_datapath(node, "shows no interface", |status| {
            status["interfaces"] == Value::Null && is_ready(status)
        });
    }
}

fn labels() {
    let fleet = Fleet::started(2);
    fleet.apply(&fleet.drop_udp("edge", 7001, &[("role", "edge")]));
    let mut not_core = fleet.drop_udp("not-core", 7002, &[]);
    let expression = json!([{"key": "role", "operator": "NotIn", "values": ["core"]}]);
    not_core["spec"]["nodeSelector"]["matchExpressions"] = expression;
    fleet.apply(&not_core);
    fleet.wait_until(0, 7002, true);
    fleet.wait_until(1, 7002, true);
    assert_eq!(fleet.arrivals(0, 7001), 20);
    let label = |node: usize, role: &str| {
        let name = &fleet.cluster.nodes[node].name;
        let arguments = ["label", "node", name, "--overwrite", role];
        fleet.cluster.kubectl().run(&arguments);
    };
    label(0, "role=edge");
    label(1, "role=core");
    fleet.wait_until(0, 7001, true);
    fleet.wait_until(1, 7002, false);
    assert_eq!(fleet.arrivals(0, 7002), 0, "edge is not core");
    assert_eq!(fleet.arrivals(1, 7001), 20, "core is not edge");
    label(0, "role-");
    fleet.wait_until(0, 7001, false);
    fleet.delete("xdppolicy", "edge");
    fleet.delete("xdppolicy", "not-core");
}

fn without_api() {
    let mut fleet = Fleet::started(1);
    fleet.apply(&fleet.drop_udp("web", 7001, &[]));
    fleet.wait_until(0, 7001, true);
    fleet.wait_for_datapath(0, "is ready", is_ready);

    fleet.cluster.unplug_api_server();
    fleet.nodes[0].kill();
    assert_eq!(fleet.arrivals(0, 7001), 0, "without agent and API");
    fleet.nodes[0].start_unsettled();
    fleet.nodes[0].wait_for_log("what is in effect stays");
    assert_eq!(fleet.arrivals(0, 7001), 0, "an agent that knows no API");
    let report = fleet.nodes[0].report();
    assert_eq!(report["live_revision"], report["wanted_revision"]);
    assert!(report["source_unavailable"].is_string(), "{report:#}");

    // Without a memory, too: what is not known is not taken for gone.
    fleet.nodes[0].kill();
    let memory = fleet.nodes[0].state().join("memory.json");
    std::fs::write(memory, "nonsense").expect("the folder is ours");
    fleet.nodes[0].start_unsettled();
    fleet.nodes[0].wait_for_log("the agent's memory is lost");
    assert_eq!(fleet.arrivals(0, 7001), 0, "an agent that knows nothing");
    assert_eq!(fleet.nodes[0].report()["wanted_revision"], Value::Null);

    // Without the API a directory can take over, and hand back.
    fleet.nodes[0].kill();
    let mut policy = fleet.drop_udp("from-git", 7003, &[]);
    policy["spec"]["nodeSelector"] = json!({"matchLabels": {"role": "edge"}});
    policy["spec"]["defaultAction"] = json!("Drop");
    fleet.nodes[0].write("policy.json", &policy.to_string());
    let name = fleet.cluster.nodes[0].name.clone();
    fleet.nodes[0].read_from_directory(&name);
    fleet.nodes[0].arguments = vec!["--node-labels".to_owned(), "role=edge".to_owned()];
    fleet.nodes[0].start();
    fleet.wait_until(0, 7003, true);
    fleet.nodes[0].kill();
    fleet.nodes[0].arguments.clear();
    let kubeconfig = fleet.cluster.nodes[0].kubeconfig.clone();
    fleet.nodes[0].read_from(&kubeconfig, &name);
    fleet.nodes[0].start_unsettled();
    assert_eq!(fleet.arrivals(0, 7003), 0);

    fleet.delete("xdppolicy", "web");
    fleet.apply(&fleet.drop_udp("other", 7002, &[]));
    fleet.cluster.plug_api_server();
    // A good client waits half a minute at most between two attempts.
    let what = "the agent has heard of the API again";
    wait_for(Duration::from_secs(60), what, || {
        fleet.arrivals(0, 7002) == 0
    });
    fleet.wait_until(0, 7001, false);
    fleet.delete("xdppolicy", "other");
}

fn closed() {
    let mut fleet = Fleet::started(1);
    let mut policy = fleet.drop_udp("closed", 7001, &[]);
    policy["spec"]["defaultAction"] = json!("Drop");
    fleet.apply(&policy);
    fleet.wait_until(0, 7003, true);
    fleet.wait_for_datapath(0, "is ready", is_ready);
    // It still hears, and is heard, after a restart as well.
    fleet.nodes[0].kill();
    fleet.nodes[0].start();
    policy["spec"]["defaultAction"] = json!("Allow");
    fleet.apply(&policy);
    fleet.wait_until(0, 7003, false);
    assert_eq!(fleet.arrivals(0, 7001), 0);
    fleet.delete("xdppolicy", "closed");
}

fn missing() {
    let mut fleet = Fleet::new(1);
    let kubeconfig = fleet.cluster.nodes[0].kubeconfig.clone();
    let text = std::fs::read_to_string(&kubeconfig).expect("it was just written");
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let name = fleet.cluster.nodes[0].name.clone();

    fleet.nodes[0].read_from(&kubeconfig, "nobody");
    says(&mut fleet.nodes[0], "the cluster has no node nobody");

    let bad = folder.path().join("token");
    let token = text
        .lines()
        .find_map(|line| line.split_once("token"))
        .expect("a token")
        .1;
    let token = token.trim_matches([':', ' ', '"', '}', ']', ',']);
    std::fs::write(&bad, text.replace(token, "nonsense")).expect("written");
    fleet.nodes[0].read_from(&bad, &name);
    says(&mut fleet.nodes[0], "does not accept the credentials");

    fleet.nodes[0].read_from(&folder.path().join("none"), &name);
    let arguments = fleet.nodes[0].agent_arguments();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let said = fleet.nodes[0].headgate(&arguments);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.errors.contains("kubeconfig"), "{said:?}");
}

/// An agent on a cluster that knows nothing of Headgate.
fn later() {
    let control_plane = Arc::new(ControlPlane::start());
    let mut fleet = Fleet::without_rights(&control_plane, 1);
    let own = fleet.cluster.nodes[0].kubeconfig.clone();
    let name = fleet.cluster.nodes[0].name.clone();

    let other = ControlPlane::shared().kubeconfig("of-another-authority", "token");
    let authority = |path: &std::path::Path| {
        let text = std::fs::read_to_string(path).expect("it was just written");
        let kubeconfig: Value = serde_json::from_str(&text).expect("JSON is YAML");
        (
            kubeconfig["clusters"][0]["cluster"]["certificate-authority"].clone(),
            text,
        )
    };
    let ((right, text), (wrong, _)) = (authority(&own), authority(&other));
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("wrong-authority");
    let [right, wrong] = [right, wrong].map(|path| path.as_str().expect("a path").to_owned());
    std::fs::write(&file, text.replace(&right, &wrong)).expect("written");
    fleet.nodes[0].read_from(&file, &name);
    says(
        &mut fleet.nodes[0],
        "not signed by the certificate authority",
    );

    fleet.nodes[0].read_from(&own, &name);
    fleet.nodes[0].spawn();
    fleet.nodes[0].wait_for_log("makes the agents' role and its binding");
    fleet.nodes[0].wait_for_log("the node's Pods are not heard of");
    fleet.grant();
    let patience = Duration::from_secs(60);
    wait_for(patience, "the definitions are asked for", || {
        let log = fleet.nodes[0].log();
        log.contains("`kubectl apply -f crds/` installs the definitions")
    });
    control_plane.install_crds();
    fleet.apply(&fleet.drop_udp("web", 7001, &[]));
    wait_for(patience, "the policy is enforced", || {
        fleet.arrivals(0, 7001) == 0
    });
    fleet.wait_for_datapath(0, "is ready", is_ready);
    fleet.nodes[0].wait_for_log("the node's Pods are heard of again");
}

/// Starts the agent, waits until it says this, and sees that it goes on.
fn says(node: &mut Node, words: &str) {
    node.spawn();
    node.wait_for_log(words);
    std::thread::sleep(Duration::from_secs(1));
    assert!(node.log().matches(words).count() <= 2, "{}", node.log());
    node.kill();
}

fn plugin() {
    let fleet = Fleet::started(2);
    fleet.apply(&fleet.drop_udp("web", 7001, &[]));
    fleet.apply(&fleet.drop_udp("nowhere", 7001, &[("no", "node")]));
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let plugin = folder.path().join("kubectl-headgate");
    std::os::unix::fs::symlink(headgate(), plugin).expect("the folder is ours");
    let kubectl = |arguments: &[&str]| {
        let arguments = [&["headgate"], arguments].concat();
        let mut command = fleet.cluster.kubectl().command(&arguments);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", folder.path().display()));
        Said::of(&mut command)
    };
    let (web, nowhere) = (fleet.named("web"), fleet.named("nowhere"));
    wait_for(SOON, "both nodes are known to enforce it", || {
        let said = kubectl(&["policy", "get", &web, "-o", "json"]);
        let nodes = said.json()["nodes"].as_array().cloned().unwrap_or_default();
        nodes.len() == 2 && nodes.iter().all(|node| node["standing"] == "Enforced")
    });
    let list = kubectl(&["policy", "list"]);
    let line = |name: &str| {
        let line = list.output.lines().find(|line| line.contains(name));
        line.unwrap_or_else(|| panic!("{list:?}")).to_owned()
    };
    assert!(line(&web).contains("2/2"), "{list:?}");
    assert!(line(&nowhere).contains("NoNodesSelected"), "{list:?}");
    let status = kubectl(&["status", "-o", "json"]).json();
    for node in &fleet.cluster.nodes {
        let nodes = status.as_array().expect("a list").iter();
        let view = nodes
            .clone()
            .find(|view| view["name"] == node.name.as_str());
        let view = view.unwrap_or_else(|| panic!("{status:#}"));
        assert_eq!(
            (&view["ready"], &view["agentAlive"]),
            (&json!(true), &json!(true))
        );
    }
    fleet.delete("xdppolicy", "web");
    fleet.delete("xdppolicy", "nowhere");
}

/// As if the CRD had no checks: its schema is taken away for a moment.
fn forced() {
    // A control plane of its own, for every cluster shares the definitions.
    let control_plane = Arc::new(ControlPlane::start());
    control_plane.install_crds();
    let fleet = Fleet::on(&control_plane, 1).start();
    fleet.apply(&fleet.drop_udp("web", 7001, &[]));
    fleet.wait_until(0, 7001, true);

    let kubectl = fleet.cluster.kubectl();
    let anything = json!([{
        "op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema",
        "value": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }]);
    let crd = "xdppolicies.headgate.dev";
    kubectl.run(&[
        "patch",
        "crd",
        crd,
        "--type=json",
        "-p",
        &anything.to_string(),
    ]);
    let mut bad = fleet.drop_udp("web", 7002, &[]);
    bad["spec"]["rules"][0]["action"] = json!("Explode");
    wait_for(SOON, "the definition refuses nothing any more", || {
        kubectl
            .said_of(&["apply", "-f", "-"], &bad.to_string())
            .code
            == 0
    });
    let status = fleet.wait_for_datapath(0, "lists the exception", |status| {
        status["exceptions"][0]["reason"] == "Invalid"
    });
    let exception = &status["exceptions"][0];
    assert_eq!(exception["name"], fleet.named("web").as_str());
    let message = exception["message"].as_str().unwrap_or_default();
    assert!(message.contains("spec.rules[0].action"), "{exception:#}");
    assert!(
        message.contains("generation 1 stays in effect"),
        "{exception:#}"
    );
    assert_eq!(status["conditions"][0]["status"], "False");
    assert_eq!(fleet.arrivals(0, 7001), 0, "the last good generation");
    assert_eq!(fleet.arrivals(0, 7002), 20);
    wait_for(SOON, "an Event on the policy", || {
        let name = format!("regarding.name={}", fleet.named("web"));
        let events = kubectl.said(&["get", "events.events.k8s.io", "--field-selector", &name]);
        events.output.contains("Invalid")
    });
    fleet.apply(&fleet.drop_udp("web", 7003, &[]));
    fleet.wait_until(0, 7003, true);
    fleet.wait_for_datapath(0, "is ready", is_ready);
}

fn at_rest() {
    let fleet = Fleet::started(1);
    fleet.apply(&fleet.drop_udp("web", 7001, &[]));
    fleet.wait_until(0, 7001, true);
    fleet.wait_for_datapath(0, "is ready", is_ready);
    let version = |what: &[&str]| {
        let arguments = [&["get"], what].concat();
        let object = fleet.cluster.kubectl().json(&arguments);
        object["metadata"]["resourceVersion"]
            .as_str()
            .expect("a version")
            .to_owned()
    };
    let name = fleet.cluster.nodes[0].name.as_str();
    let lease = ["lease", name, "-n", AGENT_NAMESPACE];
    let before = version(&["nodedatapath", name]);
    let seconds: u32 = if soak() { 600 } else { 120 };
    let mut renewals = BTreeSet::new();
    let used = fleet.nodes[0].cpu_time();
    for _ in 0..seconds {
        renewals.insert(version(&lease));
        std::thread::sleep(Duration::from_secs(1));
    }
    let used = (fleet.nodes[0].cpu_time() - used) / seconds;
    println!("the agent at rest uses {used:?} of a CPU each second");
    assert_eq!(version(&["nodedatapath", name]), before);
    // One per 10 s; asking takes some of each second.
    let expected = seconds as usize / 10;
    assert!(
        (expected..=expected * 5 / 3).contains(&renewals.len()),
        "{} Leases in {seconds} s",
        renewals.len()
    );
    fleet.delete("xdppolicy", "web");
}

/// Traffic to a port that is dropped and to one that is not.
struct Traffic {
    denied: Flow,
    allowed: Flow,
    receiver: Receiver,
}

const DENIED: u16 = 7001;
const ALLOWED: u16 = 7002;

impl Traffic {
    fn start(fleet: &Fleet) -> Self {
        let (node, client) = (&fleet.cluster.nodes[0].member, &fleet.cluster.client);
        let receiver = Receiver::open(&node.namespace, &[DENIED, ALLOWED]);
        let source: IpAddr = client.end.v4.into();
        let to = |port: u16| {
            let to = SocketAddr::new(node.end.v4.into(), port);
            Flow::start(&client.namespace, &[source], to, 1_000, u64::MAX)
        };
        Self {
            denied: to(DENIED),
            allowed: to(ALLOWED),
            receiver,
        }
    }

    /// Everything that was allowed must have arrived, and nothing that was not.
    fn finish(self) {
        let (denied, allowed) = (self.denied.id, self.allowed.id);
        let (denied_sent, sent) = (self.denied.stop(), self.allowed.stop());
        let what = format!("all {sent} allowed datagrams arrive");
        wait_for(SOON, &what, || self.receiver.received(allowed) == sent);
        assert_eq!(self.receiver.received(denied), 0, "of {denied_sent} denied");
        assert!(
            sent > 1_000 && denied_sent > 1_000,
            "{sent} and {denied_sent}"
        );
        println!("{sent} allowed datagrams arrived, {denied_sent} denied ones did not");
    }
}

fn kills_and_outage() {
    let outage = Duration::from_secs(if soak() { 3_600 } else { 300 });
    let mut fleet = Fleet::started(1);
    fleet.apply(&fleet.drop_udp("web", DENIED, &[]));
    fleet.wait_for_datapath(0, "shows the interface", |status| {
        status["interfaces"][0]["enforced"] == true
    });
    let traffic = Traffic::start(&fleet);
    for _ in 0..20 {
        fleet.nodes[0].kill();
        fleet.nodes[0].start();
    }
    fleet.cluster.unplug_api_server();
    std::thread::sleep(outage);
    fleet.nodes[0].kill();
    fleet.nodes[0].start_unsettled();
    fleet.cluster.plug_api_server();
    let renamed = fleet.drop_udp("again", DENIED, &[]);
    fleet.apply(&renamed);
    let what = "the agent follows the API again";
    wait_for(Duration::from_secs(60), what, || {
        let report = fleet.nodes[0].report();
        let mut policies = report["policies"].as_array().into_iter().flatten();
        policies.any(|policy| policy["name"] == renamed["metadata"]["name"])
    });
    traffic.finish();
    fleet.delete("xdppolicy", "web");
    fleet.delete("xdppolicy", "again");
}
