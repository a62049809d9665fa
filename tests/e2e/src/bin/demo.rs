//! A story for newcomers, with real packets: `make demo`.

use std::{
    net::{IpAddr, Ipv4Addr},
    process::ExitCode,
};

use headgate_e2e_tests::{
    flow::Receiver,
    lab::Lab,
    leftovers,
    paths::{example, example_cidrs},
    said::Said,
};

/// The port that the client sends to.
const PORT: u16 = 9000;
/// Datagrams in each measurement.
const DATAGRAMS: u64 = 1_000;
/// Addresses on the list, and off it, that the client sends from.
const ADDRESSES: usize = 20;

fn main() -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("demo: it makes network namespaces and loads eBPF programs, so run it as root");
        return ExitCode::FAILURE;
    }
    println!("Headgate: a policy file, an eBPF program in the kernel, and real packets.");
    println!(
        "All of it happens in two network namespaces; nothing else on this machine is touched."
    );
    leftovers::sweep();
    let mut story = Story::begin();
    story.before();
    story.policy();
    story.after();
    story.what_headgate_says();
    story.edit();
    story.kill();
    story.detach();
    story.end()
}

struct Story {
    lab: Lab,
    receiver: Receiver,
    listed: Vec<IpAddr>,
    unlisted: Vec<IpAddr>,
    step: u32,
    held: u32,
    failed: u32,
}

impl Story {
    fn begin() -> Self {
        let lab = Lab::new();
        let attackers = example_cidrs("attackers.yaml").into_iter();
        // The first one is the policy's exception.
        let listed = attackers.skip(1).take(ADDRESSES);
        let listed: Vec<IpAddr> = listed
            .map(|cidr| {
                cidr.trim_end_matches("/32")
                    .parse()
                    .expect("single addresses")
            })
            .collect();
        let unlisted = (1..=ADDRESSES).map(|host| Ipv4Addr::new(198, 51, 100, host as u8).into());
        let unlisted: Vec<IpAddr> = unlisted.collect();
        lab.client.add_addresses(listed.iter().chain(&unlisted));
        let mut story = Self {
            receiver: Receiver::open(&lab.node.namespace, &[PORT]),
            lab,
            listed,
            unlisted,
            step: 0,
            held: 0,
            failed: 0,
        };
        story.step("Two network namespaces, joined by a cable (a veth pair)");
        println!(
            "   client  192.168.0.2, and {ADDRESSES} addresses of a list of 1,000 attackers, and {ADDRESSES} others"
        );
        println!("   node    192.168.0.1, receives UDP on port {PORT}");
        story
    }

    fn step(&mut self, title: &str) {
        self.step += 1;
        println!("\n{}. {title}", self.step);
    }

    fn check(&mut self, what: &str, holds: bool) {
        if holds {
            self.held += 1;
            println!("   ok: {what}");
        } else {
            self.failed += 1;
            println!("   FAILED: {what}");
        }
    }

    /// How many of [`DATAGRAMS`] arrive.
    fn measure(&self, who: &str, sources: &[IpAddr]) -> u64 {
        let client = &self.lab.client;
        let arrived = client.send(DATAGRAMS, sources, PORT, &self.receiver);
        println!("   from {who:<24} {DATAGRAMS:>5} sent {arrived:>5} arrived");
        arrived
    }

    fn listed(&self) -> u64 {
        self.measure(&format!("{ADDRESSES} listed addresses"), &self.listed)
    }

    fn unlisted(&self) -> u64 {
        self.measure(&format!("{ADDRESSES} other addresses"), &self.unlisted)
    }

    fn headgate(&self, arguments: &[&str]) -> Said {
        println!("   $ headgate {}", arguments.join(" "));
        let said = self.lab.node.headgate(arguments);
        for line in said.output.lines().chain(said.errors.lines()) {
            println!("   {line}");
        }
        said
    }

    fn before(&mut self) {
        self.step("Traffic before");
        let (listed, unlisted) = (self.listed(), self.unlisted());
        self.check(
            "everything arrives",
            listed == DATAGRAMS && unlisted == DATAGRAMS,
        );
    }

    fn policy(&mut self) {
        self.step("A policy and its list, in a folder: examples/policies/block-list.yaml");
        let policy = example("policies/block-list.yaml");
        policy.lines().for_each(|line| println!("   | {line}"));
        let list = example("data/attackers.yaml");
        println!("   and examples/data/attackers.yaml:");
        list.lines()
            .take(13)
            .for_each(|line| println!("   | {line}"));
        println!(
            "   | [and {} more]",
            example_cidrs("attackers.yaml").len() - 3
        );
        self.lab.node.write("block-list.yaml", &policy);
        self.lab.node.write("attackers.yaml", &list);
    }

    fn after(&mut self) {
        self.step("The agent is started on the node, and the traffic goes on");
        println!("   $ headgate agent --source policies/ &");
        println!("   (it and the commands below get an --instance and a --state-dir of this demo)");
        self.lab.node.start();
        let (listed, unlisted) = (self.listed(), self.unlisted());
        self.check("nothing arrives from the listed addresses", listed == 0);
        self.check("everything arrives from the others", unlisted == DATAGRAMS);
        let counted = self.lab.node.counters()["block-list/attackers"];
        self.check(
            &format!("the rule's counter in the kernel says {counted}, as many as were sent"),
            counted == DATAGRAMS,
        );
    }

    fn what_headgate_says(&mut self) {
        self.step("What Headgate says of it, read from the kernel");
        let status = self.headgate(&["status"]);
        println!();
        let counters = self.headgate(&["policy", "counters"]);
        self.check("both exit with 0", status.code == 0 && counters.code == 0);
    }

    fn edit(&mut self) {
        self.step("The policy is edited: one of the listed addresses is let through");
        let address = self.listed[0];
        let old = example("policies/block-list.yaml");
        let new = old.replace(
            "except: [1.0.164.165/32]",
            &format!("except: [1.0.164.165/32, {address}/32]"),
        );
        for (old, new) in old.lines().zip(new.lines()).filter(|(old, new)| old != new) {
            println!("   -{old}\n   +{new}");
        }
        let took = self.lab.node.apply("block-list.yaml", &new);
        println!("   live {} ms after the file was saved", took.as_millis());
        let one = self.measure(&address.to_string(), &[address]);
        let rest = self.measure("the other listed ones", &self.listed[1..]);
        self.check(
            "everything arrives from that one, nothing from the rest",
            one == DATAGRAMS && rest == 0,
        );
    }

    fn kill(&mut self) {
        self.step("The agent is killed; enforcement does not depend on it");
        println!("   $ kill -9 {}", self.lab.node.pid());
        self.lab.node.kill();
        let rest = self.measure("the other listed ones", &self.listed[1..]);
        self.check("nothing arrives", rest == 0);
        let said = self.lab.node.headgate(&["status"]);
        let agent = said.output.lines().find(|line| line.starts_with("Agent:"));
        println!("   {}", agent.unwrap_or("Agent: ?"));
        self.check(
            "`headgate status` finds everything enforced",
            said.code == 0,
        );
    }

    fn detach(&mut self) {
        self.step("Everything is taken off");
        let said = self.headgate(&["detach"]);
        let listed = self.listed();
        self.check(
            "everything arrives again",
            said.code == 0 && listed == DATAGRAMS,
        );
    }

    fn end(mut self) -> ExitCode {
        self.step("Cleaned up");
        let node = &self.lab.node;
        let pins = node.pins();
        let namespaces = [node.namespace.path(), self.lab.client.namespace.path()];
        let Self {
            lab,
            receiver,
            held,
            failed,
            ..
        } = self;
        drop((receiver, lab));
        let gone = |path: &std::path::PathBuf| !path.exists();
        let clean = gone(&pins) && namespaces.iter().all(gone);
        let (held, failed) = if clean {
            (held + 1, failed)
        } else {
            (held, failed + 1)
        };
        let word = if clean { "ok" } else { "FAILED" };
        println!("   {word}: nothing is left in the kernel or on disk");
        if failed == 0 {
            println!("\ndemo: all {held} checks hold");
            ExitCode::SUCCESS
        } else {
            println!("\ndemo: {failed} of {} checks do not hold", held + failed);
            ExitCode::FAILURE
        }
    }
}
