//! Nodes, and how they reach the API server and each other.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use headgate_e2e_tests::{
    cluster::{Cluster, LABEL, Member},
    control_plane::{ADDRESS, ControlPlane, PORT},
    flow::{Flow, Receiver},
    trials::on_cluster,
    wait::wait_for,
};
use libtest_mimic::Trial;

const SOON: Duration = Duration::from_secs(10);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        on_cluster("a_node_has_a_token_that_names_it", tokens),
        on_cluster("nodes_and_client_share_a_switch", switch),
        on_cluster("the_api_server_can_be_unplugged", unplugged),
        on_cluster("clusters_of_one_control_plane_are_apart", apart),
        on_cluster("the_api_servers_own_endpoint_is_published", endpoint),
    ]
}

fn tokens() {
    let cluster = Cluster::new(3);
    for node in &cluster.nodes {
        let whoami = ["auth", "whoami", "-o", "json"];
        let user = cluster.kubectl_on(node).json(&whoami);
        let user = &user["status"]["userInfo"];
        assert_eq!(
            user["username"],
            "system:serviceaccount:headgate-system:headgate-agent"
        );
        let of = &user["extra"]["authentication.kubernetes.io/node-name"];
        assert_eq!(of[0], node.name.as_str(), "{user:#}");
        let read = cluster.kubectl().json(&["get", "node", &node.name]);
        assert_eq!(
            user["extra"]["authentication.kubernetes.io/node-uid"][0], read["metadata"]["uid"],
            "{user:#}"
        );
    }
}

/// Sends a few datagrams over both families; all must arrive.
fn exchange(from: &Member, to: &Member) {
    const PORT: u16 = 9000;
    const COUNT: u64 = 50;
    let receiver = Receiver::open(&to.namespace, &[PORT]);
    let v4: (IpAddr, IpAddr) = (from.end.v4.into(), to.end.v4.into());
    let v6: (IpAddr, IpAddr) = (from.end.v6.into(), to.end.v6.into());
    for (source, destination) in [v4, v6] {
        let destination = SocketAddr::new(destination, PORT);
        let flow = Flow::start(&from.namespace, &[source], destination, 1_000, COUNT);
        wait_for(SOON, &format!("all are at {destination}"), || {
            receiver.received(flow.id) == COUNT
        });
        assert_eq!(flow.stop(), COUNT);
    }
}

fn switch() {
    let cluster = Cluster::new(3);
    let [one, two, three] = cluster.nodes.as_slice() else {
        panic!("three nodes were asked for");
    };
    for node in [one, two, three] {
        exchange(&cluster.client, &node.member);
    }
    exchange(&one.member, &two.member);
    exchange(&three.member, &cluster.client);
    let route = one.member.namespace.ip("route show default");
    assert!(route.contains("dev eth0"), "{route}");
}

fn unplugged() {
    let cluster = Cluster::new(1);
    let node = &cluster.nodes[0];
    let kubectl = cluster.kubectl_on(node);
    let ask = || kubectl.said(&["auth", "whoami", "--request-timeout=2s"]);
    assert_eq!(ask().code, 0);
    cluster.unplug_api_server();
    let said = ask();
    assert_ne!(said.code, 0, "{said:?}");
    exchange(&cluster.client, &node.member);
    cluster.kubectl().run(&["get", "node", &node.name]);
    cluster.plug_api_server();
    wait_for(SOON, "the node has the API again", || ask().code == 0);
}

fn apart() {
    let (one, other) = (Cluster::new(1), Cluster::new(1));
    let select = format!("{LABEL}={}", one.name);
    let selected = one
        .kubectl()
        .run(&["get", "nodes", "-l", &select, "-o", "name"]);
    assert_eq!(selected.trim_end(), format!("node/{}", one.nodes[0].name));
    drop(one);
    other.kubectl_on(&other.nodes[0]).run(&["auth", "whoami"]);
}

fn endpoint() {
    let control_plane = ControlPlane::shared();
    let slice = ["get", "endpointslice", "kubernetes"];
    let slice = control_plane.kubectl().json(&slice);
    assert_eq!(
        slice["endpoints"][0]["addresses"][0],
        ADDRESS.to_string(),
        "{slice:#}"
    );
    assert_eq!(slice["ports"][0]["port"], PORT, "{slice:#}");
}
