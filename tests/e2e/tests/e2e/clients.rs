//! Programs that people use, by way of the load balancer.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
};

use headgate_e2e_tests::{
    namespace::Namespace,
    node::SOON,
    paths::example,
    services::{NAT_EXAMPLE, ServiceLab, VIRTUAL},
    trials::on_node_with,
    wait::wait_for,
};
use libtest_mimic::Trial;
use serde_json::Value;

pub(crate) fn trials() -> Vec<Trial> {
    let needs_ping: &[&str] = &["ethtool", "ping"];
    vec![
        on_node_with("ping_of_a_service_is_answered", needs_ping, pinged),
        on_node_with(
            "curl_gets_back_what_it_sends",
            &["ethtool", "curl"],
            fetched,
        ),
        on_node_with("iperf3_fills_connections", &["ethtool", "iperf3"], filled),
    ]
}

/// Ways to forward, as resources name them.
pub(crate) const FORWARDINGS: [&str; 2] = ["Nat", "DirectReturn"];

/// Where the backends' servers are, who have the service's addresses only for DirectReturn.
pub(crate) fn ports(forwarding: &str) -> &'static str {
    match forwarding {
        "Nat" => "{name: http, port: 80, targetPort: 8080}",
        _ => "{name: http, port: 80}",
    }
}

/// A lab of so many backends, its service with these ports in force.
pub(crate) fn serving(forwarding: &str, ports: &str, backends: u8) -> ServiceLab {
    serve_on(ServiceLab::new(backends), forwarding, ports)
}

/// The same on a lab whose agent is not started.
pub(crate) fn serve_on(mut lab: ServiceLab, forwarding: &str, ports: &str) -> ServiceLab {
    let documents = example(&format!("services/{NAT_EXAMPLE}"));
    let (pool, _) = documents.split_once("\n---\n").expect("two documents");
    lab.node.write("pool.yaml", pool);
    let weights: Vec<_> = (0..lab.backends.len()).map(|number| (number, 1)).collect();
    lab.node
        .write("web.yaml", &lab.service_by(forwarding, ports, &weights));
    lab.node.start();
    wait_for(SOON, "the service is enforced", || {
        let listed = lab.node.headgate(&["lb", "list", "-o", "json"]).json();
        listed[0]["state"] == "Enforced"
    });
    lab
}

fn pinged() {
    for forwarding in FORWARDINGS {
        let lab = serving(forwarding, "{name: http, port: 80}", 1);
        for address in VIRTUAL {
            let mut ping = lab.client.command("ping");
            ping.args(["-c", "3", "-i", "0.2", "-W", "2", "-s", "1400"]);
            let said = said(ping.arg(address.to_string()));
            assert!(said.contains("3 received"), "{said}");
        }
    }
}

/// What a command prints that must not fail.
pub(crate) fn said(command: &mut Command) -> String {
    let output = command.output().expect("it can be run");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let printed = text(&output.stdout);
    assert!(
        output.status.success(),
        "{command:?}: {printed}{}",
        text(&output.stderr)
    );
    printed
}

pub(crate) const FILES: u16 = 8000;

fn fetched() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let sent: Vec<u8> = (0..1_000_000_u32)
        .map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let file = folder.path().join("sent");
    fs::write(&file, &sent).expect("the folder is ours");
    for forwarding in FORWARDINGS {
        let lab = serving(forwarding, &format!("{{name: files, port: {FILES}}}"), 3);
        for backend in &lab.backends {
            let own = [IpAddr::V4(backend.end.v4), IpAddr::V6(backend.end.v6)];
            for address in own.into_iter().chain(VIRTUAL) {
                let listener = backend
                    .namespace
                    .enter(|| TcpListener::bind((address, FILES)));
                let listener = listener.expect("the address is its own");
                thread::spawn(move || serve(&listener));
            }
        }
        for (address, flow) in VIRTUAL
            .into_iter()
            .flat_map(|a| (0..6).map(move |n| (a, n)))
        {
            let got = folder.path().join(format!("got{flow}"));
            let host = match address {
                IpAddr::V4(address) => address.to_string(),
                IpAddr::V6(address) => format!("[{address}]"),
            };
            let mut curl = lab.client.command("curl");
            curl.args(["-sSf", "--noproxy", "*", "-m", "10", "-H", "Expect:"]);
            curl.arg("-T").arg(&file).arg("-o").arg(&got);
            curl.args(["-w", "%{speed_upload}"]);
            let speed = said(curl.arg(format!("http://{host}:{FILES}/")));
            assert!(fs::read(&got).expect("curl wrote it") == sent);
            if flow == 0 {
                println!("curl to {host} by {forwarding}: {speed} bytes/s each way");
            }
        }
    }
}

/// Answers each PUT with what it brings, until the test's process ends.
pub(crate) fn serve(listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        thread::spawn(move || drop(answer(stream)));
    }
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut line, mut length) = (String::new(), 0);
    while reader.read_line(&mut line)? > 2 {
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body)
}

pub(crate) const IPERF: &str = "5201";
/// Bytes that iperf3 sends.
const BYTES: u64 = 20_000_000;

fn filled() {
    for forwarding in FORWARDINGS {
        // One backend: iperf3's connections for control and data must meet.
        let lab = serving(forwarding, &format!("{{name: iperf, port: {IPERF}}}"), 1);
        let _server = Server::start(&lab.backends[0].namespace);
        for address in VIRTUAL.map(|address| address.to_string()) {
            for (way, arguments) in [("up", &[][..]), ("down", &["-R"])] {
                let result = measured(&lab, &address, arguments);
                let sums = ["sum_sent", "sum_received"].map(|sum| &result["end"][sum]);
                let [sent, received] = sums.map(|sum| sum["bytes"].as_u64().expect("a count"));
                // What is under way at the end, iperf3 does not count.
                assert!(sent >= BYTES && received >= BYTES / 4, "{sums:?}");
                let speed = sums[1]["bits_per_second"].as_f64().expect("a speed") / 1e6;
                println!("iperf3 {way}, {address} by {forwarding}: {speed:.0} Mbit/s");
            }
        }
    }
}

fn measured(lab: &ServiceLab, address: &str, arguments: &[&str]) -> Value {
    let mut iperf = lab.client.command("timeout");
    iperf.args(["30", "iperf3", "-J", "-c", address, "-p", IPERF]);
    iperf.args(["-n", &BYTES.to_string()]).args(arguments);
    serde_json::from_str(&said(&mut iperf)).expect("iperf3 prints JSON")
}

/// An iperf3 that serves; it ends with this value, or with the thread that started it.
pub(crate) struct Server(Child);

impl Server {
    pub(crate) fn start(namespace: &Namespace) -> Self {
        let mut command = namespace.command("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "iperf3", "-s", "-p", IPERF]);
        let child = command.stdout(Stdio::null()).spawn();
        let server = Self(child.expect("nsenter can be run"));
        wait_for(SOON, "iperf3 listens", || {
            let mut sockets = namespace.command("ss");
            said(sockets.args(["-Hltn"])).contains(&format!(":{IPERF} "))
        });
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It fails only where it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
