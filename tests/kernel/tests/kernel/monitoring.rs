//! Verdicts told as they happen.

use std::num::NonZeroU32;

use headgate_datapath::{kernel::KernelError, state::Block};
use headgate_kernel::monitor::{Event, EventCause, Filter, Losses, Monitor, Verdicts, now};
use headgate_kernel_tests::{
    blocks::{default_of, large_rule_of, rule_of},
    frames::{XDP_DROP, arp, udp4, udp6},
    network::{ifindex, quiet, veth},
    node::{Node, port, wanted},
    trials::in_kernel,
};
use headgate_layout::{
    monitor::{CAPTURED, RING_BYTES},
    verdict::{Action, Reason},
};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        in_kernel("events_are_the_frames_and_their_verdicts", events),
        in_kernel("what_is_not_asked_for_is_not_told", filters),
        in_kernel("without_a_monitor_nothing_is_told_nor_lost", off),
        in_kernel("the_rate_is_limited_and_what_is_left_out_counted", limited),
        in_kernel("a_full_ring_is_counted_apart", full),
        in_kernel("a_monitor_that_died_is_not_told_for_long", dead),
        in_kernel("a_program_that_is_loaded_meanwhile_tells_as_well", loaded),
        in_kernel("one_monitor_at_a_time", one),
    ]
}

const ALL: Verdicts = Verdicts {
    dropped: true,
    allowed: true,
    not_ip: true,
};
const NONE: Verdicts = Verdicts {
    dropped: false,
    allowed: false,
    not_ip: false,
};

fn filter(verdicts: Verdicts) -> Filter {
    Filter {
        verdicts,
        counter: None,
        rate: NonZeroU32::new(1_000_000).expect("not 0"),
    }
}

/// Port 0 drops by rule 7, port 255 allows by default.
fn node() -> (Node, [Block; 2]) {
    let mut node = Node::new();
    quiet();
    let interface = veth("v0", "v1");
    let blocks = [rule_of(Action::Drop, 7), default_of(Action::Allow)];
    let ports = [
        (port(0), interface, &blocks[0]),
        (port(255), ifindex("v1"), &blocks[1]),
    ];
    node.converge(&wanted(&ports));
    (node, blocks)
}

fn frame4() -> Vec<u8> {
    udp4([198, 51, 100, 7].into())
}

fn all_of(monitor: &mut Monitor) -> Vec<Event> {
    std::iter::from_fn(|| monitor.next_event()).collect()
}

fn events() {
    let (node, blocks) = node();
    let mut monitor = node.kernel.monitor(&filter(ALL)).expect("a monitor");
    let before = now();
    let mut long = udp6("2001:db8::7".parse().expect("an address"));
    long.resize(1000, 0xee);
    let frames = [
        (port(0), frame4()),
        (port(255), long.clone()),
        (port(0), arp()),
        (port(0), frame4()[..40].to_vec()),
    ];
    for (port, frame) in &frames {
        let _ = node.verdict(*port, frame);
    }
    let events = all_of(&mut monitor);
    let told: Vec<_> = events
        .iter()
        .map(|event| (event.port, event.action, event.cause, event.length))
        .collect();
    let reason = EventCause::Reason;
    assert_eq!(
        told,
        [
            (Some(port(0)), Action::Drop, EventCause::Rule(7), 50),
            (
                Some(port(255)),
                Action::Allow,
                reason(Reason::DefaultAllow),
                70
            ),
            (Some(port(0)), Action::Allow, reason(Reason::NotIp), 42),
            (Some(port(0)), Action::Drop, reason(Reason::Malformed), 40),
        ]
    );
    for (event, (_, frame)) in events.iter().zip(&frames) {
        let begin = &frame[..frame.len().min(CAPTURED as usize)];
        assert_eq!(event.frame, begin);
        let apart = event.time.abs_diff(before).as_millis();
        assert!(apart < 1000, "{apart} ms");
    }
    let names = blocks.map(|block| block.digest().bytes()[..8].to_vec());
    let tables: Vec<_> = events
        .iter()
        .map(|event| event.tables.map(Vec::from))
        .collect();
    let [first, second] = names.map(Some);
    assert_eq!(tables, [first, second, None, None]);
    assert_eq!(monitor.losses().expect("read"), Losses::default());
}

fn filters() {
    let (node, _) = node();
    let mut monitor = node.kernel.monitor(&filter(NONE)).expect("a monitor");
    let mut told = |filter: &Filter| {
        monitor.renew(filter).expect("renewed");
        let _ = node.verdict(port(0), &frame4());
        let _ = node.verdict(port(255), &frame4());
        let _ = node.verdict(port(0), &arp());
        let causes = all_of(&mut monitor).into_iter().map(|event| event.cause);
        causes.collect::<Vec<_>>()
    };
    let rule = EventCause::Rule(7);
    let [default, not_ip] = [Reason::DefaultAllow, Reason::NotIp].map(EventCause::Reason);
    let only = |verdicts| filter(verdicts);
    assert_eq!(told(&only(NONE)), []);
    let dropped = Verdicts {
        dropped: true,
        ..NONE
    };
    assert_eq!(told(&only(dropped)), [rule]);
    let allowed = Verdicts {
        allowed: true,
        ..NONE
    };
    assert_eq!(told(&only(allowed)), [default]);
    assert_eq!(told(&only(ALL)), [rule, default, not_ip]);
    let by_rule = |counter| Filter {
        counter: Some(counter),
        ..filter(ALL)
    };
    assert_eq!(told(&by_rule(7)), [rule]);
    // The number of a reason is no counter.
    assert_eq!(told(&by_rule(Reason::NotIp as u32)), []);
}

fn off() {
    let (node, _) = node();
    drop(node.kernel.monitor(&filter(ALL)).expect("a monitor"));
    let run = node.kernel.run_program(port(0), &frame4(), 10_000);
    run.expect("run");
    let mut monitor = node.kernel.monitor(&filter(NONE)).expect("a monitor");
    assert_eq!(all_of(&mut monitor), []);
    let _ = node.verdict(port(0), &frame4());
    assert_eq!(all_of(&mut monitor), []);
    assert_eq!(monitor.losses().expect("read"), Losses::default());
}

fn limited() {
    let (node, _) = node();
    let slow = Filter {
        rate: NonZeroU32::new(100).expect("not 0"),
        ..filter(ALL)
    };
    let mut monitor = node.kernel.monitor(&slow).expect("a monitor");
    let run = node.kernel.run_program(port(0), &frame4(), 1_000);
    run.expect("run");
    let told = all_of(&mut monitor).len() as u64;
    // A quarter of a second is saved up; the run takes no more than that.
    assert!((25..=50).contains(&told), "{told}");
    let losses = monitor.losses().expect("read");
    assert_eq!((losses.limited, losses.full), (1_000 - told, 0));
    // A new one begins to count anew.
    drop(monitor);
    let monitor = node.kernel.monitor(&slow).expect("a monitor");
    assert_eq!(monitor.losses().expect("read"), Losses::default());
}

fn full() {
    let (node, _) = node();
    let mut monitor = node.kernel.monitor(&filter(ALL)).expect("a monitor");
    let run = node.kernel.run_program(port(0), &frame4(), 4_000);
    run.expect("run");
    let told = all_of(&mut monitor);
    assert!(told.len() > RING_BYTES as usize / 256, "{}", told.len());
    let losses = monitor.losses().expect("read");
    assert_eq!(losses.limited, 0);
    assert_eq!(losses.full, 4_000 - told.len() as u64);
    let _ = node.verdict(port(0), &frame4());
    assert_eq!(all_of(&mut monitor).len(), 1, "it has room again");
}

fn dead() {
    let (node, _) = node();
    let monitor = node.kernel.monitor(&filter(ALL)).expect("a monitor");
    // As if killed: neither ended nor renewed.
    let mut monitor = std::mem::ManuallyDrop::new(monitor);
    assert_eq!(node.verdict(port(0), &frame4()), XDP_DROP);
    assert_eq!(all_of(&mut monitor).len(), 1);
    std::thread::sleep(std::time::Duration::from_millis(3_100));
    for _ in 0..3 {
        assert_eq!(node.verdict(port(0), &frame4()), XDP_DROP);
    }
    assert_eq!(all_of(&mut monitor), []);
    let words = std::process::Command::new("bpftool")
        .args(["map", "lookup", "pinned"])
        .arg(node.layout_pins().join("MONITORED"))
        .args(["key", "0", "0", "0", "0"])
        .output()
        .expect("bpftool");
    let words = String::from_utf8_lossy(&words.stdout).into_owned();
    assert!(
        words.contains("00 00 00 00") || words.contains("\"value\": 0"),
        "{words}"
    );
    drop(std::mem::ManuallyDrop::into_inner(monitor));
}

fn loaded() {
    let (mut node, _) = node();
    let mut monitor = node.kernel.monitor(&filter(ALL)).expect("a monitor");
    let large = large_rule_of(Action::Drop, 8, 1 << 20);
    node.converge(&wanted(&[(port(0), ifindex("v0"), &large)]));
    monitor.renew(&filter(ALL)).expect("renewed");
    let _ = node.verdict(port(0), &frame4());
    let told = all_of(&mut monitor);
    let name = large.digest().bytes()[..8].to_vec();
    let told: Vec<_> = told
        .iter()
        .map(|event| (event.cause, event.tables))
        .collect();
    let tables = name.try_into().ok();
    assert_eq!(told, [(EventCause::Rule(8), tables)]);
}

fn one() {
    let (node, _) = node();
    let first = node.kernel.monitor(&filter(ALL)).expect("a monitor");
    let Err(refused) = node.kernel.monitor(&filter(ALL)) else {
        panic!("two monitors");
    };
    assert!(matches!(refused, KernelError::Unusable { .. }), "{refused}");
    let pid = std::process::id();
    let words = refused.to_string();
    assert!(words.contains(&format!("runs (pid {pid})")), "{words}");
    drop(first);
    node.kernel.monitor(&filter(ALL)).expect("a monitor");
}
