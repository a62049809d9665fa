//! The wanted state and the small types it is made of.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
    sync::Arc,
};

use headgate_layout::maps;
use serde::{Deserialize, Serialize};

pub use crate::failsafe::FailsafePeer;
use crate::{
    native::{self, NativeRoutes},
    tunnel::Tunnel,
};

/// Index that stands for an interface in the programs and tables of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PortIndex(u16);

impl PortIndex {
    /// All indices, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..maps::MAX_PORTS as u16).map(Self)
    }

    /// The index with this number, or `None` at or beyond `MAX_PORTS`.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        (number < maps::MAX_PORTS).then_some(Self(number as u16))
    }

    /// Its number, below `MAX_PORTS`.
    #[must_use]
    pub fn number(self) -> u32 {
        u32::from(self.0)
    }
}

impl fmt::Display for PortIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port {}", self.0)
    }
}

/// The kernel's number of a network interface; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ifindex(pub u32);

/// How a program is to be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WantedMode {
    /// Native where the driver takes it, else generic.
    Auto,
    /// Native or not at all.
    Native,
    /// Generic.
    Generic,
}

impl WantedMode {
    /// Whether a program attached in `mode` satisfies this.
    #[must_use]
    pub fn accepts(self, mode: AttachedMode) -> bool {
        match self {
            Self::Auto => true,
            Self::Native => mode == AttachedMode::Native,
            Self::Generic => mode == AttachedMode::Generic,
        }
    }
}

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttachedMode {
    /// In the driver.
    Native,
    /// In the stack, on socket buffers.
    Generic,
}

impl fmt::Display for AttachedMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// BLAKE3 digest of content, in tables' case of the bytes in use.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Digest of `content`.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        Self(*blake3::hash(content).as_bytes())
    }

    /// The digest with these bytes, made elsewhere.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn bytes(&self) -> [u8; 32] {
        self.0
    }

    /// The first 12 hex digits, as shown to people and used in the kernel's map names.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl FromStr for Digest {
    type Err = blake3::HexError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(*blake3::Hash::from_hex(text)?.as_bytes()))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Size of the blocks that a program reads, in bytes; one of `layout::maps::capacity_for`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Capacity(pub u32);

/// One policy set's tables: immutable, named by digest.
#[derive(Clone, PartialEq, Eq)]
pub struct Block {
    digest: Digest,
    bytes: Arc<[u8]>,
    ring_blocks: Arc<[Block]>,
}

impl Block {
    /// A block of these bytes, laid out as `headgate_layout::tables` says.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self {
            digest: Digest::of(&bytes),
            bytes: bytes.into(),
            ring_blocks: Arc::default(),
        }
    }

    /// The same with these ring blocks, whose digests it holds in this order (see
    /// `headgate_layout::services::Services`).
    #[must_use]
    pub fn with_ring_blocks(self, ring_blocks: Vec<Self>) -> Self {
        let ring_blocks = ring_blocks.into();
        Self {
            ring_blocks,
            ..self
        }
    }

    /// Its ring blocks, by number.
    #[must_use]
    pub fn ring_blocks(&self) -> &[Self] {
        &self.ring_blocks
    }

    /// Its name.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Its content.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes in use.
    #[must_use]
    pub fn length(&self) -> u32 {
        // The builder refuses beyond layout::maps::MAX_CAPACITY, far below 4 GiB.
        self.bytes.len() as u32
    }

    /// Bytes in use, ring blocks among them.
    #[must_use]
    pub fn length_with_ring_blocks(&self) -> u32 {
        let ring_blocks = self.ring_blocks.iter().map(Self::length);
        self.length() + ring_blocks.sum::<u32>()
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({} bytes)", self.digest, self.bytes.len())
    }
}

/// What one interface is to enforce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Name of the interface, for people.
    pub interface: String,
    /// Which interface.
    pub ifindex: Ifindex,
    /// How to attach.
    pub mode: WantedMode,
    /// Its policy set's tables, a key of [`DatapathState::blocks`].
    pub tables: Digest,
    /// Whether a program gives replies of backends on this node the service's address again where they
    /// leave by this interface.
    pub egress: bool,
}

/// The complete wanted state of the node's datapath.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatapathState {
    /// Interfaces with a program.
    pub ports: BTreeMap<PortIndex, Attachment>,
    /// Tables by digest, ring blocks among them; see [`Self::hold`].
    pub blocks: BTreeMap<Digest, Block>,
    /// Peers that are never dropped.
    pub failsafe: BTreeSet<FailsafePeer>,
    /// Counters that belong to a new owner and must start from zero.
    pub fresh_counters: BTreeSet<u32>,
    /// Whether some tables send packets through Nat, which needs the table of flows.
    pub flows: bool,
    /// Interfaces at whose ingress a program sends packets on to backends behind an overlay, or back from them, with
    /// their names: those that services with such backends are served on, and the overlays' devices.
    pub overlay: BTreeMap<Ifindex, String>,
    /// The tunnel, where there are peers.
    pub tunnel: Option<Tunnel>,
    /// Plain routes to the networks of peers that share a link with the node.
    pub native_routes: NativeRoutes,
}

impl DatapathState {
    /// Adds `block` and its ring blocks to [`Self::blocks`].
    pub fn hold(&mut self, block: &Block) {
        let all = block.ring_blocks().iter().chain([block]).cloned();
        self.blocks.extend(all.map(|block| (block.digest(), block)));
    }

    /// Digests of the ring blocks of `tables`, by number.
    #[must_use]
    pub fn ring_blocks_of(&self, tables: Digest) -> Vec<Digest> {
        let block = self.blocks.get(&tables);
        let ring_blocks = block.map_or(&[][..], Block::ring_blocks);
        ring_blocks.iter().map(Block::digest).collect()
    }

    /// Digest over which port enforces which tables.
    #[must_use]
    pub fn enforcement(&self) -> Digest {
        let ports = self.ports.iter();
        revision(
            ports.map(|(port, attachment)| (*port, attachment.tables)),
            None,
            None,
        )
    }

    /// Name of this revision: the digest over which port enforces which tables, the tunnel, and
    /// plain routes to peers.
    #[must_use]
    pub fn revision(&self) -> Digest {
        let ports = self.ports.iter();
        revision(
            ports.map(|(port, attachment)| (*port, attachment.tables)),
            self.tunnel.as_ref().map(Tunnel::digest),
            native::wanted_digest(&self.native_routes),
        )
    }
}

/// Name of the revision in which these ports enforce these tables, in ascending order of ports, beside a
/// tunnel and plain routes of these digests.
#[must_use]
pub fn revision(
    ports: impl IntoIterator<Item = (PortIndex, Digest)>,
    tunnel: Option<Digest>,
    native: Option<Digest>,
) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for (port, tables) in ports {
        hasher.update(&port.0.to_le_bytes());
        hasher.update(&tables.0);
    }
    if let Some(tunnel) = tunnel {
        hasher.update(&tunnel.0);
    }
    if let Some(native) = native {
        hasher.update(&native.0);
    }
    Digest(*hasher.finalize().as_bytes())
}
