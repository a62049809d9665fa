//! Services whose backends are pods, as EndpointSlices tell.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use headgate_e2e_tests::{
    cluster::LABEL,
    fleet::{Fleet, SOON},
    pod::{LARGE, POD_PORT, Pod},
    trials::on_cluster,
    wait::wait_for,
};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::operator::started;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        on_cluster("pods_here_and_elsewhere_serve_one_address", pods),
        on_cluster("endpoints_come_end_and_go_under_connections", changes),
        on_cluster(
            "a_service_of_our_class_gets_an_address_and_is_served",
            services,
        ),
    ]
}

/// How long a client waits for an answer that may never come.
const PATIENCE: Duration = Duration::from_secs(1);

/// Two nodes with a pod each, and a client whose way to the service is by the first.
struct Lab {
    pods: [Pod; 2],
    addresses: [IpAddr; 2],
    fleet: Fleet,
}

impl Lab {
    fn new() -> Self {
        Self::of(Fleet::started(2))
    }

    fn of(fleet: Fleet) -> Self {
        let cluster = &fleet.cluster;
        cluster.let_xdp_send();
        let [one, other] = [0, 1].map(|node: usize| &cluster.nodes[node].member);
        let pods = [Pod::on(one, 1), Pod::on(other, 2)];
        pods[1].route_from(one, other);
        let [.., number, _] = one.end.v4.octets();
        let v4 = Ipv4Addr::new(203, 0, number, 10);
        let v6 = Ipv6Addr::new(0x2001, 0xdb8, number.into(), 0, 0, 0, 0, 10);
        let client = &cluster.client.namespace;
        client.ip(&format!("route add {v4} via {}", one.end.v4));
        client.ip(&format!("-6 route add {v6} via {}", one.end.v6));
        let lab = Self {
            pods,
            addresses: [v4.into(), v6.into()],
            fleet,
        };
        lab.fleet.apply(&json!({
            "apiVersion": "headgate.dev/v1alpha1",
            "kind": "AddressPool",
            "metadata": {"name": lab.fleet.named("pool")},
            "spec": {"cidrs": [format!("{v4}/32"), format!("{v6}/128")]},
        }));
        lab
    }

    /// The slices of both families; by pod whether it is ready and whether it ends.
    fn announce(&self, endpoints: &[(usize, bool, bool)]) {
        self.announce_of("default", &self.fleet.named("web"), endpoints);
    }

    fn announce_of(&self, namespace: &str, service: &str, endpoints: &[(usize, bool, bool)]) {
        for (family, kind) in ["IPv4", "IPv6"].into_iter().enumerate() {
            let endpoints = endpoints.iter().map(|(pod, ready, terminating)| {
                json!({
                    "addresses": [self.pods[*pod].addresses[family]],
                    "nodeName": self.fleet.cluster.nodes[*pod].name,
                    "conditions": {"ready": ready, "serving": true, "terminating": terminating},
                })
            });
            self.fleet.apply(&json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": format!("{service}-{}", kind.to_lowercase()),
                    "namespace": namespace,
                    "labels": {"kubernetes.io/service-name": service},
                },
                "addressType": kind,
                "ports": [
                    {"name": "http", "protocol": "TCP", "port": POD_PORT},
                    {"name": "dns", "protocol": "UDP", "port": POD_PORT},
                ],
                "endpoints": endpoints.collect::<Vec<Value>>(),
            }));
        }
    }

    fn service(&self, traffic_policy: &str) {
        self.fleet.apply(&json!({
            "apiVersion": "headgate.dev/v1alpha1",
            "kind": "LoadBalancerService",
            "metadata": {"name": self.fleet.named("web"), "namespace": "default"},
            "spec": {
                "nodeSelector": {"matchLabels": {LABEL: self.fleet.cluster.name}},
                "interfaces": ["eth0"],
                "addresses": self.addresses,
                "ports": [
                    {"name": "http", "port": 80},
                    {"name": "dns", "protocol": "UDP", "port": 53},
                ],
                "backends": {"serviceRef": {"name": self.fleet.named("web")}},
                "externalTrafficPolicy": traffic_policy,
            },
        }));
    }

    fn connect(&self, family: usize) -> std::io::Result<TcpStream> {
        self.connect_to(self.addresses[family])
    }

    fn connect_to(&self, address: IpAddr) -> std::io::Result<TcpStream> {
        let to = SocketAddr::new(address, 80);
        self.fleet.cluster.client.namespace.enter(|| {
            let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(stream)
        })
    }

    fn ask_by_udp(&self, family: usize) -> std::io::Result<u8> {
        let any: IpAddr = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()][family];
        let to = (self.addresses[family], 53);
        self.fleet.cluster.client.namespace.enter(|| {
            let socket = UdpSocket::bind((any, 0))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.connect(to)?;
            socket.send(b"?")?;
            let mut answer = [0];
            socket.recv(&mut answer)?;
            Ok(answer[0])
        })
    }

    /// The pods that answer many new connections of a family.
    fn answering(&self, family: usize) -> BTreeSet<u8> {
        let flows = (0..20).map(|_| ask(&mut self.connect(family)?));
        flows.filter_map(Result::ok).collect()
    }

    fn wait_until_answered_by(&self, expected: &[u8]) {
        let expected: BTreeSet<u8> = expected.iter().copied().collect();
        for family in [0, 1] {
            let what = format!("{expected:?} answer family {family}");
            wait_for(SOON, &what, || self.answering(family) == expected);
        }
    }

    fn addresses_of(&self, member: &headgate_e2e_tests::cluster::Member) -> BTreeSet<IpAddr> {
        BTreeSet::from([member.end.v4.into(), member.end.v6.into()])
    }
}

impl Lab {
    fn object(&self, kind: &str, name: &str) -> Value {
        let name = self.fleet.named(name);
        let kubectl = self.fleet.cluster.kubectl();
        let said = kubectl.said(&["get", kind, &name, "-n", "default", "-o", "json"]);
        serde_json::from_str(&said.output).unwrap_or(Value::Null)
    }

    /// Waits until the Service is told this.
    fn wait_until_told(&self, name: &str, reason: &str) -> Value {
        let what = format!("the Service {name} is told {reason}");
        wait_for(SOON, &what, || {
            self.object("service", name)["status"]["conditions"][0]["reason"] == reason
        });
        self.object("service", name)["status"].clone()
    }
}

fn services() {
    let control_plane = started();
    let _operator = control_plane.start_operator("first", &[]);
    let lab = Lab::of(Fleet::on(&control_plane, 2).start());
    let service = |name: &str, traffic_policy: &str| {
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": lab.fleet.named(name), "namespace": "default"},
            "spec": {
                "type": "LoadBalancer",
                "loadBalancerClass": "headgate.dev/xdp",
                "allocateLoadBalancerNodePorts": false,
                "externalTrafficPolicy": traffic_policy,
                "ports": [
                    {"name": "http", "port": 80, "targetPort": POD_PORT},
                    {"name": "dns", "protocol": "UDP", "port": 53, "targetPort": POD_PORT},
                ],
            },
        })
    };
    lab.announce(&[(0, true, false), (1, true, false)]);
    lab.fleet.apply(&service("web", "Cluster"));
    let told = lab.wait_until_told("web", "Served");
    let address = lab.addresses[0].to_string();
    assert_eq!(told["loadBalancer"]["ingress"][0]["ip"], address);
    assert_eq!(lab.answering(0), BTreeSet::from([1, 2]));
    let owner = lab.object("lbs", "web")["metadata"]["ownerReferences"][0].clone();
    assert_eq!(owner["kind"], "Service");

    // The pool has one address.
    lab.announce_of("default", &lab.fleet.named("other"), &[]);
    lab.fleet.apply(&service("other", "Cluster"));
    let told = lab.wait_until_told("other", "NoAddress");
    assert_eq!(told["loadBalancer"], json!({}));
    let mut limited = service("web", "Local");
    lab.fleet.apply(&limited);
    wait_for(SOON, "only the pod on the node answers", || {
        lab.answering(0) == BTreeSet::from([1])
    });
    limited["spec"]["loadBalancerSourceRanges"] = json!(["192.0.2.0/24"]);
    lab.fleet.apply(&limited);
    wait_for(SOON, "nobody else is let in", || lab.connect(0).is_err());
    let told = lab.wait_until_told("web", "Served");
    assert_eq!(told["loadBalancer"]["ingress"][0]["ip"], address);
    let client = lab.fleet.cluster.client.end.v4;
    limited["spec"]["loadBalancerSourceRanges"] = json!([format!("{client}/32")]);
    lab.fleet.apply(&limited);
    wait_for(SOON, "the client is let in", || lab.connect(0).is_ok());

    // What the first leaves, the second gets.
    lab.fleet.delete("service", "web");
    let told = || lab.object("service", "other")["status"]["loadBalancer"]["ingress"].clone();
    wait_for(SOON, "the other has the address", || {
        told()[0]["ip"] == address
    });
    assert_eq!(lab.object("lbs", "web"), Value::Null);
    example(&lab);
}

/// The example, whose Service has a selector that selects nothing here.
fn example(lab: &Lab) {
    let kubectl = lab.fleet.cluster.kubectl();
    kubectl.run(&["create", "namespace", "shop"]);
    lab.announce_of("shop", "web", &[(0, true, false), (1, true, false)]);
    kubectl.run(&["apply", "-f", "examples/services/service.yaml"]);
    let get = ["get", "service", "web", "-n", "shop", "-o"];
    let address = "jsonpath={.status.loadBalancer.ingress[0].ip}";
    let told = || kubectl.run(&[get.as_slice(), &[address]].concat());
    wait_for(SOON, "the example has its address", || {
        told() == "198.51.100.1"
    });
    let node = lab.fleet.cluster.nodes[0].member.end.v4;
    let client = &lab.fleet.cluster.client.namespace;
    client.ip(&format!("route add 198.51.100.1 via {node}"));
    let address = IpAddr::from([198, 51, 100, 1]);
    let flows = (0..20).map(|_| ask(&mut lab.connect_to(address)?));
    let answering: BTreeSet<u8> = flows.filter_map(Result::ok).collect();
    assert_eq!(answering, BTreeSet::from([1, 2]));
}

fn ask(stream: &mut TcpStream) -> std::io::Result<u8> {
    stream.write_all(b"?")?;
    let mut answer = [0];
    stream.read_exact(&mut answer)?;
    Ok(answer[0])
}

fn pods() {
    let lab = Lab::new();
    lab.announce(&[(0, true, false), (1, true, false)]);
    lab.service("Cluster");
    lab.wait_until_answered_by(&[1, 2]);
    for family in [0, 1] {
        let answers = (0..20).map(|_| lab.ask_by_udp(family).expect("a pod answers"));
        assert_eq!(answers.collect::<BTreeSet<_>>(), BTreeSet::from([1, 2]));
    }
    let seen = |pod: usize| lab.pods[pod].clients.lock().expect("nobody panics").clone();
    let cluster = &lab.fleet.cluster;
    assert_eq!(
        seen(0),
        lab.addresses_of(&cluster.client),
        "who asks is seen here"
    );
    assert_eq!(seen(1), lab.addresses_of(&cluster.nodes[0].member));

    for family in [0, 1] {
        // Large enough to leave pods in segments that others have to cut and sum up.
        let mut answering = BTreeSet::new();
        while answering.len() < 2 {
            let mut stream = lab.connect(family).expect("a pod answers");
            stream.write_all(b"*").expect("sent");
            let mut answer = vec![0; LARGE];
            stream.read_exact(&mut answer).expect("all of it");
            assert!(answer.iter().all(|byte| *byte == answer[0]));
            answering.insert(answer[0]);
        }
    }
    lab.service("Local");
    lab.wait_until_answered_by(&[1]);
    let egress = || {
        let versions = lab.fleet.nodes[0].pins().read_dir().expect("a folder");
        let pins = versions.map(|version| version.expect("a folder").path().join("egress"));
        pins.map(|pins| pins.read_dir().expect("a folder").count())
            .sum::<usize>()
    };
    assert_eq!(egress(), 1);
    lab.fleet.delete("loadbalancerservice", "web");
    wait_for(SOON, "nothing is left at the egress", || egress() == 0);
    assert!(lab.connect(0).is_err());
}

fn changes() {
    let mut lab = Lab::new();
    lab.service("Cluster");
    lab.fleet
        .wait_for_datapath(0, "tells what is missing", |status| {
            let exceptions = status["exceptions"].to_string();
            exceptions.contains("there is no EndpointSlice of Service/")
        });
    lab.announce(&[(0, true, false), (1, true, false)]);
    lab.wait_until_answered_by(&[1, 2]);
    let mut held: Vec<_> = (0..20)
        .map(|flow| lab.connect(flow % 2).expect("a pod answers"))
        .collect();
    let mut ask_all = || -> Vec<u8> {
        let answers = held
            .iter_mut()
            .map(|stream| ask(stream).expect("an answer"));
        answers.collect()
    };
    let before = ask_all();
    assert!(before.contains(&1) && before.contains(&2), "{before:?}");
    // One ends: who is connected stays, and nobody new comes.
    lab.announce(&[(0, false, true), (1, true, false)]);
    lab.wait_until_answered_by(&[2]);
    assert_eq!(ask_all(), before, "while a pod ends");
    // All end: better they than nobody.
    lab.announce(&[(0, false, true), (1, false, true)]);
    lab.wait_until_answered_by(&[1, 2]);
    // An agent that starts without the API knows the endpoints that it knew.
    lab.fleet.cluster.unplug_api_server();
    lab.fleet.nodes[0].kill();
    lab.fleet.nodes[0].start();
    lab.wait_until_answered_by(&[1, 2]);
    assert_eq!(ask_all(), before, "with another agent");
    lab.fleet.cluster.plug_api_server();
    lab.announce(&[]);
    wait_for(SOON, "it is told that nobody is ready", || {
        let listed = lab.fleet.nodes[0].headgate(&["lb", "list", "-o", "json"]);
        listed.json()[0]["findings"]
            .to_string()
            .contains("NoEndpoints")
    });
    assert_eq!(ask_all(), before, "although nobody new is let in");
    assert!(lab.connect(0).is_err());
}
