//! The tunnel's programs by TCX and by clsact: packets between two network namespaces, and what others do there.

use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use aya::{
    EbpfLoader,
    programs::{
        SchedClassifier, TcAttachType,
        tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle},
    },
};
use headgate_compile::tunnel::RemotePeer;
use headgate_datapath::{
    kernel::{Kernel as _, KernelError},
    plan::Step,
    state::DatapathState,
    tunnel::{LocalPod, MacAddress},
};
use headgate_kernel::{OBJECT, pods};
use headgate_kernel_tests::{
    network::{ifindex, ip, run, veth},
    node::Node,
    trials::in_kernel,
    tunnel::{OWN_MAC, PEER_MAC, PORT, tunnel, tunnel_to},
};
use headgate_layout::tunnel::Event;
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        in_kernel(
            "packets_pass_the_tunnel_while_its_programs_are_replaced",
            || {
                exchange(Node::new());
            },
        ),
        in_kernel("packets_pass_classifiers_while_they_are_replaced", || {
            exchange(Node::by_clsact());
        }),
        in_kernel("classifiers_outlive_the_agent_and_are_listed", listed),
        in_kernel("a_classifier_that_is_taken_off_is_put_back", mended),
        in_kernel("somebody_elses_classifier_is_left", foreign),
        in_kernel("a_filter_on_the_way_to_a_pod_is_not_passed_by", filtered),
    ]
}

const DEVICE: &str = "headgate_vxlan";

/// The place of our classifiers.
const PLACE: NlOptions = NlOptions {
    priority: 1,
    handle: TcHandle::new(0, 0x6867),
    classid: None,
};

/// An address of the far end that no peer has.
const NOBODYS: &str = "10.0.9.9";

/// A pod of the node that gets its packets past the node's stack, and the address of its device.
const POD: &str = "10.0.1.5";
const POD_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 5]);

/// Packets of each family that go there and back at least.
const PACKETS: u32 = 150;

/// Replacements meanwhile.
const REPLACEMENTS: u32 = 10;

fn exchange(mut node: Node) {
    for name in ["all", "default"] {
        let path = format!("/proc/sys/net/ipv4/conf/{name}/rp_filter");
        std::fs::write(path, "0").expect("no judgement of sources but ours");
    }
    let _ = veth("v0", "v1");
    ip("address add 192.0.2.1/24 dev v0");
    ip("address add 2001:db8::1/64 dev v0 nodad");
    ip("address add 10.0.1.1/32 dev lo");
    ip("address add fd00:1::1/128 dev lo nodad");
    let mut wanted = two_peers();
    let tunnel = wanted.tunnel.as_mut().expect("a tunnel");
    let local = LocalPod {
        ifindex: veth("p0", "p1"),
        mac: POD_MAC,
    };
    tunnel.pods = [(POD.parse().expect("an address"), local)].into();
    node.converge(&wanted);
    let (is_over, is_replaced) = (&AtomicBool::new(false), &AtomicBool::new(false));
    let own = UdpSocket::bind("10.0.1.1:9").expect("an address of the node");
    own.set_read_timeout(Some(Duration::from_secs(20)))
        .expect("set");
    thread::scope(|threads| {
        let _end = SetAtEnd(is_over);
        let (tell, told) = mpsc::channel();
        let (go, gone) = mpsc::channel();
        threads.spawn(move || far_end(&tell, &gone, is_over));
        let namespace: String = told.recv().expect("a namespace");
        ip(&format!("link set v1 netns {namespace}"));
        go.send(()).expect("it waits");
        told.recv().expect("the far end");
        let (tell, told) = mpsc::channel();
        let (go, gone) = mpsc::channel();
        threads.spawn(move || pod(&tell, &gone, is_over));
        let namespace: String = told.recv().expect("a namespace");
        ip(&format!("link set p1 netns {namespace}"));
        go.send(()).expect("it waits");
        let heard = told.recv_timeout(Duration::from_secs(60));
        heard.expect("a packet comes to the pod, to which the node has no route");
        let (begin, begun) = mpsc::channel();
        let client = |from, to| {
            let begin = begin.clone();
            threads.spawn(move || there_and_back(from, to, &begin, is_replaced))
        };
        let clients = [
            client("10.0.1.1:0", "10.0.2.1:7"),
            client("[fd00:1::1]:0", "[fd00:2::1]:7"),
        ];
        let replaced = SetAtEnd(is_replaced);
        for _ in &clients {
            let waited = begun.recv_timeout(Duration::from_secs(60));
            waited.expect("the far end answers");
        }
        for _ in 0..REPLACEMENTS {
            let step = Step::AttachTunnel;
            node.kernel.apply(&step, &wanted.blocks).expect("replaced");
        }
        drop(replaced);
        let count =
            |client: thread::ScopedJoinHandle<'_, u32>| client.join().expect("none is lost");
        let passed = clients.map(count);
        println!("{passed:?} packets there and back, {REPLACEMENTS} replacements");
        own.set_nonblocking(true).expect("set");
        let got = own.recv(&mut [0; 9]).expect_err("nothing was passed");
        assert_eq!(got.kind(), ErrorKind::WouldBlock);
        // It would have come.
        own.set_nonblocking(false).expect("set");
        take_off_way_in(&node);
        own.recv(&mut [0; 9]).expect("it comes without a program");
    });
    let counts = node.kernel.tunnel_counters().expect("read");
    let packets = |event: Event| counts[&event].packets;
    assert!(packets(Event::UnknownSource) > 0, "{counts:?}");
    assert!(packets(Event::Delivered) > 0, "{counts:?}");
    for event in [Event::Sent, Event::Received] {
        assert!(packets(event) >= u64::from(2 * PACKETS), "{counts:?}");
    }
    node.converge(&wanted);
}

/// Sets it also where a test panics, so that the other end does not go on for ever.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn two_peers() -> DatapathState {
    let peer = |network: &str, endpoint: &str, local: &str, vni| RemotePeer {
        networks: vec![network.parse().expect("a network")],
        endpoint: endpoint.parse().expect("an address"),
        local: Some(local.parse().expect("an address")),
        vni,
        accepted_vni: vni,
        is_direct: true,
    };
    let peers = [
        peer("10.0.2.0/24", "192.0.2.2", "192.0.2.1", 7),
        peer("fd00:2::/64", "2001:db8::2", "2001:db8::1", 8),
    ];
    let own = ["10.0.1.0/24", "fd00:1::/64"];
    let own = own.map(|network| network.parse().expect("a network"));
    tunnel_to(&peers, &own, PORT)
}

/// Two plain Linux devices in a network namespace of their own. Sends back what comes, and packets from an address
/// that is nobody's meanwhile.
fn far_end(tell: &mpsc::Sender<String>, gone: &mpsc::Receiver<()>, is_over: &AtomicBool) {
    headgate_kernel_tests::network::enter();
    tell.send(namespace()).expect("it waits");
    gone.recv().expect("moved");
    ip("link set v1 up");
    ip("address add 192.0.2.2/24 dev v1");
    ip("address add 2001:db8::2/64 dev v1 nodad");
    for address in ["10.0.2.1/32", &format!("{NOBODYS}/32")] {
        ip(&format!("address add {address} dev lo"));
    }
    ip("address add fd00:2::1/128 dev lo nodad");
    for (name, vni, local, remote) in [
        ("vx7", 7, "192.0.2.2", "192.0.2.1"),
        ("vx8", 8, "2001:db8::2", "2001:db8::1"),
    ] {
        ip(&format!(
            "link add {name} address {PEER_MAC} type vxlan id {vni} dstport {PORT} local {local} remote {remote} nolearning udp6zerocsumrx"
        ));
        ip(&format!("link set {name} mtu 1430 up"));
    }
    for (device, gateway, network, source) in [
        ("vx7", "10.0.1.0", "10.0.1.0/24", "10.0.2.1"),
        ("vx8", "fe80::1", "fd00:1::/64", "fd00:2::1"),
    ] {
        ip(&format!(
            "neigh replace {gateway} lladdr {OWN_MAC} dev {device} nud permanent"
        ));
        ip(&format!(
            "route replace {network} via {gateway} dev {device} onlink src {source}"
        ));
    }
    let bound = |address: &str| {
        let socket = UdpSocket::bind(address).expect("an address of the far end");
        socket.set_nonblocking(true).expect("set");
        socket
    };
    let echoes = [bound("10.0.2.1:7"), bound("[fd00:2::1]:7")];
    let nobody = bound(&format!("{NOBODYS}:9"));
    tell.send(String::new()).expect("it waits");
    let mut buffer = [0; 64];
    while !is_over.load(Ordering::Relaxed) {
        for socket in &echoes {
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                socket.send_to(&buffer[..length], from).expect("sent back");
            }
        }
        drop(nobody.send_to(b"not mine", "10.0.1.1:9"));
        drop(echoes[0].send_to(b"for you", (POD, 9)));
        thread::sleep(Duration::from_micros(200));
    }
}

/// A pod of the node, in a network namespace of its own. Tells when it has got a packet.
fn pod(tell: &mpsc::Sender<String>, gone: &mpsc::Receiver<()>, is_over: &AtomicBool) {
    headgate_kernel_tests::network::enter();
    tell.send(namespace()).expect("it waits");
    gone.recv().expect("moved");
    ip(&format!("link set p1 address {POD_MAC} up"));
    ip(&format!("address add {POD}/32 dev p1"));
    ip("route add default dev p1");
    let socket = UdpSocket::bind(format!("{POD}:9")).expect("an address of the pod");
    let timeout = Some(Duration::from_millis(100));
    socket.set_read_timeout(timeout).expect("set");
    while !is_over.load(Ordering::Relaxed) {
        if socket.recv(&mut [0; 9]).is_ok() {
            // Nobody asks for more than one.
            drop(tell.send(String::new()));
        }
    }
}

/// Of this thread, as `ip` takes it.
fn namespace() -> String {
    let (process, thread) = (std::process::id(), nix::unistd::gettid());
    format!("/proc/{process}/task/{thread}/ns/net")
}

/// One packet after the other until all is replaced, each of which must come back. Gives their number.
fn there_and_back(from: &str, to: &str, begin: &mpsc::Sender<()>, is_replaced: &AtomicBool) -> u32 {
    let socket = UdpSocket::bind(from).expect("an address of the node");
    let to: SocketAddr = to.parse().expect("an address");
    let wait = |seconds| {
        let timeout = Some(Duration::from_secs(seconds));
        socket.set_read_timeout(timeout).expect("set");
    };
    let answer = || {
        let mut answer = [0; 4];
        socket.recv(&mut answer).map(|_| u32::from_be_bytes(answer))
    };
    let send = |number: u32| socket.send_to(&number.to_be_bytes(), to).expect("sent");
    // The underlay, which has just come up, may lose the first.
    wait(1);
    let attempts = std::iter::repeat_with(|| {
        send(u32::MAX);
        answer()
    });
    assert!(
        attempts.take(20).any(|answer| answer.is_ok()),
        "the far end answers"
    );
    begin.send(()).expect("it waits");
    wait(10);
    let mut number = 0;
    while number < PACKETS || !is_replaced.load(Ordering::Relaxed) {
        send(number);
        let mut answered = u32::MAX;
        while answered == u32::MAX {
            answered = answer().unwrap_or_else(|error| panic!("packet {number} to {to}: {error}"));
        }
        assert_eq!(answered, number);
        number += 1;
    }
    number
}

/// Behind the node's back.
fn take_off_way_in(node: &Node) {
    let classifiers = node.layout_pins().join("classifiers");
    if std::fs::read_dir(classifiers)
        .expect("a folder")
        .next()
        .is_some()
    {
        take_off(TcAttachType::Ingress);
        return;
    }
    let links = std::fs::read_dir(node.layout_pins().join("tunnel")).expect("a folder");
    let mut links = links.map(|link| link.expect("a link").path());
    let way_in = links
        .find(|path| path.to_string_lossy().contains("/in-"))
        .expect("a link");
    run(
        "bpftool",
        &format!("link detach pinned {}", way_in.display()),
    );
}

fn take_off(side: TcAttachType) {
    use aya::programs::links::Link as _;
    let NlOptions {
        priority,
        handle,
        classid,
    } = PLACE;
    SchedClassifierLink::attached(DEVICE, side, priority, handle, classid)
        .expect("a filter")
        .detach()
        .expect("taken off");
}

/// Hooks and names of the programs at the device.
fn programs() -> Vec<(&'static str, String)> {
    let device = ifindex(DEVICE);
    let all = pods::programs(&[(device, DEVICE.to_owned())].into()).expect("read");
    let there = all.get(&device).into_iter().flatten();
    there
        .map(|program| (program.hook, program.name.clone()))
        .collect()
}

const BOTH: [&str; 2] = ["clsact, egress", "clsact, ingress"];

fn hooks() -> Vec<&'static str> {
    programs().into_iter().map(|(hook, _)| hook).collect()
}

fn listed() {
    let mut node = Node::by_clsact();
    let wanted = tunnel(2, PORT);
    node.converge(&wanted);
    let name = || "headgate_tunnel".to_owned();
    assert_eq!(programs(), BOTH.map(|hook| (hook, name())));
    // The next agent.
    let former = std::mem::replace(
        &mut node.kernel,
        headgate_kernel::RunningKernel::open(
            &node.instance,
            std::path::Path::new(headgate_kernel::DEFAULT_BPFFS),
        )
        .expect("a kernel"),
    );
    drop(former);
    assert!(node.plan(&wanted).is_empty());
    // Pins that are lost leave programs of which nobody knows the object.
    std::fs::remove_dir_all(node.layout_pins().join("classifiers")).expect("removed");
    assert_eq!(node.observe().tunnel.programs, None);
    node.kernel.attach_by_clsact();
    node.converge(&wanted);
    assert_eq!(hooks(), BOTH);
    // A device that is not ours any more keeps none of our programs.
    ip("link set headgate_vxlan down");
    ip("link set headgate_vxlan alias theirs");
    ip("link set headgate_vxlan name theirs");
    node.kernel.detach_all().expect("taken down");
    ip("link set theirs name headgate_vxlan");
    assert_eq!(hooks(), Vec::<&str>::new());
}

fn mended() {
    let mut node = Node::by_clsact();
    let wanted = tunnel(2, PORT);
    node.converge(&wanted);
    for (side, left) in [
        (TcAttachType::Ingress, BOTH[0]),
        (TcAttachType::Egress, BOTH[1]),
    ] {
        take_off(side);
        assert_eq!(hooks(), [left]);
        assert_eq!(node.observe().tunnel.programs, None);
        let plan = node.converge(&wanted);
        assert!(matches!(plan.steps[0], Step::LowerTunnel), "{plan}");
        assert_eq!(hooks(), BOTH);
    }
}

fn foreign() {
    let mut node = Node::by_clsact();
    let wanted = tunnel(1, PORT);
    node.converge(&wanted);
    let mut object = EbpfLoader::new().load(OBJECT).expect("an object");
    let theirs = object.program_mut("headgate_egress").expect("a program");
    let theirs: &mut SchedClassifier = theirs.try_into().expect("a classifier");
    theirs.load().expect("loaded");
    let mut attach = |place| {
        let options = TcAttachOptions::Netlink(place);
        let attached = theirs.attach_with_options(DEVICE, TcAttachType::Ingress, options);
        attached.expect("attached");
    };
    // In our place, by name; then by a filter of another protocol, which keeps all others from its priority.
    take_off(TcAttachType::Ingress);
    attach(PLACE);
    let said = refused(&mut node, &wanted);
    assert!(said.contains("\"headgate_egress\""), "{said}");
    run("tc", REMEDY);
    tc_filter("dev headgate_vxlan ingress pref 1");
    let said = refused(&mut node, &wanted);
    assert!(said.contains("has another filter"), "{said}");
    run("tc", REMEDY);
    // Others behind ours stay, and see what ours pass.
    attach(NlOptions {
        priority: 2,
        ..PLACE
    });
    node.converge(&wanted);
    assert_eq!(programs().len(), 3);
}

/// By a filter of no program that the kernel has a number for.
fn filtered() {
    let ifindex = veth("p0", "p1");
    let is_over = &AtomicBool::new(false);
    thread::scope(|threads| {
        let _end = SetAtEnd(is_over);
        let (tell, told) = mpsc::channel();
        let (go, gone) = mpsc::channel();
        threads.spawn(move || pod(&tell, &gone, is_over));
        let namespace: String = told.recv().expect("a namespace");
        ip(&format!("link set p1 netns {namespace}"));
        go.send(()).expect("it waits");
        ip(&format!("route add {POD}/32 dev p0"));
        ip(&format!(
            "neigh replace {POD} lladdr {POD_MAC} dev p0 nud permanent"
        ));
        let address = POD.parse().expect("an address");
        let mac = POD_MAC;
        let reached = || headgate_kernel::tunnel::reachable_directly().expect("read");
        assert_eq!(reached(), [(address, LocalPod { ifindex, mac })].into());
        run("tc", "qdisc add dev p0 clsact");
        tc_filter("dev p0 egress pref 9");
        assert!(reached().is_empty(), "{:?}", reached());
        run("tc", "filter del dev p0 egress pref 9");
        assert_eq!(reached().len(), 1);
    });
}

/// A filter of one instruction for IPv4, which passes everything.
fn tc_filter(place: &str) {
    let words = format!("filter add {place} protocol ip bpf da bytecode");
    let words = words.split(' ').chain(["1,6 0 0 0"]);
    let added = std::process::Command::new("tc").args(words).status();
    assert!(added.expect("tc").success());
}

const REMEDY: &str = "filter del dev headgate_vxlan ingress pref 1";

/// Why the tunnel is not in force. What stands in the way is left there, and the device is down meanwhile.
fn refused(node: &mut Node, wanted: &DatapathState) -> String {
    assert_eq!(node.observe().tunnel.programs, None);
    let last = node.run(wanted).into_iter().next_back().expect("a step");
    let Err(KernelError::Unusable { what, remedy }) = last.result else {
        panic!("{:?}", last.result);
    };
    assert!(remedy.contains(&format!("`tc {REMEDY}`")), "{remedy}");
    assert!(!run("ip", "link show headgate_vxlan").contains(",UP"));
    assert_ne!(
        run("tc", "filter show dev headgate_vxlan ingress pref 1"),
        ""
    );
    what
}
