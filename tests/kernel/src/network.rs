//! A network namespace for each test, which ends with the test's thread.

use std::process::Command;

use headgate_datapath::state::Ifindex;
use headgate_kernel::interfaces::interfaces;

/// Puts this thread into a new network namespace. It and all in it go away with the thread, so that
/// a test that panics leaves nothing.
///
/// # Panics
/// Where that is not permitted.
pub fn enter() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a new network namespace");
    ip("link set lo up");
}

/// Keeps interfaces that are made from here on from sending anything of their own.
///
/// # Panics
/// Where IPv6 cannot be turned off.
pub fn quiet() {
    let switch = "/proc/sys/net/ipv6/conf/default/disable_ipv6";
    std::fs::write(switch, "1").expect("IPv6 off");
}

/// Makes a pair of interfaces that are up, and gives the first one's number.
#[must_use]
pub fn veth(name: &str, peer: &str) -> Ifindex {
    ip(&format!("link add {name} type veth peer name {peer}"));
    ip(&format!("link set {name} up"));
    ip(&format!("link set {peer} up"));
    ifindex(name)
}

/// The number of an interface.
///
/// # Panics
/// Where there is no such interface.
#[must_use]
pub fn ifindex(name: &str) -> Ifindex {
    let found = interfaces().expect("interfaces");
    let facts = found.iter().find(|facts| facts.name == name);
    facts
        .unwrap_or_else(|| panic!("no interface {name}"))
        .ifindex
}

/// Runs `ip` in this thread's namespace.
///
/// # Panics
/// Where it fails.
pub fn ip(arguments: &str) {
    run("ip", arguments);
}

/// Runs a program in this thread's namespace and gives what it prints.
///
/// # Panics
/// Where it fails.
pub fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program)
        .args(arguments.split_whitespace())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
