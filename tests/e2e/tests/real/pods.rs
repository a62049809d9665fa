//! What pods say to each other passes the uplinks of their nodes.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

use headgate_e2e_tests::{
    namespace::Namespace,
    real::{ProxyMode, SOON, Traffic},
    trials::on_real_nodes,
    wait::wait_for,
};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{
    Shared,
    servers::{PORT, Pods},
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        on_real_nodes(
            "pods_and_services_work_beside_a_default_drop",
            reach_each_other,
        ),
        on_real_nodes(
            "a_service_of_our_class_leads_to_pods_of_both_nodes",
            balanced,
        ),
    ]
}

fn reach_each_other() {
    let cluster = Shared::installed();
    let pods = Pods::start(&cluster, &[1]);
    pods.assert_reached("before the policy");
    cluster.enforce("cluster-only", &cluster_only().to_string());
    let traffic = Traffic::start(&cluster);
    pods.assert_reached("with the policy");
    traffic.go_on(200);
    traffic.stop_unbroken("a default Drop");
}

/// By the first node to a pod there and to one on the second, beside kube-proxy in both of its modes; and from
/// a pod there, whose packets are kube-proxy's.
fn balanced() {
    let cluster = Shared::installed();
    cluster.let_xdp_send();
    let pods = Pods::start(&cluster, &[0, 1]);
    cluster.kubectl().apply(&public().to_string());
    let told = "jsonpath={.status.loadBalancer.ingress[0].ip}";
    let get = ["get", "service/public", "-n", Pods::NAMESPACE, "-o", told];
    wait_for(SOON, "the Service is told its address", || {
        cluster.run(&get) == PUBLIC.to_string()
    });
    let node = cluster.nodes[0].address();
    let client = &cluster.client.namespace;
    client.ip(&format!("route replace {PUBLIC} via {node}"));
    let names = pods.servers.iter().map(|server| server.name.clone());
    let expected: BTreeSet<String> = names.collect();
    for mode in ProxyMode::ALL {
        cluster.run_proxies(mode);
        let answer = |_| hostname(client).expect("a pod answers");
        let answering: BTreeSet<String> = (0..40).map(answer).collect();
        assert_eq!(answering, expected, "{mode:?}");
        pods.assert_answers(&PUBLIC.to_string(), 80, &format!("a pod by {mode:?}"));
        println!("{mode:?}: {answering:?}");
    }
}

const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

/// A pool of one address, and a Service of our class that gets it.
fn public() -> Value {
    let pool = json!({
        "apiVersion": "headgate.dev/v1alpha1",
        "kind": "AddressPool",
        "metadata": {"name": "public"},
        "spec": {"cidrs": [format!("{PUBLIC}/32")], "namespaces": [Pods::NAMESPACE]},
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "public", "namespace": Pods::NAMESPACE},
        "spec": {
            "type": "LoadBalancer", "loadBalancerClass": "headgate.dev/xdp",
            "selector": {"app": Pods::APP},
            "ports": [{"port": 80, "targetPort": PORT}],
        },
    });
    json!({"apiVersion": "v1", "kind": "List", "items": [pool, service]})
}

/// The name of the pod that answers a client at [`PUBLIC`].
fn hostname(client: &Namespace) -> std::io::Result<String> {
    client.enter(|| {
        let patience = Duration::from_secs(2);
        let mut stream = TcpStream::connect_timeout(&(PUBLIC, 80).into(), patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(b"GET /etc/hostname HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let name = text.lines().last();
        Ok(name.unwrap_or_default().to_owned())
    })
}

/// Lets pass what the cluster itself says, and one port of the two that traffic goes to.
fn cluster_only() -> Value {
    let cluster = ["pod-cidrs", "nodes", "api-servers"];
    json!({
        "apiVersion": "headgate.dev/v1alpha1",
        "kind": "XdpPolicy",
        "metadata": {"name": "cluster-only"},
        "spec": {"defaultAction": "Drop", "rules": [
            {"name": "cluster", "action": "Allow", "from": {"cidrGroups": {"names": cluster}}},
            {"name": "flow", "action": "Allow",
                "protocols": [{"udp": {"ports": [{"port": 12346}]}}]},
        ]},
    })
}
