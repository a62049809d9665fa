//! Clients of pods of other hosts, which the load balancer reaches by an overlay.

use std::{
    collections::BTreeSet,
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use headgate_e2e_tests::{
    namespace::{Namespace, run},
    node::{Node, SOON},
    paths::example,
    services::VIRTUAL,
    trials::on_node_with,
    tunnel::{EXAMPLE, Host, POD_PORT, Underlay},
    wait::wait_for,
};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    let on_lab = |name, test| on_node_with(name, &["ethtool"], test);
    vec![
        on_lab("backends_behind_a_plain_vxlan_device_are_served", plain),
        on_lab("backends_behind_the_tunnel_are_served", tunnelled),
        on_lab("a_device_without_a_link_layer_leads_to_backends", bare),
        on_lab("policies_of_the_tunnel_judge_what_backends_answer", judged),
        on_lab("direct_return_by_an_overlay_is_refused", refused),
    ]
}

/// Where pods say their number and then give back what they are sent.
const ECHO_PORT: u16 = 9_090;
/// Bytes of an exchange.
const MUCH: usize = 4 << 20;
const PATIENCE: Duration = Duration::from_secs(10);

/// A load balancer, hosts 2 and 3 with a pod each, and a client on the same link.
struct Lab {
    node: Node,
    /// The other nodes, where Headgate joins them.
    others: Vec<Node>,
    hosts: Vec<Host>,
    client: Namespace,
    _link: Underlay,
}

impl Lab {
    /// Hosts of which the first is the load balancer; `join` makes its agent, and joins them.
    fn new(join: impl FnOnce(&[Host]) -> (Node, Vec<Node>)) -> Self {
        let link = Underlay::new();
        let hosts: Vec<Host> = [1, 2, 3].map(|n| Host::on(&link, n)).into();
        // What XDP has seen keeps no note of a checksum that is missing.
        for host in &hosts {
            run(host
                .namespace
                .command("ethtool")
                .args(["-K", "eth0", "tx", "off"]));
        }
        link.take_from_xdp(&hosts[0]);
        for host in &hosts[1..] {
            for address in host.pod_addresses() {
                echo(host, address);
            }
        }
        let client = client(&link);
        let (node, others) = join(&hosts);
        Self {
            node,
            others,
            hosts,
            client,
            _link: link,
        }
    }

    fn connect(&self, family: usize) -> std::io::Result<(u8, TcpStream)> {
        connect_from(&self.client, family)
    }

    /// The pod that answers a datagram.
    fn ask_by_udp(&self, family: usize) -> std::io::Result<u8> {
        self.ask_by_udp_at(family, 53)
    }

    fn ask_by_udp_at(&self, family: usize, port: u16) -> std::io::Result<u8> {
        let any: IpAddr = match family {
            0 => [0; 4].into(),
            _ => [0_u16; 8].into(),
        };
        let socket = self.client.enter(|| UdpSocket::bind((any, 0)))?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        socket.connect((VIRTUAL[family], port))?;
        socket.send(b"?")?;
        let mut answer = [0];
        socket.recv(&mut answer)?;
        Ok(answer[0])
    }

    fn state(&self) -> serde_json::Value {
        let service = self.node.headgate(&["lb", "get", "shop/web", "-o", "json"]);
        service.json()["state"].clone()
    }

    fn wait_until_enforced(&self) {
        wait_for(SOON, "the service is enforced", || {
            self.state() == "Enforced"
        });
    }

    /// Interfaces with the program for overlays.
    fn attached(&self) -> usize {
        let versions = self.node.pins().read_dir().expect("a folder");
        let pins = versions.map(|version| version.expect("a folder").path().join("overlay"));
        pins.map(|pins| pins.read_dir().expect("a folder").count())
            .sum()
    }
}

/// A client at `192.0.2.100` of the link, whose way to the service is by host 1.
fn client(link: &Underlay) -> Namespace {
    let client = Namespace::new("client");
    link.join(&client, "client");
    client.ip("address add 192.0.2.100/24 dev eth0");
    client.ip("address add 2001:db8::100/64 dev eth0 nodad");
    run(client.command("ethtool").args(["-K", "eth0", "tx", "off"]));
    let [v4, v6] = VIRTUAL;
    client.ip(&format!("route add {v4} via 192.0.2.1"));
    client.ip(&format!("-6 route add {v6} via 2001:db8::1"));
    client
}

fn echo(host: &Host, address: IpAddr) {
    let number = host.number;
    let listener = host.pod.enter(|| TcpListener::bind((address, ECHO_PORT)));
    let listener = listener.expect("the address is its own");
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            thread::spawn(move || {
                let mut piece = vec![0; 64 << 10];
                stream.write_all(&[number])?;
                loop {
                    let length = stream.read(&mut piece)?;
                    if length == 0 {
                        return Ok::<_, std::io::Error>(());
                    }
                    stream.write_all(&piece[..length])?;
                }
            });
        }
    });
}

/// Sends bytes and gets the same back, `length` each way.
fn exchange(stream: &TcpStream, length: usize) {
    let sent: Vec<u8> = (0..length)
        .map(|place| (place ^ place >> 9) as u8)
        .collect();
    let mut received = vec![0; length];
    thread::scope(|scope| {
        let writer = scope.spawn(|| (&*stream).write_all(&sent));
        (&*stream)
            .read_exact(&mut received)
            .expect("all comes back");
        writer.join().expect("it ends").expect("all is sent");
    });
    assert!(sent == received, "other bytes");
}

const POOL: &str = "\
apiVersion: headgate.dev/v1alpha1
kind: AddressPool
metadata: {name: shop}
spec: {cidrs: [203.0.113.0/24, \"2001:db8:ff::/64\"], namespaces: [shop]}
";

/// The service by Nat, with the pods of these hosts.
fn service(hosts: &[u8]) -> String {
    service_by("Nat", ECHO_PORT, hosts)
}

fn service_by(forwarding: &str, target: u16, hosts: &[u8]) -> String {
    let [v4, v6] = VIRTUAL;
    let backends = hosts.iter().flat_map(|number| {
        [
            format!("{{address: 10.244.{number}.2}}"),
            format!("{{address: \"fd00:244:{number}::2\"}}"),
        ]
    });
    let backends: Vec<String> = backends.collect();
    let datagrams = match forwarding {
        "Nat" => format!(
            ", {{name: dns, protocol: UDP, port: 53, targetPort: {POD_PORT}}}, {{name: nobody, protocol: UDP, port: 54, targetPort: 54}}"
        ),
        _ => String::new(),
    };
    format!(
        "\
apiVersion: headgate.dev/v1alpha1
kind: LoadBalancerService
metadata: {{name: web, namespace: shop}}
spec:
  addresses: [{v4}, \"{v6}\"]
  interfaces: [eth0]
  ports: [{{name: http, port: 80, targetPort: {target}}}{datagrams}]
  backends: {{static: [{}]}}
  forwarding: {forwarding}
",
        backends.join(", ")
    )
}

/// An agent of the first host with the service, beside `others`.
fn balancing(host: &Host, others: &str) -> Node {
    let mut node = Node::new(&host.namespace);
    node.read_from_directory("node-1");
    node.write("pool.yaml", POOL);
    node.write("web.yaml", &service(&[2, 3]));
    node.write("others.yaml", others);
    node.start();
    node
}

/// A policy that drops nothing: a file must hold something.
const NO_OTHERS: &str = "\
apiVersion: headgate.dev/v1alpha1
kind: CidrGroup
metadata: {name: nobody}
spec: {cidrs: [192.0.2.200/32]}
";

/// What clients and pods see, whatever the overlay is.
fn serves(lab: &mut Lab) {
    lab.wait_until_enforced();
    let mut held = Vec::new();
    for family in [0, 1] {
        let streams = (0..20).map(|_| lab.connect(family).expect("a pod answers"));
        let streams: Vec<_> = streams.collect();
        let numbers: BTreeSet<u8> = streams.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, BTreeSet::from([2, 3]), "family {family}");
        for (_, stream) in &streams[..4] {
            exchange(stream, MUCH);
        }
        let answers = (0..20).map(|_| lab.ask_by_udp(family).expect("an answer"));
        assert_eq!(answers.collect::<BTreeSet<u8>>(), BTreeSet::from([2, 3]));
        held.extend(streams);
    }
    let flows = lab.node.headgate(&["nat", "list", "-o", "json"]).json();
    let flows = flows.as_array().expect("a list");
    let connections = flows.iter().filter(|flow| flow["protocol"] == "TCP");
    let established = connections.filter(|flow| flow["state"] == "Established");
    // Both sides were heard, or they would be New.
    assert_eq!(established.count(), held.len(), "{flows:#?}");
    let ask_all = |when: &str| {
        for (number, stream) in &held {
            exchange(stream, 3_000);
            assert!(stream.peer_addr().is_ok(), "pod {number}, {when}");
        }
    };
    lab.node.kill();
    ask_all("without an agent");
    lab.node.start();
    ask_all("with another agent");
    // A backend leaves the ring: who is connected stays, and nobody new comes.
    lab.node.apply("web.yaml", &service(&[2]));
    ask_all("while a backend goes");
    for family in [0, 1].into_iter().cycle().take(20) {
        let (number, _stream) = lab.connect(family).expect("a pod answers");
        assert_eq!(number, 2);
    }
    assert!(lab.attached() >= 2, "the uplink and the overlay");
    tells(lab);
    drop(held);
    lab.node.remove("web.yaml");
    wait_for(SOON, "nothing is left at the ingress", || {
        lab.attached() == 0
    });
    assert!(lab.connect(0).is_err());
}

/// ICMP errors find their way, both ways.
fn tells(lab: &Lab) {
    // Nobody listens there.
    for family in [0, 1] {
        let refused = lab.ask_by_udp_at(family, 54).expect_err("nobody listens");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{family}");
    }
    // A client behind a router with a link that takes less than the overlay.
    let (router, far) = (&lab.client, Namespace::new("far"));
    far.ip(&format!(
        "link add eth0 type veth peer name behind netns {}",
        router.path().display()
    ));
    for setting in ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"] {
        run(router.command("sysctl").args(["-qw", setting]));
    }
    let [v4, v6] = VIRTUAL;
    far.ip("link set eth0 up");
    far.ip("address add 10.9.9.2/24 dev eth0");
    far.ip("address add fd99::2/64 dev eth0 nodad");
    router.ip("link set behind mtu 1400 up");
    router.ip("address add 10.9.9.1/24 dev behind");
    router.ip("address add fd99::1/64 dev behind nodad");
    router.ip("address add fe80::99/64 dev behind nodad");
    far.ip(&format!("route add {v4} via 10.9.9.1"));
    far.ip(&format!("-6 route add {v6} via fd99::1"));
    for (family, seen) in [(0, "10.244.1.1"), (1, "fd00:244:1::1")] {
        let (_, stream) = connect_from(&far, family).expect("a pod answers");
        exchange(&stream, 500_000);
        let way = lab.hosts[1].pod.ip(&format!("route get {seen}"));
        assert!(way.contains("mtu 1400"), "the pod has learnt it: {way}");
    }
}

fn connect_from(client: &Namespace, family: usize) -> std::io::Result<(u8, TcpStream)> {
    let place = SocketAddr::new(VIRTUAL[family], 80);
    let stream = client.enter(|| TcpStream::connect_timeout(&place, PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut number = [0];
    (&stream).read_exact(&mut number)?;
    Ok((number[0], stream))
}

/// As flannel joins nodes: a VXLAN device, neighbours and where they are.
fn plain() {
    let mut lab = Lab::new(|hosts| {
        for (number, vni) in [(1, 7), (2, 9)] {
            hosts[0].join_plainly(&hosts[number], vni);
            hosts[number].join_plainly(&hosts[0], vni);
        }
        // The stack has no part in it.
        for setting in [
            "net.ipv4.ip_forward=0",
            "net.ipv6.conf.all.forwarding=0",
            "net.ipv4.conf.all.rp_filter=1",
        ] {
            run(hosts[0].namespace.command("sysctl").args(["-qw", setting]));
        }
        (balancing(&hosts[0], NO_OTHERS), Vec::new())
    });
    lab.wait_until_enforced();
    let trace = ["lb", "trace", "192.0.2.100:40000", "203.0.113.10:80"];
    let trace = lab.node.headgate(&trace);
    assert!(trace.output.contains(", an overlay"), "{trace:?}");
    serves(&mut lab);
}

fn tunnelled() {
    let mut lab = Lab::new(|hosts| {
        let peers = example(EXAMPLE);
        let others = hosts[1..].iter().map(|host| host.node(&peers)).collect();
        (balancing(&hosts[0], &peers), others)
    });
    serves(&mut lab);
    for node in &lab.others {
        for dropped in ["SpoofedSource", "UnknownSource", "WrongVni", "NoPeer"] {
            let count = headgate_e2e_tests::tunnel::count(node, dropped);
            assert_eq!(count, 0, "{dropped}");
        }
    }
}

/// VXLAN without Ethernet inside (VXLAN-GPE), whose device has no link layer, as those of WireGuard and of IP in IP.
fn bare() {
    let mut lab = Lab::new(|hosts| {
        hosts.iter().for_each(join_bare);
        (balancing(&hosts[0], NO_OTHERS), Vec::new())
    });
    serves(&mut lab);
}

fn join_bare(host: &Host) {
    let (namespace, number) = (&host.namespace, host.number);
    namespace.ip("link add bare mtu 1450 type vxlan external gpe dstport 4790");
    namespace.ip("link set bare up");
    for far in [1, 2, 3].into_iter().filter(|far| *far != number) {
        let by = format!("encap ip id 7 dst 192.0.2.{far} dev bare");
        namespace.ip(&format!(
            "route add 10.244.{far}.0/24 {by} src 10.244.{number}.1"
        ));
        namespace.ip(&format!(
            "-6 route add fd00:244:{far}::/64 {by} src fd00:244:{number}::1"
        ));
    }
}

/// Behind a program of generic mode frames have no link-layer header any more where the program for overlays sees them.
fn judged() {
    let lab = Lab::new(|hosts| {
        let peers = example(EXAMPLE);
        let others = hosts[1..].iter().map(|host| host.node(&peers)).collect();
        (balancing(&hosts[0], &peers), others)
    });
    lab.wait_until_enforced();
    let policy = "\
apiVersion: headgate.dev/v1alpha1
kind: XdpPolicy
metadata: {name: inner}
spec:
  interfaces: [headgate_vxlan]
  rules:
    - name: no-datagrams-of-node-3
      action: Drop
      from: {cidrs: [10.244.3.0/24]}
      protocols: [{udp: {}}]
";
    lab.node.apply("inner.yaml", policy);
    lab.wait_until_enforced();
    for family in [0, 1] {
        let mut left = BTreeSet::from([2, 3]);
        while !left.is_empty() {
            let (number, stream) = lab.connect(family).expect("a pod answers");
            if left.remove(&number) {
                exchange(&stream, MUCH);
            }
        }
    }
    let answers = (0..20).filter_map(|_| lab.ask_by_udp(0).ok());
    assert_eq!(answers.collect::<BTreeSet<u8>>(), BTreeSet::from([2]));
}

fn refused() {
    let lab = Lab::new(|hosts| {
        hosts[0].join_plainly(&hosts[1], 7);
        (balancing(&hosts[0], NO_OTHERS), Vec::new())
    });
    let direct = service_by("DirectReturn", 80, &[2]);
    lab.node.write("web.yaml", &direct);
    wait_for(SOON, "it is said", || {
        let findings = lab.node.status()["findings"].to_string();
        findings.contains("which DirectReturn does not go by") && findings.contains("vx7")
    });
    assert_eq!(lab.state(), "Pending");
    assert!(lab.connect(0).is_err());
    assert!(lab.hosts[1].number == 2);
}
