//! What compile has to say about resources.

use serde::{Deserialize, Serialize};

use crate::snapshot::ResourceName;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Severity {
    /// The resource's present generation is not in effect.
    Stalled,
    /// It is in effect as far as it can be, and waits for something.
    Pending,
    /// It is in effect, but hardly as meant.
    Warning,
}

/// Why, in one word; names as they will stand in conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FindingReason {
    /// The object is refused by what it alone shows.
    Invalid,
    /// The file that held it cannot be read.
    Unreadable,
    /// It names something that does not exist.
    UnresolvedReferences,
    /// Its tables exceed a limit.
    TooLarge,
    /// The node has no more counters or ports.
    OutOfCapacity,
    /// Something else must be mended before any change goes live.
    Blocked,
    /// An interface that it names does not exist here.
    InterfaceNotFound,
    /// The interface cannot be attached as asked.
    AttachModeRefused,
    /// Policies of one interface ask for different modes.
    AttachModeConflict,
    /// An address lies in no pool that admits the service's namespace.
    NotAdmitted,
    /// Something else has the address.
    AddressTaken,
    /// A UDP port is another's.
    PortTaken,
    /// Packets to an endpoint would go through the tunnel again.
    EndpointInTunnel,
    /// The way to a peer takes too small packets.
    MtuTooSmall,
    /// The node's stack does what would be passed by.
    StackInUse,
    /// Pods may send longer packets than the tunnel takes.
    PodMtuTooLarge,
    /// The node's kernel cannot do it.
    Unsupported,
    /// The link-layer address of the way to a backend is not known.
    NextHopUnknown,
    /// No endpoint of the Service that it names is ready.
    NoEndpoints,
    /// Backends answer by an interface where nobody translates their replies.
    RepliesUnseen,
    /// The kernel refused something that it needs.
    NotEnforced,
    /// A rule can match nothing.
    MatchesNothing,
    /// Accepted, but hardly meant.
    Suspicious,
}

/// One statement about a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// Why, in one word.
    pub reason: FindingReason,
    /// Which resource; `None` for a file as a whole.
    pub resource: Option<ResourceName>,
    /// File and line, as far as known.
    pub place: String,
    /// Path of the field, empty for the whole.
    pub path: String,
    /// What is wrong and what to do about it.
    pub message: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        if let Some(resource) = &self.resource {
            write!(f, "{resource}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(
            f,
            "{} ({:?}, {:?})",
            self.message, self.severity, self.reason
        )
    }
}
