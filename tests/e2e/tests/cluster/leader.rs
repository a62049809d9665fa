//! One replica of the operator writes: which, when the one that did is killed or cut off.

use std::{
    thread,
    time::{Duration, Instant},
};

use headgate_e2e_tests::{
    audit::Written,
    cluster::Member,
    fleet::{Fleet, SOON},
    trials::{on_cluster, soak},
    wait::wait_for,
};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::operator::{is, started, wait_for_status};

/// A Lease lasts for 15 s, and others look every 3 s; the rest is for a busy machine.
const TAKEN_OVER: Duration = Duration::from_secs(22);
/// Who cannot renew the Lease for 10 s ends; so before it can be another's.
const GIVEN_UP: Duration = Duration::from_secs(14);
/// Policies that it is to write about when it is cut off.
const MANY: usize = 40;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        on_cluster("another_replica_takes_over_and_says_the_same", killed),
        on_cluster("a_leader_that_is_cut_off_writes_no_more", cut_off),
    ]
}

/// Who holds the Lease.
fn holder(fleet: &Fleet) -> Value {
    let get = ["get", "lease", "headgate-operator", "-o", "json"];
    let get = [&get[..], &["-n", "headgate-system"]].concat();
    // Every moment of it would cost the machine a core.
    thread::sleep(Duration::from_millis(100));
    let said = fleet.cluster.kubectl().said(&get);
    let lease: Value = serde_json::from_str(&said.output).unwrap_or_default();
    lease["spec"]["holderIdentity"].clone()
}

fn killed() {
    let control_plane = started();
    let fleet = Fleet::on(&control_plane, 2).start();
    let first = control_plane.start_operator("first", &[]);
    wait_for(SOON, "the first leads", || holder(&fleet) == "first");
    let mut second = control_plane.start_operator("second", &[]);
    fleet.apply(&fleet.drop_udp("web", 7001, &[]));
    wait_for_status(&fleet, "web", "is Ready", |policy| is(policy, "Ready=True"));
    // Killed in the middle of a roll-up.
    fleet.apply(&fleet.drop_udp("web", 7002, &[]));
    drop(first);
    let since = Instant::now();
    wait_for(Duration::from_secs(40), "the second leads", || {
        holder(&fleet) == "second"
    });
    println!(
        "another replica leads {:?} after the leader was killed",
        since.elapsed()
    );
    wait_for_status(&fleet, "web", "is Ready", |policy| is(policy, "Ready=True"));
    assert_eq!(fleet.arrivals(0, 7002), 0);
    second.assert_runs();
}

/// The leader runs on, without the API; what others see of it is the audit log of the API server,
/// where each replica has an address of its own.
fn cut_off() {
    let control_plane = started();
    let fleet = Fleet::on(&control_plane, 1).start();
    let [one, other] =
        [("one", 3), ("other", 4)].map(|(port, host)| fleet.cluster.neighbour(port, host));
    let start = |member: &Member, identity: &str| {
        control_plane.start_operator_in(&member.namespace, identity, &[])
    };
    let mut first = start(&one, "first");
    wait_for(SOON, "the first leads", || holder(&fleet) == "first");
    let mut second = start(&other, "second");
    fleet.apply(&fleet.drop_udp("web", 7001, &[]));
    wait_for_status(&fleet, "web", "is Ready", |policy| is(policy, "Ready=True"));

    // In the middle of its writing.
    thread::scope(|scope| {
        let (kubectl, many) = (fleet.cluster.kubectl(), many(&fleet).to_string());
        scope.spawn(move || kubectl.apply(&many));
        wait_for(SOON, "it writes", || {
            let written = control_plane.written_by_operators();
            let of_many = |written: &&Written| written.what.contains("-many");
            written.iter().filter(of_many).count() > 5
        });
        fleet.cluster.unplug("one");
    });
    let cut = Instant::now();
    fleet.apply(&fleet.drop_udp("web", 7002, &[]));
    wait_for(GIVEN_UP, "the first ends by itself", || first.has_ended());
    println!(
        "the first has ended {:?} after it was cut off",
        cut.elapsed()
    );
    assert_eq!(holder(&fleet), "first", "it has ended before another leads");
    // As a kubelet starts it again.
    first = start(&one, "first");
    let left = TAKEN_OVER.saturating_sub(cut.elapsed());
    wait_for(left, "the second leads", || holder(&fleet) == "second");
    println!("the second leads {:?} after that", cut.elapsed());
    wait_for_status(&fleet, "web", "is Ready", |policy| is(policy, "Ready=True"));
    assert_eq!(fleet.arrivals(0, 7002), 0);
    let policies = fleet.cluster.kubectl().json(&["get", "xdppolicies"]);
    let policies = policies["items"].as_array().expect("a list");
    let ready = policies.iter().filter(|policy| is(policy, "Ready=True"));
    assert_eq!(
        ready.count(),
        MANY + 1,
        "the second says what the first did not"
    );

    fleet.cluster.plug("one");
    fleet.apply(&fleet.drop_udp("web", 7003, &[]));
    wait_for_status(&fleet, "web", "is Ready", |policy| is(policy, "Ready=True"));
    if soak() {
        // What it had under way when it was cut off would be sent again until now.
        thread::sleep(Duration::from_secs(60));
    }
    first.assert_runs();
    second.terminate();
    wait_for(SOON, "the first leads again", || holder(&fleet) == "first");
    fleet.apply(&fleet.drop_udp("web", 7004, &[]));
    wait_for_status(&fleet, "web", "is Ready", |policy| is(policy, "Ready=True"));
    let addresses = [&one, &other, &one].map(|member| member.end.v4.to_string());
    assert_one_after_the_other(&control_plane.written_by_operators(), &addresses);
}

/// Policies that are Ready at once: they select nothing.
fn many(fleet: &Fleet) -> Value {
    let none = [("role", "none")];
    let policies = (0..MANY).map(|number| fleet.drop_udp(&format!("many{number}"), 7100, &none));
    json!({"apiVersion": "v1", "kind": "List", "items": policies.collect::<Vec<_>>()})
}

fn assert_one_after_the_other(written: &[Written], addresses: &[String]) {
    let mut writers: Vec<&Written> = written.iter().collect();
    writers.dedup_by_key(|written| &written.from);
    let from: Vec<&String> = writers.iter().map(|written| &written.from).collect();
    let expected: Vec<&String> = addresses.iter().collect();
    println!("{} writes, by {from:?} in turn", written.len());
    assert_eq!(from, expected, "{writers:#?}");
}
