//! Sends live frames out of one end of a cable, a burst of 64 at a time, as a network card takes them in.

use aya::{
    Ebpf,
    maps::Array,
    programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp},
};

use anyhow::Context as _;
use headgate_e2e_tests::namespace::Namespace;

/// As the kernel's drivers poll, and cables hold four times.
const BURST: u32 = 64;
const FRAME: usize = 60;
/// Frame, sum, first source, flows, position, interface; as in the driver.
type Stream = [u32; FRAME / 4 + 5];

/// A loaded generator.
pub struct Generator {
    object: Ebpf,
}

impl Generator {
    /// One that sends nothing yet.
    pub fn load() -> anyhow::Result<Self> {
        let bytes = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/driver.bpf.o"));
        let mut object = Ebpf::load(bytes).context("loading the driver")?;
        let program = object.program_mut("generate").context("in the driver")?;
        let program: &mut Xdp = program.try_into()?;
        program.load().context("loading the generator")?;
        Ok(Self { object })
    }

    /// What to send: this IPv4 frame from so many sources, the `first` and those behind it, out of an interface.
    pub fn prepare(
        &mut self,
        frame: &[u8; FRAME],
        (first, flows): (u32, u32),
        ifindex: u32,
    ) -> anyhow::Result<()> {
        let mut stream: Stream = [0; FRAME / 4 + 5];
        for (word, bytes) in stream.iter_mut().zip(frame.chunks_exact(4)) {
            *word = u32::from_ne_bytes(bytes.try_into().context("of four bytes")?);
        }
        let header = frame[14..34].chunks_exact(2);
        let sum = header.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
        stream[FRAME / 4..].copy_from_slice(&[sum.sum(), first, flows, 0, ifindex]);
        let map = self.object.map_mut("STREAM").context("STREAM")?;
        Ok(Array::<_, Stream>::try_from(map)?.set(0, stream, 0)?)
    }

    /// Sends so many more, from the namespace of the interface.
    pub fn send(&self, namespace: &Namespace, frames: u32) -> anyhow::Result<()> {
        let program = self.object.program("generate").context("in the driver")?;
        let program: &Xdp = program.try_into()?;
        let options = TestRunOptions {
            data_in: Some(&[0; FRAME]),
            repeat: frames,
            attrs: TestRunAttrs::new().xdp_live_frames(BURST),
            ..TestRunOptions::default()
        };
        let sent = namespace.enter(|| program.test_run(options).map(drop));
        sent.context("sending live frames")
    }
}
