//! Connections and datagrams through Nat.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use headgate_e2e_tests::{
    node::SOON,
    paths::example,
    services::{NAT_EXAMPLE, PORT, ServiceLab, TARGET_PORT, VIRTUAL, ask},
    trials::on_node_with,
    wait::wait_for,
};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::balancing::enforced;

pub(crate) fn trials() -> Vec<Trial> {
    let on_lab = |name, test| on_node_with(name, &["ethtool"], test);
    vec![
        on_lab("nat_list_shows_who_is_connected_to_whom", connections),
        on_lab("tenants_have_addresses_of_their_own", tenants),
        on_lab("a_container_of_the_node_is_a_backend", container),
        on_lab("datagrams_are_answered_through_nat", datagrams),
        on_lab("nat_connections_outlive_agents_and_changes", held),
    ]
}

fn listed(lab: &ServiceLab, filters: &[&str]) -> Vec<Value> {
    let command = [&["nat", "list", "-o", "json"], filters].concat();
    let flows = lab.node.headgate(&command).json();
    flows.as_array().expect("a list").clone()
}

fn connections() {
    let lab = enforced(NAT_EXAMPLE);
    let mut held = BTreeMap::new();
    for family in [0, 1].into_iter().cycle().take(60) {
        let mut stream = lab.connect(family).expect("a backend answers");
        let number = ask(&mut stream).expect("an answer");
        let client = stream.local_addr().expect("an address");
        held.insert(client, (family, number, stream));
    }
    let numbers: BTreeSet<u8> = held.values().map(|(_, number, _)| *number).collect();
    assert_eq!(numbers.len(), 3, "{numbers:?}");
    let flows = listed(&lab, &[]);
    assert_eq!(flows.len(), 60);
    for flow in &flows {
        let end = |name: &str| -> SocketAddr {
            let text = flow[name].as_str().expect("an address");
            text.parse().expect("an address")
        };
        let (family, number, _) = &held[&end("client")];
        let backend = &lab.backends[usize::from(*number)].end;
        let addresses: [IpAddr; 2] = [backend.v4.into(), backend.v6.into()];
        let locals: [IpAddr; 2] = [lab.balancer.v4.into(), lab.balancer.v6.into()];
        assert_eq!(
            end("backend"),
            SocketAddr::new(addresses[*family], TARGET_PORT)
        );
        assert_eq!(end("service"), SocketAddr::new(VIRTUAL[*family], PORT));
        assert_eq!(end("local").ip(), locals[*family]);
        assert_eq!(flow["state"], "Established");
    }
    let backend = lab.backends[0].end.v4.to_string();
    let of_one = held
        .values()
        .filter(|(family, number, _)| (*family, *number) == (0, 0));
    assert_eq!(listed(&lab, &["--backend", &backend]).len(), of_one.count());
}

fn tenants() {
    let mut lab = ServiceLab::new(3);
    lab.node
        .write("tenants.yaml", &example("services/two-tenants.yaml"));
    lab.node.start();
    let state = |name: &str| lab.node.headgate(&["lb", "get", name, "-o", "json"]).json();
    wait_for(SOON, "both are served", || {
        let both = ["shop/web", "bank/ledger"];
        both.iter().all(|name| state(name)["state"] == "Enforced")
    });
    let ledger = IpAddr::from([203, 0, 113, 20]);
    let client = &lab.client;
    client.ip(&format!("route add {ledger} via {}", lab.balancer.v4));
    let answering = |address: IpAddr| {
        let streams = (0..20).map(|_| lab.connect_to(address).expect("a backend answers"));
        let numbers = streams.map(|mut stream| ask(&mut stream).expect("an answer"));
        numbers.collect::<BTreeSet<u8>>()
    };
    assert_eq!(answering(VIRTUAL[0]), BTreeSet::from([0, 1]));
    assert_eq!(answering(VIRTUAL[1]), BTreeSet::from([0]));
    assert_eq!(answering(ledger), BTreeSet::from([2]));
    // A neighbour outside of the ledger's ranges, which shop does not have.
    client.ip("address add 192.168.77.99/24 dev eth0");
    let from = Ipv4Addr::new(192, 168, 77, 99);
    client.ip(&format!(
        "route replace {ledger} via {} src {from}",
        lab.balancer.v4
    ));
    assert!(lab.connect_to(ledger).is_err());
    // The other's address is not to be had, by whatever name.
    let thief = example("services/two-tenants.yaml")
        .split("\n---\n")
        .nth(3)
        .expect("the ledger")
        .replace("203.0.113.20", "203.0.113.10")
        .replace("name: ledger", "name: a-thief");
    lab.node.write("thief.yaml", &thief);
    wait_for(SOON, "the thief is refused", || {
        let said = lab.node.headgate(&["lb", "get", "bank/a-thief"]);
        let why = "lies in no AddressPool that admits the namespace bank";
        said.output.contains(why)
    });
    assert_eq!(answering(VIRTUAL[0]), BTreeSet::from([0, 1]));
}

fn container() {
    let mut lab = ServiceLab::new(1);
    lab.add_container();
    let pool = example("services/nat.yaml");
    let (pool, _) = pool.split_once("\n---\n").expect("two documents");
    lab.node.write("pool.yaml", pool);
    lab.node
        .write("web.yaml", &lab.nat_service(&[(0, 1), (1, 1)]));
    lab.node.start();
    let state = || {
        let service = lab.node.headgate(&["lb", "get", "shop/web", "-o", "json"]);
        service.json()["state"].clone()
    };
    wait_for(SOON, "the service is enforced", || state() == "Enforced");
    let mut held = Vec::new();
    for family in [0, 1] {
        let streams = (0..20).map(|_| lab.connect(family).expect("a backend answers"));
        let mut streams: Vec<_> = streams.collect();
        let numbers = streams.iter_mut().map(|s| ask(s).expect("an answer"));
        assert_eq!(numbers.collect::<BTreeSet<u8>>(), BTreeSet::from([0, 1]));
        let datagrams = (0..20).map(|_| lab.ask_by_udp(family).expect("an answer"));
        assert_eq!(datagrams.collect::<BTreeSet<u8>>(), BTreeSet::from([0, 1]));
        held.extend(streams);
    }
    // It sees who asks.
    let flows = listed(&lab, &["--backend", &lab.backends[1].end.v4.to_string()]);
    assert!(flows.iter().all(|flow| flow["local"] == flow["client"]));
    assert!(!flows.is_empty());
    lab.backends[1].namespace.ip("link del eth0");
    wait_for(SOON, "a bridge without ports leads nowhere", || {
        state() == "Pending"
    });
}

fn datagrams() {
    let lab = enforced(NAT_EXAMPLE);
    let answers = (0..40).map(|flow| lab.ask_by_udp(flow % 2).expect("a backend answers"));
    let numbers: BTreeSet<u8> = answers.collect();
    assert_eq!(numbers.len(), 3, "{numbers:?}");
}

fn held() {
    let mut lab = enforced(NAT_EXAMPLE);
    let mut held: Vec<_> = (0..20)
        .map(|flow| lab.connect(flow % 2).expect("a backend answers"))
        .collect();
    let before: Vec<_> = held
        .iter_mut()
        .map(|stream| ask(stream).expect("an answer"))
        .collect();
    assert!(before.contains(&2), "{before:?}");
    let mut ask_all = || {
        let answers = held.iter_mut().map(|s| ask(s).expect("an answer"));
        answers.collect::<Vec<_>>()
    };
    lab.node.kill();
    assert_eq!(ask_all(), before, "without an agent");
    lab.node.start();
    assert_eq!(ask_all(), before, "with another agent");
    // The ring loses a backend: who is connected stays, and nobody new comes.
    let drained = lab.nat_service(&[(0, 1), (1, 1), (2, 0)]);
    lab.node.apply("web.yaml", &drained);
    assert_eq!(ask_all(), before, "while a backend is drained");
    for family in [0, 1].into_iter().cycle().take(40) {
        let mut stream = lab.connect(family).expect("a backend answers");
        assert_ne!(ask(&mut stream).expect("an answer"), 2);
    }
}
