//! The table of placements beside a naive model of it.

mod frames;

use std::{collections::HashMap, net::Ipv4Addr};

use headgate_layout::{
    services::{Backend, SETTLING, mapped},
    settling::{Choice, PLACEMENTS, Placement, ROW, row},
};
use headgate_packet::{
    flows::Ends,
    settling::{BEGUN, CLOSING, HostPlacements, PLACED, placed},
    tables::{HostTables, Tables as _},
};
use proptest::{collection::vec, prelude::*};
use zerocopy::{FromZeros as _, IntoBytes as _};

use frames::{Ipv4, TCP, tcp, udp};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

const SERVICE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PORT: u16 = 80;
const SIZE: usize = size_of::<Backend>();

/// A service of three backends, whose ring entries all changed.
struct Node {
    block: Vec<u64>,
    placements: Vec<Placement>,
    now: u32,
    choice: Choice,
    living: [bool; 3],
}

const FORMER: u32 = 0;
const NEW: u32 = 1;
const OTHER: u32 = 2;

impl Node {
    fn new() -> Self {
        let mut node = Self {
            block: Vec::new(),
            placements: (0..PLACEMENTS).map(|_| Placement::new_zeroed()).collect(),
            now: 1,
            choice: Choice {
                distance: 3 * SIZE as u32,
                count: 3,
                new: NEW,
                former: FORMER,
                epoch: 1,
                forwarding: SETTLING,
                ..Choice::default()
            },
            living: [true; 3],
        };
        node.write();
        node
    }

    /// Where the choice lies.
    const OFFSET: u32 = 4 * SIZE as u32;

    fn write(&mut self) {
        let mut bytes = vec![0; SIZE];
        for (number, lives) in (1..).zip(self.living) {
            let backend = Backend {
                address: if lives { mapped(number) } else { [0; 2] },
                ..Backend::default()
            };
            bytes.extend(backend.as_bytes());
        }
        bytes.extend(self.choice.as_bytes());
        let words = bytes.chunks_exact(8);
        let words = words.map(|chunk| u64::from_ne_bytes(chunk.try_into().expect("8 bytes")));
        self.block = words.collect();
    }

    /// The backend that a frame goes to, by number.
    fn sends(&self, frame: &[u8]) -> u32 {
        let tables = HostTables::new(&self.block);
        let placements = || {
            Some(HostPlacements {
                placements: &self.placements,
                now: self.now,
            })
        };
        let offset = placed(frame, &tables, Self::OFFSET, placements);
        let backend = tables.at::<Backend>(offset).expect("it is there");
        assert_ne!(backend.forwarding, SETTLING);
        offset / SIZE as u32 - 1
    }

    fn says(&self, client: u32, flags: u8) -> u32 {
        self.sends(&segment(client, flags))
    }
}

fn segment(client: u32, flags: u8) -> Vec<u8> {
    let ip = Ipv4 {
        source: Ipv4Addr::from_bits(client),
        destination: SERVICE,
        protocol: TCP,
        ..Ipv4::default()
    };
    ip.frame(&tcp(1_024, PORT, flags))
}

fn row_of(client: u32) -> u32 {
    let ends = Ends {
        source: mapped(client),
        destination: mapped(SERVICE.to_bits()),
        source_port: 1_024,
        destination_port: PORT,
        protocol: TCP,
    };
    row(ends.hash())
}

/// Clients whose connections share one row.
fn neighbours() -> impl Iterator<Item = u32> {
    let row = row_of(0);
    (0..).filter(move |client| row_of(*client) == row)
}

#[test]
fn who_was_there_stays_and_who_comes_goes_with_the_ring() {
    let node = Node::new();
    for client in 0..1_000 {
        assert_eq!(node.says(client, ACK), FORMER);
        assert_eq!(node.says(client, FIN | ACK), FORMER);
    }
    for client in 1_000..2_000 {
        for flags in [SYN, SYN, ACK, ACK, FIN | ACK, ACK] {
            assert_eq!(node.says(client, flags), NEW);
        }
    }
}

#[test]
fn what_is_no_segment_that_can_be_read_goes_with_the_ring() {
    let node = Node::new();
    let ip = Ipv4 {
        destination: SERVICE,
        ..Ipv4::default()
    };
    assert_eq!(node.sends(&ip.frame(&udp(1_024, PORT))), NEW);
    let with_options = Ipv4 {
        protocol: TCP,
        options: vec![1; 4],
        ..ip
    };
    assert_eq!(node.sends(&with_options.frame(&tcp(1_024, PORT, ACK))), NEW);
}

#[test]
fn a_full_row_moves_nobody() {
    let mut node = Node::new();
    let clients: Vec<u32> = neighbours().take(3 * ROW as usize).collect();
    let (first, rest) = clients.split_at(ROW as usize);
    let (second, third) = rest.split_at(ROW as usize);
    for client in first {
        assert_eq!(node.says(*client, SYN), NEW);
    }
    for client in second {
        assert_eq!(node.says(*client, SYN), FORMER);
        assert_eq!(node.says(*client, ACK), FORMER);
    }
    for client in first {
        assert_eq!(node.says(*client, ACK), NEW);
    }
    // Who has shown that it goes on is kept; who only began makes room after a while.
    node.now += BEGUN + 1;
    for client in third {
        assert_eq!(node.says(*client, SYN), FORMER);
    }
    node.says(first[0], RST);
    node.now += CLOSING + 1;
    assert_eq!(node.says(third[0], SYN), NEW);
    assert_eq!(node.says(third[1], SYN), FORMER);
    assert_eq!(node.says(first[1], ACK), NEW);
    node.now += BEGUN + 1;
    assert_eq!(
        node.says(third[1], SYN),
        NEW,
        "the place of one that only began"
    );
    node.now += PLACED + 1;
    for client in second {
        assert_eq!(node.says(*client, SYN), NEW);
    }
}

#[test]
fn who_was_seen_is_not_moved_by_a_forged_syn_while_there_is_room() {
    let node = Node::new();
    let clients: Vec<u32> = neighbours().take(2 * ROW as usize).collect();
    let (held, others) = clients.split_at(ROW as usize);
    for flags in [ACK, SYN, ACK] {
        for client in held {
            assert_eq!(node.says(*client, flags), FORMER);
        }
    }
    // It is worth less than a connection that begins.
    for client in others {
        assert_eq!(node.says(*client, SYN), NEW);
        assert_eq!(node.says(*client, ACK), NEW);
    }
    for client in held {
        assert_eq!(node.says(*client, ACK), FORMER);
    }
}

#[test]
fn a_backend_that_is_gone_gives_its_connections_to_the_ring() {
    let mut node = Node::new();
    assert_eq!(node.says(7, SYN), NEW);
    node.choice.new = OTHER;
    node.write();
    assert_eq!(node.says(7, ACK), NEW);
    node.living[NEW as usize] = false;
    node.write();
    assert_eq!(node.says(7, ACK), OTHER);
    assert_eq!(node.says(7, SYN), OTHER);
    node.choice.new = FORMER;
    node.write();
    assert_eq!(node.says(7, ACK), OTHER);
}

#[test]
fn another_numbering_knows_nothing_of_what_was_placed() {
    let mut node = Node::new();
    assert_eq!(node.says(7, SYN), NEW);
    node.choice.epoch = 2;
    node.write();
    assert_eq!(node.says(7, ACK), FORMER);
}

/// What happens to one of some clients.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// It opens a connection, and the handshake ends before anything else happens.
    Opens,
    /// Only its SYN arrives.
    Knocks,
    Speaks,
    Ends,
    Waits(u32),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => Just(Event::Opens),
        2 => Just(Event::Knocks),
        4 => Just(Event::Speaks),
        2 => Just(Event::Ends),
        1 => (1..2 * CLOSING).prop_map(Event::Waits),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Many clients at few places: nobody's connection ever changes its backend.
    #[test]
    fn no_connection_moves(events in vec((0_usize..20, event()), 1..400)) {
        let mut node = Node::new();
        let clients: Vec<u32> = neighbours().take(20).collect();
        // Half of them had a connection before.
        let held = clients.iter().take(10).map(|client| (*client, FORMER));
        let mut at: HashMap<u32, u32> = held.collect();
        for (client, event) in events {
            let client = clients[client];
            match event {
                Event::Opens | Event::Knocks if at.contains_key(&client) => {}
                Event::Knocks => {
                    node.says(client, SYN);
                }
                Event::Opens => {
                    let backend = node.says(client, SYN);
                    prop_assert_eq!(node.says(client, ACK), backend);
                    at.insert(client, backend);
                }
                Event::Speaks => {
                    if let Some(backend) = at.get(&client) {
                        prop_assert_eq!(node.says(client, ACK), *backend);
                    }
                }
                Event::Ends => {
                    if let Some(backend) = at.remove(&client) {
                        prop_assert_eq!(node.says(client, FIN | ACK), backend);
                        prop_assert_eq!(node.says(client, ACK), backend);
                    }
                }
                // No longer than a connection that is silent is kept, all in all.
                Event::Waits(time) => node.now = (node.now + time).min(PLACED),
            }
        }
    }
}
