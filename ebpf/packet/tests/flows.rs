//! The table of flows beside a naive model of it.

use std::collections::HashMap;

use headgate_layout::{
    flows::{FLOWS, Flow, Guard, ROW_WORDS, ROWS, Shared, State},
    services::{Backend, NAT, Way, mapped},
};
use headgate_packet::{
    aging::{ANSWERED, CLOSING, ESTABLISHED_TCP, NEW, Segment, advance, begins},
    flows::{
        Asking, Ends, FlowTable as _, HostFlows, Known, begin, of_client, of_reply, of_reply_here,
    },
};
use proptest::prelude::*;
use zerocopy::FromZeros as _;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
const TCP: u8 = 6;

struct Table {
    flows: Vec<Flow>,
    index: Vec<Shared<u64>>,
    now: u32,
}

impl Table {
    fn new() -> Self {
        let words = ROWS * ROW_WORDS;
        Self {
            flows: (0..FLOWS).map(|_| Flow::new_zeroed()).collect(),
            index: (0..words).map(|_| Shared::new_zeroed()).collect(),
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

    /// The flow that a client's packet with these flags belongs to.
    fn known(&self, client: u32, flags: u8) -> Known {
        let ends = from_client(client);
        let asking = Asking {
            hash: ends.hash(),
            begins: begins(flags),
            backend: None,
        };
        of_client(&self.at_this_moment(), &ends, &asking)
    }

    /// The record of a client's packet, which begins a flow if it belongs to none, and follows it.
    fn asks(&self, client: u32, flags: u8) -> Option<u32> {
        let table = self.at_this_moment();
        let known = match self.known(client, flags) {
            Known::NONE => begin(
                &table,
                &from_client(client),
                &backend(client),
                Way::default(),
            )?,
            known => known,
        };
        self.says(known, flags, 8);
        Some(known.number())
    }

    /// The backend of a record answers.
    fn answers(&self, number: u32, flags: u8) {
        let known = of_reply(&self.at_this_moment(), &self.seen(number).0);
        assert_eq!(known.number(), number);
        self.says(known, flags, 0);
    }

    fn says(&self, known: Known, flags: u8, acknowledgement: u32) {
        let table = self.at_this_moment();
        let flow = table.flow(known.number()).expect("a record");
        let segment = Segment {
            flags,
            sequence: 7,
            acknowledgement,
        };
        advance(&table, flow, known, Some(segment));
    }

    fn connects(&self, client: u32) -> u32 {
        let number = self.asks(client, SYN).expect("there is room");
        self.answers(number, SYN | ACK);
        assert_eq!(self.asks(client, ACK), Some(number));
        number
    }

    /// What the node sees of a backend's reply in a flow, and the flow's state.
    fn seen(&self, number: u32) -> (Ends, State) {
        let flow = &self.flows[number as usize];
        let ends = Ends {
            source: flow.backend.get(),
            destination: flow.local.get(),
            source_port: flow.backend_port.get(),
            destination_port: flow.local_port.get(),
            protocol: TCP,
        };
        (ends, Guard(flow.guard.get()).state())
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

/// Clients whose flows have one row.
fn of_one_row() -> impl Iterator<Item = u32> {
    (0..).filter(|client| from_client(*client).hash() as u32 & (ROWS - 1) == 77)
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Connects(usize),
    Asks(usize),
    Ends(usize),
    Waits(u32),
}

/// Six clients of one row, and as many of others.
fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..12usize).prop_map(Event::Connects),
        4 => (0..12usize).prop_map(Event::Asks),
        2 => (0..12usize).prop_map(Event::Ends),
        1 => (0..NEW * 2).prop_map(Event::Waits),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_flow_keeps_what_it_was_given(events in prop::collection::vec(event(), 1..600)) {
        let clients: Vec<u32> = of_one_row().take(6).chain(10_000_001..10_000_007).collect();
        let mut table = Table::new();
        // What a client was given, and until when it is its own.
        let mut given: HashMap<u32, (u32, Ends, u32)> = HashMap::new();
        for event in events {
            given.retain(|_, (.., until)| *until > table.now);
            match event {
                Event::Connects(client) | Event::Asks(client) => {
                    let client = clients[client];
                    let number = match event {
                        Event::Connects(_) => table.connects(client),
                        _ => table.asks(client, ACK).expect("there is room"),
                    };
                    let (ends, state) = table.seen(number);
                    if state == State::Closing {
                        // The next SYN begins another.
                        continue;
                    }
                    let lifetime = if state == State::Established { ESTABLISHED_TCP } else { NEW };
                    let now = (number, ends, table.now + lifetime);
                    let before = given.insert(client, now).unwrap_or(now);
                    prop_assert_eq!((before.0, before.1), (number, ends));
                }
                Event::Ends(client) => if given.contains_key(&clients[client]) {
                    let client = clients[client];
                    table.connects(client);
                    table.asks(client, FIN | ACK);
                    prop_assert!(table.known(client, ACK).is_some(), "until its time");
                    prop_assert!(!table.known(client, SYN).is_some(), "a port used again");
                    given.remove(&client);
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
    let waiting = table.asks(900_000, SYN).expect("there is room");
    table.now += 1;
    for client in 1_000_000..1_000_000 + 2 * FLOWS {
        table.asks(client, SYN);
    }
    for (client, number) in &held {
        assert_eq!(table.asks(*client, ACK), Some(*number));
        assert_eq!(table.seen(*number).1, State::Established);
    }
    assert_ne!(
        table.known(900_000, ACK).number(),
        waiting,
        "it had waited longest"
    );
    // Where nothing is heard for two hours a flood may have it all.
    table.now += ESTABLISHED_TCP + 1;
    assert!(!table.known(held[0].0, ACK).is_some());
    let taken = (0..FLOWS / 2).filter_map(|client| table.asks(5_000_000 + client, SYN));
    assert!(taken.count() as u32 > FLOWS / 2 - 100);
}

#[test]
fn who_waits_for_a_handshake_goes_after_who_has_no_answer() {
    let table = Table::new();
    let waiting: Vec<_> = (0..500)
        .map(|client| {
            let number = table.asks(client, SYN).expect("there is room");
            table.answers(number, SYN | ACK);
            (client, number)
        })
        .collect();
    for client in 1_000_000..1_000_000 + 2 * FLOWS {
        table.asks(client, SYN);
    }
    let lost = waiting
        .iter()
        .filter(|(client, number)| table.asks(*client, ACK) != Some(*number));
    assert!(lost.count() < 5);
}

#[test]
fn only_an_acknowledgement_of_the_answer_confirms() {
    let table = Table::new();
    let number = table.asks(1, SYN).expect("there is room");
    table.asks(1, ACK);
    assert_eq!(
        table.seen(number).1,
        State::New,
        "the backend has said nothing"
    );
    table.answers(number, ACK);
    table.says(table.known(1, ACK), ACK, 0);
    assert_eq!(
        table.seen(number).1,
        State::New,
        "that was no answer to a SYN"
    );
    table.answers(number, SYN | ACK);
    table.says(table.known(1, ACK), ACK, 9);
    assert_eq!(table.seen(number).1, State::Answered, "a guess");
    table.asks(1, RST);
    assert_eq!(
        table.seen(number).1,
        State::Answered,
        "who may have forged both"
    );
    table.asks(1, ACK);
    assert_eq!(table.seen(number).1, State::Established);
}

#[test]
fn connections_that_have_ended_make_room() {
    let mut table = Table::new();
    // More than a backend's port has ports of the node.
    for client in (0..3 * 30_000).step_by(3) {
        let number = table.connects(client);
        table.asks(client, FIN | ACK);
        assert_eq!(table.seen(number).1, State::Closing);
    }
    table.now += CLOSING.max(ANSWERED) + 1;
    assert!(!table.known(0, ACK).is_some());
}

/// A pod on the node, by any service.
fn here() -> Backend {
    Backend {
        way: Way::TO_STACK,
        address: mapped(0x0a00_0001),
        port: 8080,
        forwarding: NAT,
        ..Backend::default()
    }
}

impl Table {
    fn begins_here(&self, ends: &Ends) -> Option<Known> {
        begin(&self.at_this_moment(), ends, &here(), Way::default())
    }

    fn answered_here(&self, client: &Ends) -> Known {
        let seen = Ends {
            source: here().address,
            destination: client.source,
            source_port: 8080,
            destination_port: client.source_port,
            protocol: TCP,
        };
        of_reply_here(&self.at_this_moment(), &seen)
    }
}

#[test]
fn a_backend_here_sees_the_client_and_its_replies_find_the_flow() {
    let table = Table::new();
    let clients = [3_000_001, 3_000_002].map(from_client);
    let known = clients.map(|client| table.begins_here(&client).expect("there is room"));
    for (client, known) in clients.iter().zip(known) {
        let flow = &table.flows[known.number() as usize];
        assert_eq!(flow.local.get(), client.source);
        assert_eq!(flow.local_port.get(), client.source_port);
        assert_eq!(table.answered_here(client).number(), known.number());
        assert!(table.answered_here(client).is_reply());
    }
    let stranger = from_client(3_000_003);
    assert_eq!(table.answered_here(&stranger), Known::NONE);
}

#[test]
fn the_replies_of_a_connection_stay_its_own_when_its_client_comes_by_another_service() {
    let table = Table::new();
    let client = from_client(4_000_001);
    let other = Ends {
        destination: mapped(0xc000_0202),
        ..client
    };
    let first = table.begins_here(&client).expect("there is room");
    table.says(first, SYN, 0);
    // What is only begun yields: anybody could have forged it.
    let second = table.begins_here(&other).expect("there is room");
    assert_eq!(table.answered_here(&client).number(), second.number());
    table.says(table.answered_here(&client), SYN | ACK, 0);
    let known = table.answered_here(&client);
    assert_eq!(table.begins_here(&client), None, "it is another's");
    assert_eq!(table.answered_here(&client), known);
}
