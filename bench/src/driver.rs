//! The driver program: feeds the floor and the program under test in turn.

use std::net::Ipv4Addr;

use anyhow::Context as _;
use aya::{
    Ebpf,
    maps::{Array, HashMap, PerCpuArray, ProgramArray},
    programs::{ProgramFd, SchedClassifier, TestRun as _, TestRunOptions, Xdp, loaded_programs},
};

use crate::{lists::Family, statistics::Median};

/// Its number among IP's protocols.
const UDP: u32 = 17;
/// Packets of a chunk; as in the driver.
const CHUNK: u64 = 1 << 14;
const STAMPS: usize = 256;
/// Position, first key, mask, destination and ports, stamps; as in the driver.
type Control = [u64; FIRST_STAMP + STAMPS];
const FIRST_STAMP: usize = 6;
/// Pairs of chunks in one run.
const PAIRS: u64 = 24;
/// Runs of each measurement.
const ROUNDS: usize = 31;

/// The driver's programs.
const FOR_XDP: [&str; 4] = ["drive_v4", "drive_v6", "drop_all", "per_flow"];
const FOR_TUNNEL: [&str; 3] = ["drive_tunnel_out", "drive_tunnel_in", "pass_all"];

/// Which programs are driven.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Driven {
    /// XDP, by packets of a family.
    Xdp(Family),
    /// Those at the tunnel's device, by IPv4: for what comes, or for what leaves.
    Tunnel { comes: bool },
}

impl Driven {
    /// The driver's program.
    fn program(self) -> &'static str {
        match self {
            Self::Xdp(Family::V4) => "drive_v4",
            Self::Xdp(Family::V6) => "drive_v6",
            Self::Tunnel { comes: false } => "drive_tunnel_out",
            Self::Tunnel { comes: true } => "drive_tunnel_in",
        }
    }

    fn floor(self) -> &'static str {
        match self {
            Self::Xdp(_) => "drop_all",
            Self::Tunnel { .. } => "pass_all",
        }
    }

    /// The map of the programs that are fed in turn.
    fn programs(self) -> &'static str {
        match self {
            Self::Xdp(_) => "PROGRAMS",
            Self::Tunnel { .. } => "CLASSIFIERS",
        }
    }
}

/// A loaded driver.
pub struct Driver {
    object: Ebpf,
    driven: Driven,
}

impl Driver {
    /// Loads the driver for packets of `family`.
    pub fn load(family: Family) -> anyhow::Result<Self> {
        Self::of(Driven::Xdp(family))
    }

    /// Loads the driver of the programs at the tunnel's device.
    pub fn load_for_tunnel(comes: bool) -> anyhow::Result<Self> {
        Self::of(Driven::Tunnel { comes })
    }

    fn of(driven: Driven) -> anyhow::Result<Self> {
        let bytes = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/driver.bpf.o"));
        let mut object = Ebpf::load(bytes).context("loading the driver")?;
        for name in FOR_XDP {
            let program = object.program_mut(name).context("in the driver")?;
            let program: &mut Xdp = program.try_into()?;
            program.load().with_context(|| name.to_owned())?;
        }
        for name in FOR_TUNNEL {
            let program = object.program_mut(name).context("in the driver")?;
            let program: &mut SchedClassifier = program.try_into()?;
            program.load().with_context(|| name.to_owned())?;
        }
        let mut driver = Self { object, driven };
        let floor = driver.object.program(driven.floor()).context("floor")?;
        let floor = floor.fd()?.try_clone()?;
        driver.set_program(0, &floor)?;
        Ok(driver)
    }

    fn set_program(&mut self, index: u32, program: &ProgramFd) -> anyhow::Result<()> {
        let name = self.driven.programs();
        let map = self.object.map_mut(name).context(name)?;
        Ok(ProgramArray::try_from(map)?.set(index, program, 0)?)
    }

    /// Puts the program with this id under test.
    pub fn test(&mut self, program_id: u32) -> anyhow::Result<()> {
        for info in loaded_programs() {
            let info = info?;
            if info.id() == program_id {
                return self.set_program(1, &info.fd()?);
            }
        }
        anyhow::bail!("program {program_id} is gone")
    }

    /// Puts the neighbour under test that remembers each flow in an LRU hash table, with services at these addresses
    /// and this UDP port and a hundred backends.
    pub fn test_neighbour(&mut self, addresses: &[Ipv4Addr], port: u16) -> anyhow::Result<()> {
        const RING: u32 = 16_381;
        const BACKENDS: u32 = 100;
        let map = self.object.map_mut("PLACES").context("PLACES")?;
        let mut places: HashMap<_, [u32; 2], u32> = HashMap::try_from(map)?;
        for (service, address) in (0..).zip(addresses) {
            let address = u32::from_ne_bytes(address.octets());
            let port_and_protocol = u32::from(port.to_be()) << 16 | UDP;
            places.insert([address, port_and_protocol], service, 0)?;
        }
        let map = self
            .object
            .map_mut("RING_ENTRIES")
            .context("RING_ENTRIES")?;
        let mut ring: Array<_, u32> = Array::try_from(map)?;
        for entry in 0..RING {
            ring.set(entry, entry % BACKENDS, 0)?;
        }
        let map = self.object.map_mut("LINKS").context("LINKS")?;
        let mut links: Array<_, [u8; 16]> = Array::try_from(map)?;
        for backend in 0..BACKENDS {
            let mut link = [2; 16];
            link[5] = backend as u8;
            links.set(backend, link, 0)?;
        }
        let program: &Xdp = self
            .object
            .program("per_flow")
            .context("per_flow")?
            .try_into()?;
        let program = program.fd()?.try_clone()?;
        self.set_program(1, &program)
    }

    /// Packets that the neighbour has sent on for its first service.
    pub fn neighbours_packets(&self) -> anyhow::Result<u64> {
        let map = self.object.map("PACKETS").context("PACKETS")?;
        let counts = PerCpuArray::<_, u64>::try_from(map)?.get(&0, 0)?;
        Ok(counts.iter().sum())
    }

    /// The sources that packets will have, repeated to fill a power of two; gives how many.
    pub fn sources(&mut self, keys: &[[u64; 2]]) -> anyhow::Result<u64> {
        let count = (keys.len() * 4).next_power_of_two().min(1 << 20);
        let map = self.object.map_mut("SOURCES").context("SOURCES")?;
        let mut map: Array<_, [u64; 2]> = Array::try_from(map)?;
        for index in 0..count {
            map.set(index as u32, keys[index % keys.len()], 0)?;
        }
        Ok(count as u64)
    }

    /// Nanoseconds over the floor: with one source (of the `count` set), or with another each packet.
    pub fn cost(&mut self, count: u64, hot: bool) -> anyhow::Result<Median> {
        let mut samples = Vec::new();
        for round in 0..ROUNDS as u64 {
            let first = if hot { round * 7919 % count } else { 0 };
            let mask = if hot { 0 } else { count - 1 };
            let stamps = self.run(first, mask)?;
            // The first pairs warm the caches.
            for pair in (5..2 * PAIRS as usize - 1).step_by(2) {
                let took = |chunk: usize| (stamps[chunk + 1] - stamps[chunk]) as f64 / CHUNK as f64;
                let floor = f64::midpoint(took(pair - 1), took(pair + 1));
                samples.push(took(pair) - floor);
            }
        }
        Ok(Median::of(&mut samples))
    }

    fn run(&mut self, first: u64, mask: u64) -> anyhow::Result<Vec<u64>> {
        let mut control: Control = [0; FIRST_STAMP + STAMPS];
        control[1] = first;
        control[2] = mask;
        let (frame, rest) = match self.driven {
            Driven::Xdp(Family::V6) => (frame_v6(), 38..58),
            Driven::Xdp(Family::V4) | Driven::Tunnel { .. } => (frame_v4(), 30..38),
        };
        for (word, bytes) in control[3..].iter_mut().zip(frame[rest].chunks(8)) {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_ne_bytes(whole);
        }
        let map = self.object.map_mut("CONTROL").context("CONTROL")?;
        Array::<_, Control>::try_from(map)?.set(0, control, 0)?;
        let program = self.object.program(self.driven.program());
        let program = program.context("driver")?;
        let options = TestRunOptions {
            data_in: Some(&frame),
            repeat: (CHUNK * 2 * PAIRS + 1) as u32,
            ..TestRunOptions::default()
        };
        match self.driven {
            Driven::Xdp(_) => <&Xdp>::try_from(program)?.test_run(options),
            Driven::Tunnel { .. } => <&SchedClassifier>::try_from(program)?.test_run(options),
        }
        .context("test run")?;
        let map = self.object.map("CONTROL").context("CONTROL")?;
        let control = Array::<_, Control>::try_from(map)?.get(&0, 0)?;
        Ok(control[FIRST_STAMP..].to_vec())
    }
}

/// UDP to port 12345 in a frame of 60 bytes.
fn frame_v4() -> Vec<u8> {
    let mut frame = vec![0; 60];
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    frame[14..24].copy_from_slice(&[0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17]);
    frame[30..34].copy_from_slice(&[10, 0, 0, 1]);
    frame[34..40].copy_from_slice(&[0x9c, 0x40, 0x30, 0x39, 0, 26]);
    frame
}

fn frame_v6() -> Vec<u8> {
    let mut frame = vec![0; 74];
    frame[12..14].copy_from_slice(&[0x86, 0xdd]);
    frame[14..22].copy_from_slice(&[0x60, 0, 0, 0, 0, 20, 17, 64]);
    frame[38..54].copy_from_slice(&[0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    frame[54..60].copy_from_slice(&[0x9c, 0x40, 0x30, 0x39, 0, 20]);
    frame
}
