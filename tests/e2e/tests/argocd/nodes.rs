//! From a commit to the nodes.

use std::{
    thread,
    time::{Duration, Instant},
};

use headgate_e2e_tests::{argocd::SOON, fleet::Fleet, trials::on_argocd, wait::wait_for};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::Shared;

const NODES: usize = 3;
const FILE: &str = "policies/web.json";
const FIRST: u16 = 7001;
const SECOND: u16 = 7002;
/// The node whose agent is dead at the prune.
const DEAD: usize = NODES - 1;

pub(crate) fn trials() -> Vec<Trial> {
    vec![on_argocd(
        "a_commit_is_enforced_healed_and_pruned_on_every_node",
        commits,
    )]
}

fn commits() {
    let mut shared = Shared::lock();
    let control_plane = shared.control_plane();
    let argocd = shared.argocd();
    let mut fleet = Fleet::on(&control_plane, 3).start();
    for node in 0..NODES {
        assert_eq!(fleet.arrivals(node, FIRST), 20);
    }
    let repository = argocd.repository();
    // What is in Git when there is nothing, and after the prune.
    repository.write("policies/README.md", "Policies.\n");
    let empty = repository.commit("Nothing");
    let fields = json!({"syncPolicy": {
        "automated": {"prune": true, "selfHeal": true, "allowEmpty": true},
        "syncOptions": ["ServerSideApply=true"],
    }});
    argocd.apply("fleet", (&repository, "policies"), &json!({}), &fields);
    argocd.wait_for("fleet", "knows that there is nothing", |application| {
        application["status"]["sync"]["revision"] == empty.as_str()
    });

    let policy = fleet.drop_udp("web", FIRST, &[]);
    repository.write(FILE, &policy.to_string());
    let pushed = Instant::now();
    let commit = repository.commit("Drop");
    argocd.refresh("fleet");
    for node in 0..NODES {
        fleet.wait_until(node, FIRST, true);
        println!(
            "git push to enforced on {} nodes: {:?}",
            node + 1,
            pushed.elapsed()
        );
    }
    argocd.wait_until_synced("fleet", &commit);

    let mut policy = fleet.drop_udp("web", SECOND, &[]);
    repository.write(FILE, &policy.to_string());
    let pushed = Instant::now();
    let commit = repository.commit("Drop another");
    argocd.refresh("fleet");
    for node in 0..NODES {
        fleet.wait_until(node, SECOND, true);
        assert_eq!(fleet.arrivals(node, FIRST), 20);
    }
    println!(
        "an edit, from git push to enforced on {NODES} nodes: {:?}",
        pushed.elapsed()
    );
    argocd.wait_until_synced("fleet", &commit);

    // Annotations alone are no change of a datapath.
    let before = done(&fleet);
    policy["metadata"]["annotations"] = json!({"example.com/owner": "web team"});
    repository.write(FILE, &policy.to_string());
    let commit = repository.commit("Say who owns it");
    argocd.refresh("fleet");
    argocd.wait_until_synced("fleet", &commit);
    let name = fleet.named("web");
    let stored = argocd.kubectl().json(&["get", "xdppolicy", &name]);
    let annotations = &stored["metadata"]["annotations"];
    assert_eq!(annotations["example.com/owner"], "web team");
    thread::sleep(Duration::from_secs(2));
    assert_eq!(done(&fleet), before);

    // What somebody changed by hand is put right.
    let patch = json!([{"op": "replace", "path": "/spec/rules/0/protocols/0/udp/ports/0/port", "value": FIRST}]);
    let patch = patch.to_string();
    let generation = stored["metadata"]["generation"].as_i64();
    let started = Instant::now();
    argocd
        .kubectl()
        .run(&["patch", "xdppolicy", &name, "--type=json", "-p", &patch]);
    wait_for(SOON, "the edit is taken back", || {
        let stored = argocd.kubectl().json(&["get", "xdppolicy", &name]);
        let port = &stored["spec"]["rules"][0]["protocols"][0]["udp"]["ports"][0]["port"];
        *port == json!(SECOND) && stored["metadata"]["generation"].as_i64() > generation
    });
    println!(
        "an edit by hand is taken back after {:?}",
        started.elapsed()
    );
    for node in 0..NODES {
        fleet.wait_until(node, SECOND, true);
        fleet.wait_until(node, FIRST, false);
    }

    // A node that is dead holds nothing up.
    fleet.nodes[DEAD].kill();
    repository.remove(FILE);
    let commit = repository.commit("Drop nothing");
    let pushed = Instant::now();
    argocd.refresh("fleet");
    for node in 0..DEAD {
        wait_for(SOON, "the program is detached", || {
            !is_attached(&fleet, node)
        });
        assert_eq!(fleet.arrivals(node, SECOND), 20);
    }
    println!(
        "a prune, from the commit to detached: {:?}",
        pushed.elapsed()
    );
    argocd.wait_for("fleet", "is pruned", |application| {
        application["status"]["sync"]["revision"] == commit.as_str()
            && application["status"]["sync"]["status"] == "Synced"
    });
    let stored = argocd.kubectl().said(&["get", "xdppolicy", &name]);
    assert!(stored.errors.contains("NotFound"), "{stored:?}");
    assert!(is_attached(&fleet, DEAD), "nobody looked after it");
    assert_eq!(fleet.arrivals(DEAD, SECOND), 0);
    fleet.nodes[DEAD].start();
    let what = "the node that is back lets go";
    wait_for(SOON, what, || !is_attached(&fleet, DEAD));
    argocd.delete("fleet", true);
}

fn is_attached(fleet: &Fleet, node: usize) -> bool {
    let namespace = &fleet.cluster.nodes[node].member.namespace;
    namespace.ip("link show eth0").contains("xdp")
}

/// What agents did: the revision in the kernel, what the API was told, and all that they say of
/// their work.
fn done(fleet: &Fleet) -> Vec<(Value, Value, String)> {
    let of_node = |node: usize| {
        let report = fleet.nodes[node].report();
        let version = fleet.datapath(node)["metadata"]["resourceVersion"].clone();
        let log = fleet.nodes[node].log();
        (report["live_revision"].clone(), version, log)
    };
    (0..NODES).map(of_node).collect()
}
