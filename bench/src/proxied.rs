//! A client's time with a service by Nat, beside the same through rules as kube-proxy writes them for nftables: to
//! three backends on other hosts, in turn.

use std::{
    net::UdpSocket,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use headgate_e2e_tests::{
    namespace::run,
    services::{ServiceLab, TARGET_PORT, VIRTUAL, ask, exchange},
};

use crate::{compare::compare, table::Table};

const BACKENDS: u8 = 3;
/// Connections that are made, asked one byte and closed in one round.
const CONNECTIONS: usize = 400;
/// Questions of 64 bytes in one round.
const QUESTIONS: usize = 4_000;
/// Bytes each way by one connection in one round.
const BYTES: usize = 32 << 20;

/// Adds the rows.
pub fn measure(table: &mut Table) -> anyhow::Result<()> {
    let (ours, theirs) = (by_us()?, by_rules()?);
    let rows: [(&str, Measured); 3] = [
        (
            "a connection, made, asked and closed: by Nat over nft's",
            connections,
        ),
        ("64 bytes by UDP and back, the same", questions),
        ("20,000 bytes by TCP and back, the same", stream),
    ];
    for (what, measured) in rows {
        let target = Some(100.0);
        compare(
            table,
            what,
            target,
            || measured(&ours),
            || measured(&theirs),
        )?;
    }
    Ok(())
}

type Measured = fn(&ServiceLab) -> anyhow::Result<Duration>;

fn by_us() -> anyhow::Result<ServiceLab> {
    let mut lab = ServiceLab::new(BACKENDS);
    let backends: Vec<(usize, u16)> = (0..BACKENDS.into()).map(|number| (number, 1)).collect();
    let service = lab.nat_service(&backends);
    lab.node.read_from_directory("balancer");
    let pool = format!(
        "apiVersion: headgate.dev/v1alpha1\nkind: AddressPool\nmetadata: {{name: all}}\nspec: {{cidrs: [{}/32, \"{}/128\"]}}\n",
        VIRTUAL[0], VIRTUAL[1]
    );
    lab.node
        .write("service.yaml", &format!("{pool}---\n{service}"));
    lab.node.start();
    reached(&lab)?;
    Ok(lab)
}

/// What pkg/proxy/nftables of Kubernetes makes of such a Service: a map from its address to its chain, there one of
/// the endpoints by chance, and masquerade for all that comes from outside.
fn by_rules() -> anyhow::Result<ServiceLab> {
    let lab = ServiceLab::new(BACKENDS);
    let node = &lab.node.namespace;
    run(node
        .command("sysctl")
        .args(["-qw", "net.ipv4.ip_forward=1"]));
    let endpoints = (0..).zip(&lab.backends);
    let (mut chains, mut choices) = (String::new(), Vec::new());
    for (number, backend) in endpoints {
        let address = backend.end.v4;
        choices.push(format!("{number} : goto endpoint-{number}"));
        chains.push_str(&format!(
            "chain endpoint-{number} {{ meta l4proto {{ tcp, udp }} dnat to {address}:{TARGET_PORT}; }}\n"
        ));
    }
    let (service, choices) = (VIRTUAL[0], choices.join(", "));
    let rules = format!(
        "table ip kube-proxy {{
{chains}
chain mark-for-masquerade {{ mark set mark or 0x4000; }}
chain public {{ numgen random mod {BACKENDS} vmap {{ {choices} }}; }}
chain external {{
    jump mark-for-masquerade
    goto public
}}
map service-ips {{
    type ipv4_addr . inet_proto . inet_service : verdict
    elements = {{ {service} . tcp . 80 : goto external, {service} . udp . 53 : goto external }}
}}
chain services {{ ip daddr . meta l4proto . th dport vmap @service-ips; }}
chain nat-prerouting {{ type nat hook prerouting priority dstnat; jump services; }}
chain masquerading {{
    mark and 0x4000 == 0 return
    mark set mark xor 0x4000
    masquerade fully-random
}}
chain nat-postrouting {{ type nat hook postrouting priority srcnat; jump masquerading; }}
}}
"
    );
    let mut nft = node.command("nft");
    let mut nft = nft.args(["-f", "-"]).stdin(Stdio::piped()).spawn()?;
    let input = nft.stdin.take().context("nft reads its rules")?;
    std::io::Write::write_all(&mut { input }, rules.as_bytes())?;
    ensure!(nft.wait()?.success(), "nft refuses its rules");
    reached(&lab)?;
    Ok(lab)
}

/// Waits until the service answers.
fn reached(lab: &ServiceLab) -> anyhow::Result<()> {
    let patience = Instant::now() + Duration::from_secs(20);
    while lab
        .connect(0)
        .and_then(|mut stream| ask(&mut stream))
        .is_err()
    {
        ensure!(Instant::now() < patience, "the service does not answer");
    }
    Ok(())
}

fn connections(lab: &ServiceLab) -> anyhow::Result<Duration> {
    let started = Instant::now();
    for _ in 0..CONNECTIONS {
        ask(&mut lab.connect(0)?)?;
    }
    Ok(started.elapsed())
}

fn questions(lab: &ServiceLab) -> anyhow::Result<Duration> {
    let socket = lab.client.enter(|| UdpSocket::bind("0.0.0.0:0"))?;
    socket.connect((VIRTUAL[0], 53))?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    let started = Instant::now();
    for _ in 0..QUESTIONS {
        socket.send(&[0; 64])?;
        socket.recv(&mut [0; 64]).context("an answer is lost")?;
    }
    Ok(started.elapsed())
}

fn stream(lab: &ServiceLab) -> anyhow::Result<Duration> {
    let mut stream = lab.connect(0)?;
    let started = Instant::now();
    exchange(&mut stream, BYTES)?;
    Ok(started.elapsed())
}
