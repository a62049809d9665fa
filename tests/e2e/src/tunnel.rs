//! Hosts on one link, each with a pod behind it, whose networks no other host has a route to.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::Arc,
    thread,
    time::Duration,
};

use crate::{
    namespace::{Namespace, run},
    node::Node,
};

/// The example that joins three of them.
pub const EXAMPLE: &str = "tunnels/three-nodes.yaml";

/// The example by which two of them give what comes straight to their pods.
pub const DIRECT: &str = "tunnels/direct.yaml";

/// The port at which pods answer.
pub const POD_PORT: u16 = 8080;

/// Bytes of the answer to `*`.
pub const LARGE: usize = 4 << 20;

/// How long an answer is waited for.
const ANSWER: Duration = Duration::from_secs(5);

/// A link that hosts are joined by.
#[derive(Debug)]
pub struct Underlay {
    namespace: Namespace,
}

impl Underlay {
    /// A link without hosts.
    ///
    /// # Panics
    /// Where the kernel refuses.
    #[must_use]
    pub fn new() -> Self {
        let namespace = Namespace::new("link");
        namespace.ip("link add br0 type bridge");
        namespace.ip("link set br0 up");
        Self { namespace }
    }

    /// Joins a namespace to it, by `eth0` without addresses.
    pub fn join(&self, namespace: &Namespace, port: &str) {
        lay(namespace, "eth0", &self.namespace, port);
        self.namespace.ip(&format!("link set {port} master br0"));
    }

    /// Has the link take what XDP sends by the host of this number, and write checksums as a network card would:
    /// what XDP has seen keeps no note that they are missing.
    pub fn take_from_xdp(&self, host: &Host) {
        let port = format!("port{}", host.number);
        let offloads = ["-K", &port, "gro", "on", "tx", "off"];
        run(self.namespace.command("ethtool").args(offloads));
    }
}

impl Default for Underlay {
    fn default() -> Self {
        Self::new()
    }
}

/// A host with a pod.
#[derive(Debug)]
pub struct Host {
    /// Its number: `192.0.2.N`, `2001:db8::N`.
    pub number: u8,
    /// Where it lives.
    pub namespace: Arc<Namespace>,
    /// Where its pod lives.
    pub pod: Namespace,
}

impl Host {
    /// The host of this number. Its pod answers what it is sent: a byte by its number, `*` by many of them.
    ///
    /// # Panics
    /// Where the kernel refuses.
    #[must_use]
    pub fn on(link: &Underlay, number: u8) -> Self {
        let namespace = Arc::new(Namespace::new(&format!("host{number}")));
        let pod = Namespace::new(&format!("pod{number}"));
        link.join(&namespace, &format!("port{number}"));
        namespace.ip(&format!("address add 192.0.2.{number}/24 dev eth0"));
        namespace.ip(&format!("address add 2001:db8::{number}/64 dev eth0 nodad"));
        lay_pod(&pod, &namespace, number);
        for setting in ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"] {
            run(namespace.command("sysctl").args(["-qw", setting]));
        }
        let host = Self {
            number,
            namespace,
            pod,
        };
        host.serve();
        host
    }

    /// Gives its pod another interface in the place of the present one, with the same addresses.
    pub fn remake_pod_interface(&self) {
        self.namespace.ip("link del pod");
        lay_pod(&self.pod, &self.namespace, self.number);
    }

    /// A node of this host that reads these resources, with its agent running.
    #[must_use]
    pub fn node(&self, resources: &str) -> Node {
        let mut node = Node::new(&self.namespace);
        node.read_from_directory(&format!("node-{}", self.number));
        node.write("peers.yaml", resources);
        node.start();
        node
    }

    /// Addresses of its pod.
    #[must_use]
    pub fn pod_addresses(&self) -> [IpAddr; 2] {
        let number = self.number;
        let v6 = [0xfd00, 0x244, number.into(), 0, 0, 0, 0, 2];
        [[10, 244, number, 2].into(), v6.into()]
    }

    /// Joins this host to another by what any Linux has, a VXLAN device of this number without Headgate.
    ///
    /// # Panics
    /// Where the kernel refuses.
    pub fn join_plainly(&self, other: &Self, vni: u32) {
        let (number, far) = (self.number, other.number);
        let namespace = &self.namespace;
        let mac = |number: u8| format!("02:68:c0:00:02:{number:02x}");
        namespace.ip(&format!(
            "link add vx{vni} address {} mtu 1450 type vxlan id {vni} dstport 8472 local 192.0.2.{number} nolearning",
            mac(number)
        ));
        namespace.ip(&format!("link set vx{vni} up"));
        let gateways = [format!("10.244.{far}.0"), "fe80::1".to_owned()];
        for gateway in gateways {
            namespace.ip(&format!(
                "neigh replace {gateway} lladdr {} dev vx{vni} nud permanent",
                mac(far)
            ));
        }
        let (device, endpoint) = (format!("vx{vni}"), format!("192.0.2.{far}"));
        let fdb = ["fdb", "append", &mac(far), "dev", &device, "dst", &endpoint];
        run(namespace.command("bridge").args(fdb));
        namespace.ip(&format!(
            "route replace 10.244.{far}.0/24 via 10.244.{far}.0 dev {device} onlink src 10.244.{number}.1"
        ));
        namespace.ip(&format!(
            "-6 route replace fd00:244:{far}::/64 via fe80::1 dev {device}"
        ));
    }

    fn serve(&self) {
        let number = self.number;
        for address in self.pod_addresses() {
            let place = (address, POD_PORT);
            let listener = self.pod.enter(|| TcpListener::bind(place));
            let listener = listener.expect("the address is its own");
            thread::spawn(move || {
                while let Ok((stream, _)) = listener.accept() {
                    thread::spawn(move || converse(stream, number));
                }
            });
            let socket = self.pod.enter(|| UdpSocket::bind(place));
            let socket = socket.expect("the address is its own");
            thread::spawn(move || {
                let mut datagram = [0; 2048];
                while let Ok((_, client)) = socket.recv_from(&mut datagram) {
                    if socket.send_to(&[number], client).is_err() {
                        return;
                    }
                }
            });
        }
    }
}

fn lay_pod(pod: &Namespace, host: &Namespace, number: u8) {
    lay(pod, "eth0", host, "pod");
    host.ip(&format!("address add 10.244.{number}.1/24 dev pod"));
    host.ip(&format!(
        "address add fd00:244:{number}::1/64 dev pod nodad"
    ));
    // Who forwards by IPv6 asks for neighbours by this one.
    host.ip("address add fe80::1/64 dev pod nodad");
    pod.ip(&format!("address add 10.244.{number}.2/24 dev eth0"));
    pod.ip(&format!(
        "address add fd00:244:{number}::2/64 dev eth0 nodad"
    ));
    pod.ip(&format!("route add default via 10.244.{number}.1"));
    pod.ip(&format!("-6 route add default via fd00:244:{number}::1"));
}

/// Joins an interface of one namespace to one of another, both up and without addresses of their own.
fn lay(from: &Namespace, interface: &str, to: &Namespace, port: &str) {
    let path = to.path();
    from.ip(&format!(
        "link add {interface} type veth peer name {port} netns {}",
        path.display()
    ));
    from.ip(&format!("link set {interface} addrgenmode none up"));
    to.ip(&format!("link set {port} addrgenmode none up"));
}

fn converse(mut stream: TcpStream, number: u8) {
    let mut byte = [0];
    while stream.read_exact(&mut byte).is_ok() {
        let length = if byte == *b"*" { LARGE } else { 1 };
        if stream.write_all(&vec![number; length]).is_err() {
            return;
        }
    }
}

/// A connection from a namespace to a pod.
///
/// # Errors
/// It is not answered.
pub fn connect(from: &Namespace, pod: IpAddr) -> std::io::Result<TcpStream> {
    let place = SocketAddr::new(pod, POD_PORT);
    let stream = from.enter(|| TcpStream::connect_timeout(&place, ANSWER))?;
    stream.set_read_timeout(Some(ANSWER))?;
    Ok(stream)
}

/// Has a pod answer on a connection: gives its number.
///
/// # Errors
/// It does not.
pub fn ask(stream: &mut TcpStream) -> std::io::Result<u8> {
    stream.write_all(b"?")?;
    let mut answer = [0];
    stream.read_exact(&mut answer)?;
    Ok(answer[0])
}

/// Has a pod answer with much, and checks every byte of it.
///
/// # Panics
/// Where it does not come whole.
pub fn ask_for_much(stream: &mut TcpStream, number: u8) {
    stream.write_all(b"*").expect("it is asked");
    let mut answer = vec![0; LARGE];
    stream.read_exact(&mut answer).expect("all of it comes");
    assert!(answer.iter().all(|byte| *byte == number), "other bytes");
}

/// Sends a datagram from an address of a namespace to a pod; gives the answer, where one comes soon.
///
/// # Panics
/// Where it cannot be sent.
#[must_use]
pub fn datagram(from: &Namespace, source: IpAddr, pod: IpAddr, length: usize) -> Option<u8> {
    let socket = from.enter(|| UdpSocket::bind((source, 0)));
    let socket = socket.expect("the address is its own");
    let timeout = Some(Duration::from_millis(300));
    socket
        .set_read_timeout(timeout)
        .expect("sockets can be so set");
    let sent = socket.send_to(&vec![0; length], (pod, POD_PORT));
    sent.expect("it is sent");
    let mut answer = [0];
    let (_, _) = socket.recv_from(&mut answer).ok()?;
    Some(answer[0])
}

/// Packets by what became of them at the tunnel's device, read by the CLI.
///
/// # Panics
/// Where it prints no JSON.
#[must_use]
pub fn count(node: &Node, event: &str) -> u64 {
    let view = node.headgate(&["tunnel", "list", "-o", "json"]).json();
    let counters = view["counters"].as_array().cloned().unwrap_or_default();
    let mut named = counters.iter().filter(|counter| counter["event"] == event);
    named
        .next()
        .and_then(|c| c["packets"].as_u64())
        .unwrap_or(0)
}
