//! The operator: what it says of resources, and that it can be gone.

use std::{
    net::UdpSocket,
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use headgate_e2e_tests::{
    cluster::LABEL,
    control_plane::ControlPlane,
    fleet::{Fleet, SOON},
    trials::on_cluster,
    wait::{wait_for, wait_for_some},
};
use libtest_mimic::Trial;
use serde_json::{Value, json};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        on_cluster("a_new_resource_is_not_taken_for_healthy", never_observed),
        on_cluster("ready_is_said_when_every_kernel_has_shown_it", ready),
        on_cluster("what_fails_on_a_node_is_named_with_its_reason", failing),
        on_cluster("the_cluster_itself_is_kept_in_reserved_groups", reserved),
        on_cluster("a_deletion_needs_no_operator", deletion),
        on_cluster("a_service_is_ready_where_it_is_served", served),
        on_cluster("a_peer_is_ready_where_packets_go_to_it", tunnelled),
        on_cluster("etcd_and_definitions_may_come_again", storage_faults),
        on_cluster("the_commit_that_a_generation_came_from_is_told", provenance),
    ]
}

/// The conditions of an object by type: status and reason.
fn conditions(object: &Value) -> Vec<String> {
    let said = |condition: &Value| {
        let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
        format!("{}={}/{}", text("type"), text("status"), text("reason"))
    };
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().map(said).collect()
}

fn get(fleet: &Fleet, kind: &str, name: &str) -> Value {
    let said = fleet
        .cluster
        .kubectl()
        .said(&["get", kind, name, "-o", "json"]);
    serde_json::from_str(&said.output).unwrap_or(Value::Null)
}

/// Waits until the policy's status, of its present generation, is as `is_so` wants it.
pub(crate) fn wait_for_status(
    fleet: &Fleet,
    name: &str,
    what: &str,
    is_so: impl Fn(&Value) -> bool,
) -> Value {
    let name = fleet.named(name);
    let mut last = Value::Null;
    let what = format!("the policy {name} {what}");
    let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_for_some(SOON, &what, || {
            last = get(fleet, "xdppolicy", &name);
            let observed = &last["status"]["observedGeneration"];
            (*observed == last["metadata"]["generation"] && is_so(&last)).then(|| last.clone())
        })
    }));
    match waited {
        Ok((found, _)) => found,
        Err(_) => panic!("{what}: it is {:#}", last["status"]),
    }
}

pub(crate) fn is(object: &Value, condition: &str) -> bool {
    conditions(object)
        .iter()
        .any(|said| said.starts_with(condition))
}

fn never_observed() {
    let fleet = Fleet::on(&started(), 1);
    fleet.apply(&fleet.drop_udp("web", 7001, &[]));
    let name = fleet.named("web");
    let policy = get(&fleet, "xdppolicy", &name);
    assert_eq!(policy["status"], json!({"observedGeneration": -1}));
    let now = [
        "wait",
        "--for=condition=Ready",
        "--timeout=1s",
        "xdppolicy",
        &name,
    ];
    assert_ne!(fleet.cluster.kubectl().said(&now).code, 0);
}

/// A control plane of this test's own, with the CRDs in it.
pub(crate) fn started() -> Arc<ControlPlane> {
    let control_plane = ControlPlane::start();
    control_plane.install_crds();
    Arc::new(control_plane)
}

fn ready() {
    let control_plane = started();
    let fleet = Fleet::on(&control_plane, 3);
    let _operator = control_plane.start_operator("first", &[]);
    fleet.apply(&fleet.drop_udp("web", 7001, &[]));
    let waiting = wait_for_status(&fleet, "web", "waits for agents", |policy| {
        is(policy, "Ready=False/NoAgents") && policy["status"]["nodes"]["selected"] == 3
    });
    assert!(is(&waiting, "Reconciling=True"), "{waiting:#}");

    let fleet = fleet.start();
    let first = wait_for_status(&fleet, "web", "is Ready", |policy| {
        is(policy, "Ready=True/Live")
    });
    // An agent that is not there yet holds nothing up; one that is must have shown it.
    let counts = &first["status"]["nodes"];
    assert_eq!([&counts["pending"], &counts["failing"]], [0, 0], "{counts}");
    let ready = wait_for_status(&fleet, "web", "is Ready on all nodes", |policy| {
        is(policy, "Ready=True/Live") && policy["status"]["nodes"]["live"] == 3
    });
    let status = &ready["status"];
    assert_eq!(status["liveGeneration"], 1);
    for condition in status["conditions"].as_array().expect("conditions") {
        assert_eq!(condition["observedGeneration"], 1);
    }
    assert!(is(&ready, "Stalled=False") && is(&ready, "Reconciling=False"));
    // It was so when it was said.
    for node in 0..3 {
        assert_eq!(fleet.arrivals(node, 7001), 0);
    }

    let mut took = Vec::new();
    for port in 7002..7012 {
        fleet.apply(&fleet.drop_udp("web", port, &[]));
        let applied = Instant::now();
        let name = fleet.named("web");
        let wait = [
            "wait",
            "--for=condition=Ready",
            "--timeout=20s",
            "xdppolicy",
            &name,
        ];
        fleet.cluster.kubectl().run(&wait);
        took.push(applied.elapsed());
        for node in 0..3 {
            assert_eq!(fleet.arrivals(node, port), 0, "Ready was said too early");
        }
    }
    took.sort();
    println!(
        "from `kubectl apply` to `kubectl wait` for Ready on three nodes: p50 {:?}, most {:?}",
        took[took.len() / 2],
        took[took.len() - 1]
    );

    // Another policy, and what it does, takes nothing back.
    let since = get(&fleet, "xdppolicy", &fleet.named("web"))["status"]["conditions"].clone();
    fleet.apply(&fleet.drop_udp("other", 7050, &[]));
    wait_for_status(&fleet, "other", "is Ready", |policy| {
        is(policy, "Ready=True")
    });
    let now = get(&fleet, "xdppolicy", &fleet.named("web"))["status"]["conditions"].clone();
    assert_eq!(since, now);

    // Nothing selected is well.
    fleet.apply(&fleet.drop_udp("nowhere", 7051, &[("role", "none")]));
    wait_for_status(&fleet, "nowhere", "selects nothing", |policy| {
        is(policy, "Ready=True/NoNodesSelected")
    });

    // Nothing is written while nothing changes.
    let version = || {
        let policy = get(&fleet, "xdppolicy", &fleet.named("web"));
        policy["metadata"]["resourceVersion"].clone()
    };
    let before = version();
    sleep(Duration::from_secs(12));
    assert_eq!(version(), before);
}

fn failing() {
    let control_plane = started();
    let fleet = Fleet::on(&control_plane, 2).start();
    let _operator = control_plane.start_operator("first", &[]);
    let mut policy = fleet.drop_udp("web", 7001, &[]);
    policy["spec"]["rules"][0]["from"] = json!({"cidrGroups": {"names": ["missing"]}});
    fleet.apply(&policy);
    let stalled = wait_for_status(&fleet, "web", "is not in effect", |policy| {
        is(policy, "Ready=False")
            && policy["status"]["nodes"]["live"] == 0
            && policy["status"]["nodes"]["selected"] == 2
            && !is(policy, "Ready=False/NoAgents")
            && !is(policy, "Ready=False/Pending")
    });
    let failing = &stalled["status"]["failing"];
    assert_eq!(failing[0]["reason"], "UnresolvedReferences", "{stalled:#}");
    let message = failing[0]["message"].as_str().unwrap_or_default();
    assert!(message.contains("missing"), "{message}");
    assert!(is(&stalled, "Stalled=True"), "{stalled:#}");
    let name = fleet.named("web");
    let events = wait_for_some(SOON, "an Event tells it", || {
        let field = format!("involvedObject.name={name}");
        let arguments = [
            "get",
            "events",
            "-A",
            "-o",
            "json",
            "--field-selector",
            &field,
        ];
        let said = fleet.cluster.kubectl().said(&arguments);
        said.output
            .contains("headgate-operator")
            .then_some(said.output)
    });
    assert!(events.0.contains("not in effect on"), "{}", events.0);

    // The group comes: all is well, and the group has a Ready of its own.
    fleet.apply(&json!({
        "apiVersion": "headgate.dev/v1alpha1", "kind": "CidrGroup",
        "metadata": {"name": "missing"}, "spec": {"cidrs": ["10.0.0.0/8"]},
    }));
    wait_for_status(&fleet, "web", "is Ready", |policy| {
        is(policy, "Ready=True/Live")
    });
    let (group, _) = wait_for_some(SOON, "the group is Ready", || {
        let group = get(&fleet, "cidrgroup", "missing");
        is(&group, "Ready=True/Live").then_some(group)
    });
    assert_eq!(group["status"]["nodes"]["live"], 2);

    // A node that the cluster holds for dead holds nothing.
    let node = fleet.cluster.nodes[1].name.clone();
    let dead = json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}});
    let dead = dead.to_string();
    let patch = [
        "patch",
        "node",
        &node,
        "--subresource=status",
        "--type=merge",
        "-p",
        &dead,
    ];
    fleet.cluster.kubectl().run(&patch);
    let mut fleet = fleet;
    fleet.nodes[1].kill();
    let lease = ["delete", "lease", "-n", "headgate-system", &node];
    fleet.cluster.kubectl().run(&lease);
    fleet.apply(&fleet.drop_udp("web", 7003, &[]));
    let ready = wait_for_status(&fleet, "web", "is Ready", |policy| is(policy, "Ready=True"));
    assert_eq!(ready["status"]["unreachable"], json!([node]));
}

fn reserved() {
    let control_plane = started();
    let fleet = Fleet::without_rights(&control_plane, 1);
    let kubectl = fleet.cluster.kubectl();
    // Somebody has taken one of the names before they were reserved.
    fleet.apply(&json!({
        "apiVersion": "headgate.dev/v1alpha1", "kind": "CidrGroup",
        "metadata": {"name": "pod-cidrs"}, "spec": {"cidrs": ["192.0.2.0/24"]},
    }));
    fleet.grant();
    let mut operator = control_plane.start_operator("first", &[]);
    let cidrs = |name: &str| get(&fleet, "cidrgroup", name)["spec"]["cidrs"].clone();
    wait_for(SOON, "the API servers are there", || {
        cidrs("api-servers") == json!(["10.99.0.1/32"])
    });
    assert_eq!(cidrs("nodes"), Value::Null);
    let address = |address: &str| {
        let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": address}]}});
        let status = status.to_string();
        let node = &fleet.cluster.nodes[0].name;
        let patch = [
            "patch",
            "node",
            node,
            "--subresource=status",
            "--type=merge",
            "-p",
            &status,
        ];
        kubectl.run(&patch);
    };
    address("10.1.2.3");
    wait_for(SOON, "the node is there", || {
        cidrs("nodes") == json!(["10.1.2.3/32"])
    });
    address("2001:db8::7");
    wait_for(SOON, "its new address is there", || {
        cidrs("nodes") == json!(["2001:db8::7/128"])
    });
    kubectl.run(&["delete", "cidrgroup", "nodes"]);
    wait_for(SOON, "it is made again", || cidrs("nodes") != Value::Null);
    assert_eq!(
        cidrs("pod-cidrs"),
        json!(["192.0.2.0/24"]),
        "another's is left alone"
    );
    operator.assert_runs();
}

fn deletion() {
    let control_plane = started();
    let fleet = Fleet::on(&control_plane, 1).start();
    let operator = control_plane.start_operator("first", &[]);
    fleet.apply(&fleet.drop_udp("web", 7001, &[]));
    wait_for_status(&fleet, "web", "is Ready", |policy| is(policy, "Ready=True"));
    drop(operator);
    let name = fleet.named("web");
    let delete = ["delete", "xdppolicy", &name, "--timeout=5s"];
    fleet.cluster.kubectl().run(&delete);
    fleet.wait_until(0, 7001, false);
    // What an agent said of a node that is no more goes with the node, whoever collects it.
    let node = fleet.cluster.nodes[0].name.clone();
    let _operator = control_plane.start_operator("second", &[]);
    fleet.cluster.kubectl().run(&["delete", "node", &node]);
    wait_for(Duration::from_secs(60), "its NodeDatapath is gone", || {
        get(&fleet, "nodedatapath", &node) == Value::Null
    });
}

fn provenance() {
    let control_plane = started();
    let fleet = Fleet::on(&control_plane, 1).start();
    let _operator = control_plane.start_operator("first", &[]);
    let mut policy = fleet.drop_udp("web", 7001, &[]);
    policy["metadata"]["annotations"] = json!({"headgate.dev/source-revision": "4f1c2d3"});
    fleet.apply(&policy);
    let told = wait_for_status(&fleet, "web", "tells its commit", |policy| {
        policy["status"]["source"]["revision"] == "4f1c2d3"
    });
    assert_eq!(told["status"]["source"]["generation"], 1);
    // A new generation without a commit has none.
    let mut policy = fleet.drop_udp("web", 7002, &[]);
    policy["metadata"]["annotations"] = json!({});
    fleet.apply(&policy);
    wait_for_status(&fleet, "web", "tells none", |policy| {
        policy["status"]["source"] == Value::Null && is(policy, "Ready=True")
    });
}

/// A peer at the client of the cluster.
fn tunnelled() {
    let control_plane = started();
    let fleet = Fleet::on(&control_plane, 2);
    let _operator = control_plane.start_operator("first", &[]);
    let fleet = fleet.start();
    let name = fleet.named("peer");
    let peer = |port: u16| {
        json!({
            "apiVersion": "headgate.dev/v1alpha1", "kind": "TunnelPeer",
            "metadata": {"name": name},
            "spec": {
                "nodeSelector": {"matchLabels": {LABEL: fleet.cluster.name}},
                "podCIDRs": ["10.244.77.0/24"],
                "endpoint": fleet.cluster.client.end.v4,
                "vni": 7,
                "port": port,
            },
        })
    };
    let status_of = |what: &str, wanted: &str| {
        wait_for(SOON, what, || is(&get(&fleet, "tp", &name), wanted));
    };
    fleet.apply(&peer(8472));
    status_of("every node sends to it", "Ready=True/Live");
    for node in &fleet.nodes {
        let routes = node.namespace.ip("route show dev headgate_vxlan");
        assert!(routes.contains("10.244.77.0/24"), "{routes}");
    }
    // On one node somebody else has the port that it is to have now.
    let taken = &fleet.nodes[0].namespace;
    taken.ip("link add theirs type vxlan id 1 dstport 4789 local 127.0.0.1");
    taken.ip("link set theirs up");
    fleet.apply(&peer(4789));
    status_of("one node cannot", "Ready=False");
    let told = get(&fleet, "tp", &name)["status"]["failing"][0].clone();
    assert_eq!(told["reason"], "PortTaken", "{told:#}");
    taken.ip("link del theirs");
    status_of("it can again", "Ready=True/Live");
    // There a program listens at the next port: the kernel refuses the device.
    let program = taken.enter(|| UdpSocket::bind("0.0.0.0:5000"));
    fleet.apply(&peer(5000));
    status_of("one node has no tunnel", "Ready=False");
    wait_for(SOON, "the node says why", || {
        let status = get(&fleet, "tp", &name)["status"].to_string();
        status.contains("UDP port 5000 is taken")
    });
    drop(program);
    status_of("it has one", "Ready=True/Live");
    fleet.delete("tp", "peer");
    for node in &fleet.nodes {
        let is_gone = || !node.namespace.ip("link show").contains("headgate_vxlan");
        wait_for(SOON, "nothing is left of it", is_gone);
    }
}

/// A service and the pool of its address; the backend is the client of the cluster.
fn served() {
    let control_plane = started();
    let fleet = Fleet::on(&control_plane, 2);
    let _operator = control_plane.start_operator("first", &[]);
    let fleet = fleet.start();
    let (pool, name) = (fleet.named("pool"), fleet.named("web"));
    let service = json!({
        "apiVersion": "headgate.dev/v1alpha1", "kind": "LoadBalancerService",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "nodeSelector": {"matchLabels": {LABEL: fleet.cluster.name}},
            "interfaces": ["eth0"],
            "addresses": ["203.0.113.10"],
            "ports": [{"name": "http", "port": 80}],
            "backends": {"static": [{"address": fleet.cluster.client.end.v4}]},
            "forwarding": "DirectReturn",
        },
    });
    fleet.apply(&service);
    let status_of = |kind: &str, name: &str, what: &str, wanted: &str| {
        wait_for(SOON, what, || is(&get(&fleet, kind, name), wanted));
    };
    let stalled = "without a pool it is refused on the nodes";
    status_of("lbs", &name, stalled, "Ready=False");
    let told = get(&fleet, "lbs", &name)["status"]["failing"][0].clone();
    assert_eq!(told["reason"], "NotAdmitted", "{told:#}");

    let mut admitting = json!({
        "apiVersion": "headgate.dev/v1alpha1", "kind": "AddressPool",
        "metadata": {"name": pool},
        "spec": {"cidrs": ["203.0.113.0/24"], "namespaces": ["default"]},
    });
    fleet.apply(&admitting);
    status_of("lbs", &name, "with a pool it is served", "Ready=True/Live");
    status_of("ap", &pool, "the pool is in use", "Ready=True/Live");
    for node in &fleet.nodes {
        let listed = node.headgate(&["lb", "list", "-o", "json"]).json();
        assert_eq!(listed[0]["state"], "Enforced", "{listed:#}");
    }

    admitting["spec"]["namespaces"] = json!(["other"]);
    fleet.apply(&admitting);
    let kept = "what is served stays, and is said to be no longer admitted";
    status_of("lbs", &name, kept, "Ready=False");
    fleet.delete("lbs", "web");
    fleet.delete("ap", "pool");
    for node in 0..2 {
        fleet.wait_for_datapath(node, "serves nothing", |status| {
            status["interfaces"] == Value::Null
        });
    }
}

/// Enforcement goes on, and what is said recovers.
fn storage_faults() {
    let control_plane = started();
    let fleet = Fleet::on(&control_plane, 1).start();
    let _operator = control_plane.start_operator("first", &[]);
    fleet.apply(&fleet.drop_udp("web", 7001, &[]));
    wait_for_status(&fleet, "web", "is Ready", |policy| is(policy, "Ready=True"));
    control_plane.restart_etcd(Duration::from_secs(5));
    assert_eq!(fleet.arrivals(0, 7001), 0, "after a restart of etcd");
    fleet.apply(&fleet.drop_udp("web", 7002, &[]));
    // The first ends where it cannot renew its Lease in time, and a Deployment starts another.
    let _another = control_plane.start_operator("another", &[]);
    let since = Instant::now();
    wait_for(Duration::from_secs(60), "the policy is Ready again", || {
        get(&fleet, "xdppolicy", &fleet.named("web"))["status"]["liveGeneration"] == 2
    });
    println!(
        "after a restart of etcd, Ready was said {:?} after a change",
        since.elapsed()
    );
    assert_eq!(fleet.arrivals(0, 7002), 0);

    let said = get(&fleet, "xdppolicy", &fleet.named("web"))["status"].clone();
    control_plane.install_crds();
    fleet.apply(&fleet.drop_udp("other", 7003, &[]));
    wait_for_status(&fleet, "other", "is Ready", |policy| {
        is(policy, "Ready=True")
    });
    assert_eq!(
        get(&fleet, "xdppolicy", &fleet.named("web"))["status"],
        said
    );
    assert_eq!(
        fleet.arrivals(0, 7002),
        0,
        "after the definitions were applied again"
    );
}
