//! A load balancer, a client and backends on one switch.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::Arc,
    thread,
    time::Duration,
};

use crate::{
    cable::End,
    cluster::{new_switch, plug},
    namespace::{Namespace, run},
    node::Node,
};

/// The service's addresses.
pub const VIRTUAL: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 10)),
];
/// The port that backends listen on.
pub const PORT: u16 = 80;

/// The port that backends listen on at their own addresses, by TCP and UDP.
pub const TARGET_PORT: u16 = 8080;

/// The example that serves [`VIRTUAL`] by Nat, on the backends of a lab of three.
pub const NAT_EXAMPLE: &str = "nat.yaml";

/// The example that serves [`VIRTUAL`] on the backends of a lab of three.
pub const EXAMPLE: &str = "direct-return.yaml";

/// The interface of a router by which [`ServiceLab::client_behind_a_router`] is reached.
pub const BEHIND: &str = "behind";

/// Bytes that [`exchange`] sends at a time.
const PIECE: usize = 20_000;

/// How long a client waits for an answer that may never come.
const PATIENCE: Duration = Duration::from_secs(1);

/// The whole arrangement; it goes away with this value.
#[derive(Debug)]
pub struct ServiceLab {
    /// The load balancer; its agent is not started.
    pub node: Node,
    /// Who asks. Its way to [`VIRTUAL`] is by the load balancer.
    pub client: Namespace,
    /// Backends, each with a server that answers with its number.
    pub backends: Vec<BackendServer>,
    /// The load balancer's interface.
    pub balancer: End,
    switch: Namespace,
}

/// A backend that has [`VIRTUAL`] itself.
#[derive(Debug)]
pub struct BackendServer {
    /// Where it lives.
    pub namespace: Arc<Namespace>,
    /// Its interface.
    pub end: End,
}

impl ServiceLab {
    /// So many backends.
    ///
    /// # Panics
    /// Where something of it cannot be made.
    #[must_use]
    pub fn new(backends: u8) -> Self {
        let switch = new_switch();
        let balancer = end(1);
        let node = Arc::new(Namespace::new("balancer"));
        join(&switch, "balancer", &node, &balancer);
        node.ip(&format!("route add default via {}", end(2).v4));
        let client = Namespace::new("client");
        join(&switch, "client", &client, &end(2));
        let lab = Self {
            node: Node::new(&node),
            client,
            backends: (0..backends)
                .map(|number| BackendServer::join(&switch, number))
                .collect(),
            balancer,
            switch,
        };
        let [v4, v6] = VIRTUAL;
        lab.client
            .ip(&format!("route add {v4} via {}", lab.balancer.v4));
        lab.client
            .ip(&format!("-6 route add {v6} via {}", lab.balancer.v6));
        lab
    }

    /// Another load balancer beside the first, with a number from 3 to 9, and its interface; its agent is not
    /// started.
    #[must_use]
    pub fn another_balancer(&self, number: u8) -> (Node, End) {
        let name = format!("balancer{number}");
        let namespace = Arc::new(Namespace::new(&name));
        let end_of_it = end(number);
        join(&self.switch, &name, &namespace, &end_of_it);
        namespace.ip(&format!("route add default via {}", end(2).v4));
        (Node::new(&namespace), end_of_it)
    }

    /// A service of both families with these backends, by number, and their weights.
    #[must_use]
    pub fn service(&self, backends: &[(usize, u16)]) -> String {
        let ports = format!("{{name: http, port: {PORT}}}");
        self.service_by("DirectReturn", &ports, backends)
    }

    /// The same by Nat, to [`TARGET_PORT`].
    #[must_use]
    pub fn nat_service(&self, backends: &[(usize, u16)]) -> String {
        let ports = format!(
            "{{name: http, port: {PORT}, targetPort: {TARGET_PORT}}}, {{name: dns, protocol: UDP, port: 53, targetPort: {TARGET_PORT}}}"
        );
        self.service_by("Nat", &ports, backends)
    }

    /// The same by this forwarding with these ports, each as YAML writes it.
    #[must_use]
    pub fn service_by(&self, forwarding: &str, ports: &str, backends: &[(usize, u16)]) -> String {
        let listed = backends.iter().flat_map(|(number, weight)| {
            let end = &self.backends[*number].end;
            [IpAddr::V4(end.v4), IpAddr::V6(end.v6)]
                .map(|address| format!("{{address: \"{address}\", weight: {weight}}}"))
        });
        let [v4, v6] = VIRTUAL;
        format!(
            "\
apiVersion: headgate.dev/v1alpha1
kind: LoadBalancerService
metadata: {{name: web, namespace: shop}}
spec:
  addresses: [{v4}, \"{v6}\"]
  ports: [{ports}]
  backends: {{static: [{}]}}
  forwarding: {forwarding}
",
            listed.collect::<Vec<_>>().join(", ")
        )
    }

    /// A new connection to the service.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn connect(&self, family: usize) -> std::io::Result<TcpStream> {
        self.connect_to(VIRTUAL[family])
    }

    /// A new connection to this address.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn connect_to(&self, address: IpAddr) -> std::io::Result<TcpStream> {
        connect_from(&self.client, address)
    }

    /// Another backend: a container of the load balancer, which becomes its router, behind a bridge.
    pub fn add_container(&mut self) {
        let node = &self.node.namespace;
        for setting in [
            "net.ipv4.ip_forward=1",
            "net.ipv6.conf.all.forwarding=1",
            // The bridge asks for its neighbours from a link-local address, which stands for a second before it may.
            "net.ipv6.conf.default.accept_dad=0",
        ] {
            run(node.command("sysctl").args(["-qw", setting]));
        }
        node.ip("link add br0 type bridge");
        node.ip("address add 10.88.0.1/24 dev br0");
        node.ip("-6 address add fd88::1/64 dev br0 nodad");
        // As in `join`: its own is not to be asked from in its first second.
        node.ip("-6 address add fe80::1/64 dev br0 nodad");
        node.ip("link set br0 up");
        let namespace = Arc::new(Namespace::new("container"));
        let peer = node.path().display().to_string();
        namespace.ip(&format!(
            "link add eth0 type veth peer name c0 netns {peer}"
        ));
        node.ip("link set c0 master br0 up");
        let end = End {
            interface: "eth0".to_owned(),
            mac: [2, 0, 0, 2, 1, 2],
            v4: Ipv4Addr::new(10, 88, 0, 2),
            v6: Ipv6Addr::new(0xfd88, 0, 0, 0, 0, 0, 0, 2),
        };
        namespace.ip(&format!("address add {}/24 dev eth0", end.v4));
        namespace.ip(&format!("-6 address add {}/64 dev eth0 nodad", end.v6));
        namespace.ip("link set eth0 up");
        namespace.ip("route add default via 10.88.0.1");
        namespace.ip("-6 route add default via fd88::1");
        let number = self.backends.len() as u8;
        let container = BackendServer::serving(number, namespace, end, &[]);
        self.backends.push(container);
    }

    /// A client of the networks 10.9.9.0/24 and fd99::/64, behind the lab's own, which becomes its router.
    #[must_use]
    pub fn client_behind_a_router(&self) -> Namespace {
        let namespace = Namespace::new("behind");
        let router = &self.client;
        namespace.ip(&format!(
            "link add eth0 type veth peer name {BEHIND} netns {}",
            router.path().display()
        ));
        for (member, interface, host) in [(router, BEHIND, 1), (&namespace, "eth0", 2)] {
            member.ip(&format!("address add 10.9.9.{host}/24 dev {interface}"));
            member.ip(&format!(
                "-6 address add fd99::{host}/64 dev {interface} nodad"
            ));
            member.ip(&format!("link set {interface} up"));
        }
        namespace.ip("route add default via 10.9.9.1");
        namespace.ip("-6 route add default via fd99::1");
        for setting in ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"] {
            run(router.command("sysctl").args(["-qw", setting]));
        }
        for backend in &self.backends {
            let End { v4, v6, .. } = end(2);
            let namespace = &backend.namespace;
            namespace.ip(&format!("route add 10.9.9.0/24 via {v4}"));
            namespace.ip(&format!("-6 route add fd99::/64 via {v6}"));
        }
        namespace
    }
}

impl ServiceLab {
    /// The number of the backend that answers a datagram from a new port.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn ask_by_udp(&self, family: usize) -> std::io::Result<u8> {
        let any: IpAddr = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()][family];
        self.client.enter(|| {
            let socket = UdpSocket::bind((any, 0))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.connect((VIRTUAL[family], 53))?;
            socket.send(b"?")?;
            let mut answer = [0];
            socket.recv(&mut answer)?;
            Ok(answer[0])
        })
    }
}

/// A new connection to this address from this namespace.
///
/// # Errors
/// Nobody answers.
pub fn connect_from(client: &Namespace, address: IpAddr) -> std::io::Result<TcpStream> {
    let to = SocketAddr::new(address, PORT);
    client.enter(|| {
        let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    })
}

/// The number of the backend at the other end.
///
/// # Errors
/// It does not answer.
pub fn ask(stream: &mut TcpStream) -> std::io::Result<u8> {
    stream.write_all(b"?")?;
    let mut answer = [0];
    stream.read_exact(&mut answer)?;
    Ok(answer[0])
}

/// Sends so many bytes, in pieces of twenty thousand, each answered before the next; gives the number of the
/// backend at the other end, which every byte of the answers is.
///
/// # Errors
/// It does not take or answer them all.
///
/// # Panics
/// Where a byte of the answers is another.
pub fn exchange(stream: &mut TcpStream, bytes: usize) -> std::io::Result<u8> {
    let number = ask(stream)?;
    for _ in (0..bytes).step_by(PIECE) {
        stream.write_all(&[b'?'; PIECE])?;
        let mut answer = [0; PIECE];
        stream.read_exact(&mut answer)?;
        assert_eq!(answer, [number; PIECE]);
    }
    Ok(number)
}

impl BackendServer {
    fn join(switch: &Namespace, number: u8) -> Self {
        let namespace = Arc::new(Namespace::new(&format!("backend{number}")));
        let end = end(number + 10);
        join(switch, &format!("backend{number}"), &namespace, &end);
        let [v4, v6] = VIRTUAL;
        namespace.ip(&format!("address add {v4}/32 dev lo"));
        namespace.ip(&format!("-6 address add {v6}/128 dev lo nodad"));
        // Who has the address is asked of the load balancer alone: Documentation/networking/ip-sysctl.rst.
        for setting in ["arp_ignore=1", "arp_announce=2"] {
            run(namespace
                .command("sysctl")
                .args(["-qw", &format!("net.ipv4.conf.all.{setting}")]));
        }
        let places = VIRTUAL.map(|address| (address, PORT));
        Self::serving(number, namespace, end, &places)
    }

    /// Serves at these places, and at its own addresses.
    fn serving(number: u8, namespace: Arc<Namespace>, end: End, places: &[(IpAddr, u16)]) -> Self {
        let own = [IpAddr::V4(end.v4), IpAddr::V6(end.v6)];
        let places = places.iter().copied();
        for place in places.chain(own.map(|a| (a, TARGET_PORT))) {
            let listener = namespace.enter(|| TcpListener::bind(place));
            let listener = listener.expect("the address is its own");
            thread::spawn(move || serve(&listener, number));
        }
        for address in own {
            let socket = namespace.enter(|| UdpSocket::bind((address, TARGET_PORT)));
            let socket = socket.expect("the address is its own");
            thread::spawn(move || answer(&socket, number));
        }
        Self { namespace, end }
    }
}

/// Answers every byte with the backend's number, until the test's process ends.
fn serve(listener: &TcpListener, number: u8) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { return };
        let answer = move || {
            let mut bytes = [0; 4_096];
            while let Ok(length @ 1..) = stream.read(&mut bytes) {
                if stream.write_all(&[number; 4_096][..length]).is_err() {
                    return;
                }
            }
        };
        // Thousands of connections may be held.
        let thread = thread::Builder::new().stack_size(128 << 10);
        thread.spawn(answer).expect("a thread more");
    }
}

/// Answers every datagram with the backend's number, until the test's process ends.
fn answer(socket: &UdpSocket, number: u8) {
    let mut datagram = [0; 64];
    while let Ok((_, client)) = socket.recv_from(&mut datagram) {
        if socket.send_to(&[number], client).is_err() {
            return;
        }
    }
}

/// Puts a namespace on the switch, whose end takes what XDP sends. Checksums are written as a network
/// card would write them, also where the switch cuts up what it had put together: what leaves a veth pair by XDP
/// keeps no note that they are missing.
fn join(switch: &Namespace, port: &str, namespace: &Namespace, end: &End) {
    plug(switch, port, namespace, end);
    let offloads = ["-K", port, "gro", "on", "tx", "off"];
    run(switch.command("ethtool").args(offloads));
    run(namespace
        .command("ethtool")
        .args(["-K", &end.interface, "tx", "off"]));
    // Neighbours are asked from a link-local address: ndisc_send_ns in net/ipv6/ndisc.c.
    let [.., host] = end.mac;
    let interface = &end.interface;
    namespace.ip(&format!(
        "-6 address add fe80::{host:x}/64 dev {interface} nodad"
    ));
}

fn end(host: u8) -> End {
    End {
        interface: "eth0".to_owned(),
        mac: [2, 0, 0, 2, 0, host],
        v4: Ipv4Addr::new(192, 168, 77, host),
        v6: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, host.into()),
    }
}
