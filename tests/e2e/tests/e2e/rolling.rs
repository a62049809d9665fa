//! Connections held while every backend is replaced.

use std::{collections::BTreeSet, net::TcpStream, process::Command, time::Instant};

use headgate_e2e_tests::{
    namespace::run,
    node::SOON,
    services::{ServiceLab, ask},
    trials::{on_node_with, soak},
    wait::wait_for,
};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::clients::{ports, serving};

pub(crate) fn trials() -> Vec<Trial> {
    let needs: &[&str] = &["ethtool", "prlimit"];
    vec![
        on_node_with("nat_connections_outlive_all_backends_places", needs, || {
            replaced("Nat");
        }),
        on_node_with(
            "direct_return_connections_stay_until_their_backend_goes",
            needs,
            || replaced("DirectReturn"),
        ),
    ]
}

/// Backends that are replaced, by as many others.
const REPLACED: usize = 3;

fn replaced(forwarding: &str) {
    let connections = allowed(if soak() { 10_000 } else { 1_000 });
    let lab = serving(forwarding, ports(forwarding), 2 * REPLACED as u8);
    let mut backends: Vec<(usize, u16)> = (0..REPLACED).map(|number| (number, 1)).collect();
    change(&lab, forwarding, &backends);
    let began = Instant::now();
    let mut held: Vec<Held> = (0..connections).map(|n| Held::open(&lab, n % 2)).collect();
    assert_eq!(numbers(&held), BTreeSet::from([0, 1, 2]));
    for old in 0..REPLACED {
        let new = old + REPLACED;
        backends.push((new, 1));
        change(&lab, forwarding, &backends);
        all_go_on(&mut held);
        backends[0].1 = 0;
        change(&lab, forwarding, &backends);
        all_go_on(&mut held);
        let newcomers: Vec<Held> = (0..60).map(|n| Held::open(&lab, n % 2)).collect();
        let numbers = numbers(&newcomers);
        assert!(numbers.contains(&(new as u8)), "{numbers:?}");
        assert!(!numbers.contains(&(old as u8)), "{numbers:?}");
        if forwarding != "Nat" {
            // Its connections are through, and others have begun.
            held.retain(|held| usize::from(held.number) != old);
            held.extend((held.len()..connections).map(|n| Held::open(&lab, n % 2)));
        }
        backends.remove(0);
        change(&lab, forwarding, &backends);
        all_go_on(&mut held);
    }
    println!(
        "{connections} connections by {forwarding} over {} changes: {:?}",
        REPLACED * 3,
        began.elapsed()
    );
}

/// A connection, and the number of its backend.
struct Held {
    stream: TcpStream,
    number: u8,
}

impl Held {
    fn open(lab: &ServiceLab, family: usize) -> Self {
        let mut stream = lab.connect(family).expect("a backend answers");
        let number = ask(&mut stream).expect("an answer");
        Self { stream, number }
    }
}

fn numbers(held: &[Held]) -> BTreeSet<u8> {
    held.iter().map(|held| held.number).collect()
}

/// Every connection sends a byte and gets its backend's answer.
fn all_go_on(held: &mut [Held]) {
    for Held { stream, number } in held {
        assert_eq!(ask(stream).expect("the connection goes on"), *number);
    }
}

/// Gives the service these backends, by number, and waits until the node has them.
fn change(lab: &ServiceLab, forwarding: &str, backends: &[(usize, u16)]) {
    let wanted: BTreeSet<String> = backends
        .iter()
        .filter(|(_, weight)| *weight > 0)
        .flat_map(|(number, _)| {
            let end = &lab.backends[*number].end;
            [end.v4.to_string(), end.v6.to_string()]
        })
        .collect();
    let shown = || lab.node.headgate(&["lb", "get", "shop/web", "-o", "json"]);
    let before = shown().json()["generation"].clone();
    let service = lab.service_by(forwarding, ports(forwarding), backends);
    lab.node.write("web.yaml", &service);
    wait_for(SOON, "the backends are in force", || {
        let service = shown().json();
        let is_new = service["generation"] != before
            && service["effectiveGeneration"] == service["generation"];
        is_new && service["state"] == "Enforced" && in_ring(&service) == wanted
    });
}

/// Addresses of backends that get new flows.
fn in_ring(service: &Value) -> BTreeSet<String> {
    let frontends = service["frontends"].as_array().into_iter().flatten();
    let backends = frontends.flat_map(|f| f["backends"].as_array().into_iter().flatten());
    let addresses = backends
        .filter(|backend| backend["weight"] != 0)
        .filter_map(|backend| backend["address"].as_str());
    addresses.map(str::to_owned).collect()
}

/// So many connections, or as many as the limit of open files allows, both ends of each being this process's.
fn allowed(wanted: usize) -> usize {
    /// What else the tests have open.
    const OTHERS: usize = 1_500;
    let process = std::process::id().to_string();
    let limits = ["--nofile", "--raw", "--noheadings", "--output", "HARD"];
    let output = run(Command::new("prlimit")
        .args(["--pid", &process])
        .args(limits));
    let most = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let limit = format!("--nofile={most}:");
    run(Command::new("prlimit").args(["--pid", &process, &limit]));
    // Else there is no limit.
    let most: usize = most.parse().unwrap_or(usize::MAX);
    wanted.min((most - OTHERS) / 2)
}
