//! The table of flows beside a naive model of it.

use std::collections::HashMap;

use headgate_layout::{
    flows::{FLOWS, Flow, ROW_WORDS, ROWS, Shared, State},
    services::{Backend, NAT, Way, mapped},
};
use headgate_packet::flows::{
    ESTABLISHED, Ends, FlowTable as _, HostFlows, NEW, Segment, advance, begin, end, of_client,
    of_reply,
};
use proptest::prelude::*;
use zerocopy::FromZeros as _;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const TCP: u8 = 6;

struct Table {
    flows: Vec<Flow>,
    index: Vec<Shared<u64>>,
    now: u32,
}

impl Table {
    fn new() -> Self {
        Self {
            flows: (0..FLOWS).map(|_| Flow::new_zeroed()).collect(),
            index: (0..ROWS * ROW_WORDS)
                .map(|_| Shared::new_zeroed())
                .collect(),
            now: 1,
        }
    }

    fn at_this_moment(&self) -> HostFlows<'_> {
        HostFlows {
            flows: &self.flows,
            index: &self.index,
            now: self.now,
        }
    }

    /// The record of a client's packet, which begins a flow if it belongs to none.
    fn meets(&self, client: u32) -> Option<u32> {
        let table = self.at_this_moment();
        let ends = from_client(client);
        let known = of_client(&table, &ends, ends.hash());
        match known.is_some() {
            true => Some(known.number()),
            false => begin(&table, &ends, &backend(client), Way::default()),
        }
    }

    fn says(&self, number: u32, is_reply: bool, flags: u8) {
        let table = self.at_this_moment();
        let flow = table.flow(number).expect("a record");
        let segment = Segment {
            flags,
            sequence: 7,
            acknowledgement: 8,
        };
        advance(&table, flow, is_reply, Some(segment));
    }

    fn connects(&self, client: u32) -> u32 {
        let number = self.meets(client).expect("there is room");
        self.says(number, false, SYN);
        self.says(number, true, SYN | ACK);
        self.says(number, false, ACK);
        number
    }

    /// What a backend sees of a flow, and its state.
    fn seen(&self, number: u32) -> (Ends, State) {
        let flow = &self.flows[number as usize];
        let ends = Ends {
            source: flow.backend.get(),
            destination: flow.local.get(),
            source_port: flow.backend_port.get(),
            destination_port: flow.local_port.get(),
            protocol: TCP,
        };
        let guard = headgate_layout::flows::Guard(flow.guard.get());
        (ends, guard.state())
    }
}

fn from_client(client: u32) -> Ends {
    Ends {
        source: mapped(client),
        destination: mapped(0xc000_0201),
        source_port: client as u16,
        destination_port: 80,
        protocol: TCP,
    }
}

/// Few backends, so that flows meet at them.
fn backend(client: u32) -> Backend {
    Backend {
        address: mapped(0x0a00_0000 + client % 3),
        local: mapped(0x0a00_00ff),
        port: 8080,
        forwarding: NAT,
        ..Backend::default()
    }
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Connects(u32),
    Asks(u32),
    Ends(u32),
    Waits(u32),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..200u32).prop_map(Event::Connects),
        4 => (0..200u32).prop_map(Event::Asks),
        1 => (0..200u32).prop_map(Event::Ends),
        1 => (0..NEW * 2).prop_map(Event::Waits),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_flow_keeps_what_it_was_given(events in prop::collection::vec(event(), 1..600)) {
        let mut table = Table::new();
        // What a client was given, and until when it is its own.
        let mut given: HashMap<u32, (u32, Ends, u32)> = HashMap::new();
        for event in events {
            given.retain(|_, (.., until)| *until > table.now);
            match event {
                Event::Connects(client) | Event::Asks(client) => {
                    let number = match event {
                        Event::Connects(_) => table.connects(client),
                        _ => table.meets(client).expect("there is room"),
                    };
                    table.says(number, false, ACK);
                    let (ends, state) = table.seen(number);
                    let lifetime = if state == State::Established { ESTABLISHED } else { NEW };
                    let now = (number, ends, table.now + lifetime);
                    let before = given.insert(client, now).unwrap_or(now);
                    prop_assert_eq!((before.0, before.1), (number, ends));
                }
                Event::Ends(client) => if let Some((number, ..)) = given.remove(&client) {
                    let host = table.at_this_moment();
                    end(&host, host.flow(number).expect("a record"));
                    let ends = from_client(client);
                    prop_assert!(!of_client(&host, &ends, ends.hash()).is_some());
                },
                Event::Waits(time) => table.now += time,
            }
        }
        given.retain(|_, (.., until)| *until > table.now);
        let mut seen = HashMap::new();
        for (client, (number, ends, _)) in given {
            let reply = of_reply(&table.at_this_moment(), &ends);
            prop_assert!(reply.is_reply());
            prop_assert_eq!(reply.number(), number);
            let twin = seen.insert((ends.source, ends.destination_port), client);
            prop_assert_eq!(twin, None, "two flows to a backend share a port");
        }
    }
}

#[test]
fn a_flood_takes_the_longest_silent_and_no_confirmed_one() {
    let mut table = Table::new();
    let held: Vec<_> = (0..500)
        .map(|client| (client, table.connects(client)))
        .collect();
    let waiting = table.meets(900_000).expect("there is room");
    table.says(waiting, false, SYN);
    table.now += 1;
    for client in 1_000_000..1_000_000 + 2 * FLOWS {
        if let Some(number) = table.meets(client) {
            table.says(number, false, SYN);
        }
    }
    for (client, number) in &held {
        assert_eq!(table.meets(*client), Some(*number));
        assert_eq!(table.seen(*number).1, State::Established);
    }
    let ends = from_client(900_000);
    let known = of_client(&table.at_this_moment(), &ends, ends.hash());
    assert!(!known.is_some(), "it had waited longest");
    // Where nothing is heard for two hours a flood may have it all.
    table.now += ESTABLISHED + 1;
    let taken = (0..FLOWS / 2).filter_map(|client| table.meets(5_000_000 + client));
    assert!(taken.count() as u32 > FLOWS / 2 - 100);
}

#[test]
fn only_an_acknowledgement_of_the_answer_confirms() {
    let table = Table::new();
    let number = table.meets(1).expect("there is room");
    table.says(number, false, SYN);
    table.says(number, false, ACK);
    assert_eq!(
        table.seen(number).1,
        State::New,
        "the backend has said nothing"
    );
    table.says(number, true, SYN | ACK);
    let host = table.at_this_moment();
    let flow = host.flow(number).expect("a record");
    let guess = Segment {
        flags: ACK,
        sequence: 7,
        acknowledgement: 9,
    };
    advance(&host, flow, false, Some(guess));
    assert_eq!(table.seen(number).1, State::Answered, "a guess");
    table.says(number, false, ACK);
    assert_eq!(table.seen(number).1, State::Established);
}
