//! Pods as a point-to-point network plugin makes them: an address, and a cable to their node.

use std::{
    collections::BTreeSet,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use crate::{
    cluster::Member,
    namespace::{Namespace, run},
};

/// The port at which a pod answers, by TCP and UDP.
pub const POD_PORT: u16 = 8080;

/// Bytes of the answer to `*`.
pub const LARGE: usize = 8 << 20;

/// How long [`Pod::fetch`] waits for an answer that may never come.
const PATIENCE: Duration = Duration::from_secs(1);

/// A pod whose server answers every byte and datagram with its number. It goes away with this value.
#[derive(Debug)]
pub struct Pod {
    /// Its addresses.
    pub addresses: [IpAddr; 2],
    /// Who has asked it.
    pub clients: Arc<Mutex<BTreeSet<IpAddr>>>,
    namespace: Namespace,
}

impl Pod {
    /// The pod of this number on `node`, which becomes a router.
    ///
    /// # Panics
    /// Where something of it cannot be made.
    #[must_use]
    pub fn on(node: &Member, number: u8) -> Self {
        let namespace = Namespace::new("pod");
        let v4 = Ipv4Addr::new(10, 244, number, 2);
        let v6 = Ipv6Addr::new(0xfd24, number.into(), 0, 0, 0, 0, 0, 2);
        let host = format!("pod{number}");
        namespace.ip(&format!(
            "link add eth0 type veth peer name {host} netns {}",
            node.namespace.path().display()
        ));
        node.namespace
            .ip(&format!("link set {host} addrgenmode none up"));
        node.namespace
            .ip(&format!("-6 address add fe80::1/64 dev {host} nodad"));
        for setting in ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"] {
            run(node.namespace.command("sysctl").args(["-qw", setting]));
        }
        namespace.ip("link set eth0 up");
        namespace.ip(&format!("address add {v4}/32 dev eth0"));
        namespace.ip(&format!("-6 address add {v6}/128 dev eth0 nodad"));
        // The node answers for its own address on any of its interfaces.
        namespace.ip(&format!(
            "route add default via {} dev eth0 onlink",
            node.end.v4
        ));
        namespace.ip("-6 route add default via fe80::1 dev eth0");
        node.namespace.ip(&format!("route add {v4} dev {host}"));
        node.namespace.ip(&format!("-6 route add {v6} dev {host}"));
        let pod = Self {
            addresses: [v4.into(), v6.into()],
            clients: Arc::default(),
            namespace,
        };
        pod.serve(number);
        pod
    }

    /// Lets `other` find the way to this pod by its node.
    ///
    /// # Panics
    /// Where the kernel refuses.
    pub fn route_from(&self, other: &Member, node: &Member) {
        let [v4, v6] = self.addresses;
        let namespace = &other.namespace;
        namespace.ip(&format!("route add {v4} via {}", node.end.v4));
        namespace.ip(&format!("-6 route add {v6} via {}", node.end.v6));
    }

    /// Asks another pod by TCP for much, and looks at every byte.
    ///
    /// # Errors
    /// It does not answer whole.
    pub fn fetch(&self, other: IpAddr) -> io::Result<()> {
        let place = SocketAddr::new(other, POD_PORT);
        let mut stream = self
            .namespace
            .enter(|| TcpStream::connect_timeout(&place, PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"*")?;
        let mut answer = vec![0; LARGE];
        stream.read_exact(&mut answer)?;
        let is_whole = answer.iter().all(|byte| *byte == answer[0]);
        assert!(is_whole, "other bytes");
        Ok(())
    }

    fn serve(&self, number: u8) {
        for address in self.addresses {
            let place = (address, POD_PORT);
            let listener = self.namespace.enter(|| TcpListener::bind(place));
            let listener = listener.expect("the address is its own");
            let clients = Arc::clone(&self.clients);
            thread::spawn(move || accept(&listener, number, &clients));
            let socket = self.namespace.enter(|| UdpSocket::bind(place));
            let socket = socket.expect("the address is its own");
            let clients = Arc::clone(&self.clients);
            thread::spawn(move || answer(&socket, number, &clients));
        }
    }
}

fn accept(listener: &TcpListener, number: u8, clients: &Mutex<BTreeSet<IpAddr>>) {
    while let Ok((stream, client)) = listener.accept() {
        clients.lock().expect("nobody panics").insert(client.ip());
        thread::spawn(move || converse(stream, number));
    }
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

fn answer(socket: &UdpSocket, number: u8, clients: &Mutex<BTreeSet<IpAddr>>) {
    let mut datagram = [0; 64];
    while let Ok((_, client)) = socket.recv_from(&mut datagram) {
        clients.lock().expect("nobody panics").insert(client.ip());
        if socket.send_to(&[number], client).is_err() {
            return;
        }
    }
}
