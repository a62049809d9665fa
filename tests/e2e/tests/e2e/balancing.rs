//! Connections through the load balancer, answered by backends directly.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpStream, UdpSocket},
};

use headgate_e2e_tests::{
    namespace::run,
    node::{Node, SOON},
    paths::example,
    services::{EXAMPLE, NAT_EXAMPLE, PORT, ServiceLab, VIRTUAL, ask, connect_from},
    trials::on_node_with,
    wait::wait_for,
};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::monitor::Monitor;

pub(crate) fn trials() -> Vec<Trial> {
    let on_lab = |name, test| on_node_with(name, &["ethtool"], test);
    vec![
        on_lab("flows_go_where_trace_says_and_are_answered_directly", flows),
        on_lab("a_backend_that_is_drained_gets_no_new_flow", drained),
        on_lab("clients_outside_of_source_ranges_get_no_answer", limited),
        on_lab("connections_stay_while_backends_change", rolled),
        on_lab("connections_outlive_the_agent", killed),
        on_lab("a_router_moves_flows_between_nodes", rerouted),
        on_lab("a_next_hop_is_followed_when_it_moves", moved),
        on_lab("a_service_of_no_pool_is_refused_and_said", refused),
    ]
}

/// The example, in force.
fn served() -> ServiceLab {
    enforced(EXAMPLE)
}

/// An example, in force.
pub(crate) fn enforced(name: &str) -> ServiceLab {
    let mut lab = ServiceLab::new(3);
    enforce(&mut lab.node, name);
    lab
}

fn enforce(node: &mut Node, name: &str) {
    for (number, document) in example(&format!("services/{name}"))
        .split("\n---\n")
        .enumerate()
    {
        node.write(["pool.yaml", "web.yaml"][number], document);
    }
    node.start();
    wait_until_enforced(node);
}

fn wait_until_enforced(node: &Node) {
    wait_for(SOON, "the service is enforced", || {
        let listed = node.headgate(&["lb", "list", "-o", "json"]).json();
        listed[0]["state"] == "Enforced"
    });
}

fn flows() {
    let lab = served();
    let mut shares: BTreeMap<u8, u32> = BTreeMap::new();
    for family in [0, 1].into_iter().cycle().take(60) {
        let mut stream = lab.connect(family).expect("a backend answers");
        let number = ask(&mut stream).expect("an answer");
        let client = stream.local_addr().expect("an address");
        let trace = trace(&lab, client, family);
        let end = &lab.backends[usize::from(number)].end;
        let addresses = [end.v4.to_string(), end.v6.to_string()];
        assert_eq!(trace, addresses[family], "{client}");
        *shares.entry(number).or_default() += 1;
    }
    assert_eq!(shares.len(), 3, "{shares:?}");
    let service = lab
        .node
        .headgate(&["lb", "get", "shop/web", "-o", "json"])
        .json();
    let packets = service["frontends"][0]["packets"]
        .as_u64()
        .expect("a count");
    // SYN, ACK, the question, the ACK of the answer, and the end.
    assert!(packets >= 60 * 4, "{packets}");
}

/// The backend that a flow goes to, by `headgate lb trace`.
fn trace(lab: &ServiceLab, client: SocketAddr, family: usize) -> String {
    let service = SocketAddr::new(VIRTUAL[family], PORT).to_string();
    let asked = ["lb", "trace", &client.to_string(), &service, "-o", "json"];
    let trace = lab.node.headgate(&asked).json();
    trace["backend"]["address"]
        .as_str()
        .expect("an address")
        .to_owned()
}

fn drained() {
    let lab = served();
    let drained = lab.service(&[(0, 1), (1, 1), (2, 0)]);
    lab.node.apply("web.yaml", &drained);
    for family in [0, 1].into_iter().cycle().take(40) {
        let mut stream = lab.connect(family).expect("a backend answers");
        assert_ne!(ask(&mut stream).expect("an answer"), 2);
    }
}

fn limited() {
    for (example, ends) in [(EXAMPLE, true), (NAT_EXAMPLE, false)] {
        let lab = enforced(example);
        let all = [(0, 1), (1, 1), (2, 1)];
        let open = match example {
            EXAMPLE => lab.service(&all),
            _ => lab.nat_service(&all),
        };
        let mut held = [0, 1].map(|family| lab.connect(family).expect("a backend answers"));
        // The client is 192.168.77.2 and fd77::2.
        let limited = |ranges: &str| format!("{open}  sourceRanges: [{ranges}]\n");
        lab.node
            .apply("web.yaml", &limited("192.168.77.2/32, \"fd77::3/128\""));
        assert!(lab.connect(0).is_ok());
        assert!(lab.connect(1).is_err());
        assert!(ask(&mut held[0]).is_ok());
        assert_eq!(ask(&mut held[1]).is_err(), ends);
        let by_ranges = ["--rule", "shop/web/sourceRanges"];
        let monitor = Monitor::start(&lab.node, &by_ranges);
        let told = monitor.wait_for(
            || drop(lab.connect(1)),
            |monitor| {
                let lines = monitor.said("stdout");
                lines.lines().next().map(str::to_owned)
            },
        );
        assert!(
            told.contains("Drop shop/web/sourceRanges [fd77::2]:"),
            "{told}"
        );
        let outside = traced(&lab, "[fd77::2]:40000", 1);
        assert_eq!(outside["backend"], Value::Null);
        let why = outside["dropped"].as_str().expect("why");
        assert!(why.contains("fd77::2 is outside of sourceRanges"), "{why}");
        assert_eq!(
            traced(&lab, "192.168.77.2:40000", 0)["dropped"],
            Value::Null
        );
        let service = lab.node.headgate(&["lb", "get", "shop/web", "-o", "json"]);
        let ranges = service.json()["sourceRanges"].clone();
        assert_eq!(ranges["ranges"][0], "192.168.77.2/32");
        assert!(ranges["packets"].as_u64() > Some(0), "{ranges}");
        lab.node
            .apply("web.yaml", &limited("192.168.77.0/24, \"fd77::/64\""));
        assert!(lab.connect(0).is_ok() && lab.connect(1).is_ok());
    }
}

fn traced(lab: &ServiceLab, client: &str, family: usize) -> Value {
    let service = SocketAddr::new(VIRTUAL[family], PORT).to_string();
    let asked = ["lb", "trace", client, &service, "-o", "json"];
    lab.node.headgate(&asked).json()
}

/// One backend is drained, one comes, one goes, each while connections are held.
fn rolled() {
    let mut lab = ServiceLab::new(4);
    let pool = example(&format!("services/{EXAMPLE}"));
    lab.node
        .write("pool.yaml", pool.split("\n---\n").next().expect("a pool"));
    lab.node
        .write("web.yaml", &lab.service(&[(0, 1), (1, 1), (2, 1)]));
    lab.node.start();
    let mut held: Vec<(TcpStream, u8)> = Vec::new();
    let mut changed = 0;
    let changes: [&[(usize, u16)]; 4] = [
        &[(0, 1), (1, 1), (2, 1)],
        &[(0, 1), (1, 1), (2, 0)],
        &[(0, 1), (1, 1), (2, 0), (3, 1)],
        &[(0, 1), (2, 0), (3, 1)],
    ];
    for (number, backends) in changes.into_iter().enumerate() {
        if number > 0 {
            lab.node.apply("web.yaml", &lab.service(backends));
        }
        wait_until_enforced(&lab.node);
        let lives = |number: u8| backends.iter().any(|(b, _)| *b == usize::from(number));
        held.retain(|(_, number)| lives(*number));
        for (stream, number) in &mut held {
            assert_eq!(ask(stream).expect("it goes on"), *number);
            let client = stream.local_addr().expect("an address");
            changed += u32::from(stays(&lab, client, usize::from(client.is_ipv6())));
        }
        for flow in 0..30 {
            let mut stream = lab.connect(flow % 2).expect("a backend answers");
            let number = ask(&mut stream).expect("an answer");
            let has_share =
                |(backend, weight): &(usize, u16)| *backend == usize::from(number) && *weight > 0;
            assert!(backends.iter().any(has_share), "{number} of {backends:?}");
            held.push((stream, number));
        }
    }
    // What an agent that starts again finds on its disk is what it goes on with.
    lab.node.kill();
    lab.node.start();
    for (stream, number) in &mut held {
        assert_eq!(ask(stream).expect("it goes on"), *number);
    }
    assert!(held.len() >= 50, "{}", held.len());
    assert!(
        changed >= 10,
        "{changed} of {} had another entry",
        held.len()
    );
    let shown = lab.node.headgate(&["lb", "get", "shop/web"]).output;
    let drained = format!("and drain from {}", lab.backends[2].end.v4);
    assert!(shown.contains("settling: connections stay"), "{shown}");
    assert!(shown.contains(&drained), "{shown}");
}

/// Whether `headgate lb trace` says that a connection from before may be elsewhere than a new one.
fn stays(lab: &ServiceLab, client: SocketAddr, family: usize) -> bool {
    let service = SocketAddr::new(VIRTUAL[family], PORT).to_string();
    let asked = ["lb", "trace", &client.to_string(), &service, "-o", "json"];
    let trace = lab.node.headgate(&asked).json();
    trace["formerBackend"].is_string()
}

fn killed() {
    let mut lab = served();
    let mut held: Vec<_> = (0..20)
        .map(|flow| lab.connect(flow % 2).expect("a backend answers"))
        .collect();
    let before: Vec<_> = held
        .iter_mut()
        .map(|s| ask(s).expect("an answer"))
        .collect();
    lab.node.kill();
    let mut ask_all = || {
        let answers = held.iter_mut().map(|s| ask(s).expect("an answer"));
        answers.collect::<Vec<_>>()
    };
    assert_eq!(ask_all(), before, "without an agent");
    lab.node.start();
    assert_eq!(ask_all(), before, "with another agent");
}

/// A client behind a router that has two nodes, then three, as docs/forwarding.md sets one up.
fn rerouted() {
    for (example, survives) in [(EXAMPLE, true), (NAT_EXAMPLE, false)] {
        let lab = enforced(example);
        let [second, third] = [3, 4].map(|number| {
            let (mut node, end) = lab.another_balancer(number);
            enforce(&mut node, example);
            (node, end)
        });
        let spread = |verb: &str, group: &str| {
            let timers = "type resilient buckets 512 idle_timer 120";
            let command = format!("nexthop {verb} id 10 group {group} {timers}");
            lab.client.ip(&command);
        };
        run(lab
            .client
            .command("sysctl")
            .args(["-qw", "net.ipv4.fib_multipath_hash_policy=1"]));
        for (id, node) in [(1, lab.balancer.v4), (2, second.1.v4), (3, third.1.v4)] {
            lab.client
                .ip(&format!("nexthop add id {id} via {node} dev eth0"));
        }
        spread("add", "1/2");
        lab.client
            .ip(&format!("route replace {}/32 nhid 10", VIRTUAL[0]));
        let client = lab.client_behind_a_router();
        let connect = || connect_from(&client, VIRTUAL[0]);
        let held = (0..20).map(|_| connect().expect("a backend answers"));
        let mut held: Vec<_> = held.collect();
        let mut ask_all = || held.iter_mut().map(ask).collect::<Vec<_>>();
        let answers = |asked: Vec<std::io::Result<u8>>| -> Vec<u8> {
            asked.into_iter().map(|a| a.expect("an answer")).collect()
        };
        let before = answers(ask_all());
        // A node more: what is under way stays where it is, and some of what is new goes there.
        spread("replace", "1/2/3");
        assert_eq!(answers(ask_all()), before, "{example}");
        let packets = || {
            let service = third.0.headgate(&["lb", "get", "shop/web", "-o", "json"]);
            service.json()["frontends"][0]["packets"].as_u64()
        };
        wait_for(SOON, "the third node gets flows", || {
            connect().is_ok() && packets() > Some(0)
        });
        // Two nodes less: the third has the same ring, and does not know the others' flows.
        spread("replace", "3");
        match survives {
            true => assert_eq!(answers(ask_all()), before),
            false => assert!(ask_all().iter().all(Result::is_err)),
        }
        assert!(connect().is_ok());
    }
}

fn moved() {
    let lab = served();
    let backend = &lab.backends[1];
    let namespace = &backend.namespace;
    namespace.ip("link set eth0 address 02:00:00:02:ff:01");
    // What it says from now on tells its neighbours, as after any move.
    namespace.enter(|| {
        let socket = UdpSocket::bind((backend.end.v4, 0)).expect("its own address");
        let balancer = lab.balancer.v4;
        socket.send_to(b"here", (balancer, 9)).expect("sent");
    });
    wait_for(SOON, "flows arrive at the new address", || {
        (0..12).all(|_| {
            lab.connect(0)
                .is_ok_and(|mut stream| ask(&mut stream).is_ok())
        })
    });
}

fn refused() {
    let mut lab = ServiceLab::new(1);
    lab.node.write("web.yaml", &lab.service(&[(0, 1)]));
    lab.node.start();
    let service = lab.node.headgate(&["lb", "get", "shop/web"]).output;
    assert!(service.contains("Stalled"), "{service}");
    assert!(
        service.contains("lies in no AddressPool that admits"),
        "{service}"
    );
    assert!(lab.connect(0).is_err());
}
