//! An instance with pins of its own, driven as the agent does it.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use headgate_datapath::{
    diff::diff,
    kernel::{Kernel, Outcome, carry_out},
    observed::Observed,
    plan::Plan,
    state::{Attachment, Block, DatapathState, FailsafePeer, Ifindex, PortIndex, WantedMode},
};
use headgate_kernel::{DEFAULT_BPFFS, Instance, RunningKernel, object_digest};
use headgate_layout::LAYOUT_VERSION;

/// A kernel under a name of its own; everything is taken down with it, also on a panic.
pub struct Node {
    /// Its name.
    pub instance: Instance,
    /// The kernel.
    pub kernel: RunningKernel,
}

impl Node {
    /// Opens an instance with a random name.
    ///
    /// # Panics
    /// Where the kernel cannot be used.
    #[must_use]
    pub fn new() -> Self {
        let instance = random_instance();
        let kernel = RunningKernel::open(&instance, Path::new(DEFAULT_BPFFS)).expect("a kernel");
        Self { instance, kernel }
    }

    /// The same, with the tunnel's programs by clsact, which is what kernels without TCX have.
    ///
    /// # Panics
    /// Where the kernel cannot be used.
    #[must_use]
    pub fn by_clsact() -> Self {
        let mut node = Self::new();
        node.kernel.attach_by_clsact();
        node
    }

    /// The folder of its pins.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        let instances = Path::new(DEFAULT_BPFFS).join("headgate");
        instances.join(&self.instance.name)
    }

    /// The folder of its pins of this layout version.
    #[must_use]
    pub fn layout_pins(&self) -> PathBuf {
        self.pins().join(format!("v{LAYOUT_VERSION}"))
    }

    /// What the kernel holds.
    ///
    /// # Panics
    /// Where it cannot be read.
    pub fn observe(&mut self) -> Observed {
        self.kernel.observe().expect("observed")
    }

    /// What is to be done.
    ///
    /// # Panics
    /// Where there is no plan.
    pub fn plan(&mut self, wanted: &DatapathState) -> Plan {
        diff(&self.observe(), wanted, object_digest()).expect("a plan")
    }

    /// One run, with what became of each step.
    pub fn run(&mut self, wanted: &DatapathState) -> Vec<Outcome> {
        let plan = self.plan(wanted);
        carry_out(&mut self.kernel, plan, &wanted.blocks)
    }

    /// One run in which every step must succeed and after which nothing is left to do. Gives the
    /// plan.
    ///
    /// # Panics
    /// Otherwise.
    pub fn converge(&mut self, wanted: &DatapathState) -> Plan {
        let plan = self.plan(wanted);
        for outcome in carry_out(&mut self.kernel, plan.clone(), &wanted.blocks) {
            let step = outcome.step;
            outcome
                .result
                .unwrap_or_else(|error| panic!("{step}: {error}"));
        }
        let rest = self.plan(wanted);
        assert!(rest.is_empty(), "left to do:\n{rest}");
        plan
    }

    /// What the program of `port` returns for `frame`.
    ///
    /// # Panics
    /// Where it cannot be run.
    #[must_use]
    pub fn verdict(&self, port: PortIndex, frame: &[u8]) -> u32 {
        let run = self.kernel.run_program(port, frame, 1);
        run.expect("a test run").verdict
    }
}

impl Default for Node {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(error) = self.kernel.detach_all() {
            eprintln!("taking down {}: {error}", self.instance.name);
        }
    }
}

/// An instance name that nobody else has.
#[must_use]
pub fn random_instance() -> Instance {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanos = now.map_or(0, |now| now.subsec_nanos());
    Instance {
        name: format!("test-{}-{count}-{nanos}", std::process::id()),
    }
}

/// The port with this number.
///
/// # Panics
/// Beyond the last port.
#[must_use]
pub fn port(number: u32) -> PortIndex {
    PortIndex::new(number).expect("a port")
}

/// A state in which these ports enforce these tables under [`WantedMode::Auto`].
#[must_use]
pub fn wanted(ports: &[(PortIndex, Ifindex, &Block)]) -> DatapathState {
    let mut state = DatapathState::default();
    for (port, ifindex, block) in ports {
        let attachment = Attachment {
            interface: format!("interface {}", ifindex.0),
            ifindex: *ifindex,
            mode: WantedMode::Auto,
            tables: block.digest(),
            egress: false,
        };
        state.ports.insert(*port, attachment);
        state.hold(block);
    }
    state
}

/// Peers that may send everything, from their text.
///
/// # Panics
/// Where one is no prefix.
#[must_use]
pub fn peers(texts: &[&str]) -> BTreeSet<FailsafePeer> {
    let peer = |text: &&str| {
        let (address, length) = text.split_once('/').expect("a prefix");
        FailsafePeer::trusted(
            address.parse().expect("an address"),
            length.parse().expect("a length"),
        )
    };
    texts.iter().map(peer).collect()
}
