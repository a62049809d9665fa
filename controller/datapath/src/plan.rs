//! The ordered steps that turn the observed into the wanted state.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use crate::{
    failsafe::Prefix,
    native::NativeRoutes,
    observed::Slot,
    state::{Capacity, Digest, FailsafePeer, Ifindex, PortIndex, WantedMode},
    tunnel::{DEVICE, Neighbours, Pods, Routes, TunnelDevice},
};

/// Where the content of a block to build comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockOrigin {
    /// The wanted state's blocks.
    Wanted,
    /// A block of another capacity that stands in a slot.
    Copy {
        /// Capacity of that block.
        from: Capacity,
    },
}

/// One step. Execution makes no choices: all that it needs to know is here or in the wanted blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make the pins' folder and the shared maps.
    Prepare,
    /// Let these peers through whatever policies say.
    AddFailsafe(BTreeSet<FailsafePeer>),
    /// No longer let these peers through.
    RemoveFailsafe(BTreeSet<FailsafePeer>),
    /// Set counters to zero for their new owners.
    ResetCounters(BTreeSet<u32>),
    /// Make the outer map for programs of this capacity.
    MakeSlots(Capacity),
    /// Make, fill and freeze a block.
    Build {
        /// Its content's name.
        digest: Digest,
        /// Size of the map.
        capacity: Capacity,
        /// Where the content comes from.
        origin: BlockOrigin,
    },
    /// Write entries of the outer map, in one batch.
    WriteSlots {
        /// Which outer map.
        capacity: Capacity,
        /// The blocks, all built or standing in this outer map.
        entries: BTreeMap<(Slot, PortIndex), Digest>,
    },
    /// Put a newly loaded program behind the port's link.
    ReplaceProgram {
        /// Which port.
        port: PortIndex,
        /// Capacity of the blocks that the new program reads.
        capacity: Capacity,
    },
    /// Make this slot the active one.
    Flip(Slot),
    /// Wait until no program still runs with the slot that was left.
    Settle,
    /// Load a program and attach it.
    Attach {
        /// Which port.
        port: PortIndex,
        /// Name of the interface, for people.
        interface: String,
        /// Which interface.
        ifindex: Ifindex,
        /// How.
        mode: WantedMode,
        /// Capacity of the blocks that the program reads.
        capacity: Capacity,
    },
    /// Attach in another mode, which the kernel allows only after detaching.
    ChangeMode {
        /// Which port.
        port: PortIndex,
        /// Name of the interface, for people.
        interface: String,
        /// Which interface.
        ifindex: Ifindex,
        /// How.
        mode: WantedMode,
        /// Capacity of the blocks that the program reads.
        capacity: Capacity,
    },
    /// Take the program off and forget the link.
    Detach(PortIndex),
    /// Build ring blocks and freeze them.
    BuildRingBlocks(BTreeSet<Digest>),
    /// Put ring blocks, built or already there, into entries of the outer map, as one batch.
    WriteRingBlocks(BTreeMap<RingEntry, Digest>),
    /// Empty entries of the outer map of ring blocks.
    ClearRingBlocks(BTreeSet<RingEntry>),
    /// Empty entries of the outer map.
    ClearSlots {
        /// Which outer map.
        capacity: Capacity,
        /// Which entries.
        entries: BTreeSet<(Slot, PortIndex)>,
    },
    /// Forget the outer map of a capacity that no program reads.
    RemoveSlots(Capacity),
    /// Make the table of flows, empty.
    MakeFlows,
    /// Forget the table of flows and all that are in it.
    RemoveFlows,
    /// Put the present program at the interface's egress, in the place of a former one.
    AttachEgress {
        /// Which port.
        port: PortIndex,
        /// Name of the interface, for people.
        interface: String,
        /// Which interface.
        ifindex: Ifindex,
    },
    /// Take the program off the egress.
    DetachEgress(PortIndex),
    /// Put the present program for overlays at the interface's ingress, in the place of a former one.
    AttachOverlay {
        /// Name of the interface, for people.
        interface: String,
        /// Which interface.
        ifindex: Ifindex,
    },
    /// Take the program for overlays off the interface.
    DetachOverlay(Ifindex),
    /// Take off what agents of other layout versions have left, and forget it. What is wanted has replaced theirs.
    ForgetFormerLayouts,
    /// Set the tunnel's device down, which takes its routes and neighbours away.
    LowerTunnel,
    /// Make the tunnel's device, down, or bring it to this shape. One with another port is made anew, and
    /// loses programs, neighbours and routes; one with another address loses its neighbours.
    MakeTunnelDevice(TunnelDevice),
    /// Build the tunnel's tables, freeze them, and put them in the place of the former ones.
    WriteTunnel(Digest),
    /// Put the present programs at the device's egress and ingress, in the place of former ones.
    AttachTunnel,
    /// Write where pods are, and forget others.
    SetTunnelPods {
        /// Pods.
        pods: Pods,
        /// Those to forget.
        gone: BTreeSet<IpAddr>,
    },
    /// Set the device up: from here on it takes packets.
    RaiseTunnel,
    /// Set permanent neighbours at the device, then routes by it.
    SetTunnelRoutes {
        /// Neighbours.
        neighbours: Neighbours,
        /// Routes.
        routes: Routes,
    },
    /// Remove routes by the device, then neighbours at it.
    RemoveTunnelRoutes {
        /// Routes.
        routes: BTreeSet<Prefix>,
        /// Neighbours.
        neighbours: BTreeSet<IpAddr>,
    },
    /// Remove the device, with its programs, and the tables.
    RemoveTunnel,
    /// Set plain routes to peers, in the place of former ones and of the tunnel's.
    SetNativeRoutes(NativeRoutes),
    /// Remove plain routes to peers.
    RemoveNativeRoutes(BTreeSet<Prefix>),
}

/// An entry of the outer map of ring blocks: the number of one among those of a port in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RingEntry {
    /// Which slot.
    pub slot: Slot,
    /// Which port.
    pub port: PortIndex,
    /// Which of its ring blocks.
    pub number: u32,
}

/// Name of a kind of step: for outcomes, logs and fault injection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum StepKind {
    Prepare,
    AddFailsafe,
    RemoveFailsafe,
    ResetCounters,
    MakeSlots,
    Build,
    WriteSlots,
    BuildRingBlocks,
    WriteRingBlocks,
    ClearRingBlocks,
    ReplaceProgram,
    Flip,
    Settle,
    Attach,
    ChangeMode,
    Detach,
    ClearSlots,
    RemoveSlots,
    MakeFlows,
    RemoveFlows,
    AttachEgress,
    DetachEgress,
    AttachOverlay,
    DetachOverlay,
    ForgetFormerLayouts,
    LowerTunnel,
    MakeTunnelDevice,
    WriteTunnel,
    AttachTunnel,
    SetTunnelPods,
    RaiseTunnel,
    SetTunnelRoutes,
    RemoveTunnelRoutes,
    RemoveTunnel,
    SetNativeRoutes,
    RemoveNativeRoutes,
}

impl StepKind {
    /// All kinds.
    pub const ALL: [Self; 36] = [
        Self::Prepare,
        Self::AddFailsafe,
        Self::RemoveFailsafe,
        Self::ResetCounters,
        Self::MakeSlots,
        Self::Build,
        Self::WriteSlots,
        Self::BuildRingBlocks,
        Self::WriteRingBlocks,
        Self::ClearRingBlocks,
        Self::ReplaceProgram,
        Self::Flip,
        Self::Settle,
        Self::Attach,
        Self::ChangeMode,
        Self::Detach,
        Self::ClearSlots,
        Self::RemoveSlots,
        Self::MakeFlows,
        Self::RemoveFlows,
        Self::AttachEgress,
        Self::DetachEgress,
        Self::AttachOverlay,
        Self::DetachOverlay,
        Self::ForgetFormerLayouts,
        Self::LowerTunnel,
        Self::MakeTunnelDevice,
        Self::WriteTunnel,
        Self::AttachTunnel,
        Self::SetTunnelPods,
        Self::RaiseTunnel,
        Self::SetTunnelRoutes,
        Self::RemoveTunnelRoutes,
        Self::RemoveTunnel,
        Self::SetNativeRoutes,
        Self::RemoveNativeRoutes,
    ];
}

impl Step {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> StepKind {
        match self {
            Self::Prepare => StepKind::Prepare,
            Self::AddFailsafe(_) => StepKind::AddFailsafe,
            Self::RemoveFailsafe(_) => StepKind::RemoveFailsafe,
            Self::ResetCounters(_) => StepKind::ResetCounters,
            Self::MakeSlots(_) => StepKind::MakeSlots,
            Self::Build { .. } => StepKind::Build,
            Self::WriteSlots { .. } => StepKind::WriteSlots,
            Self::BuildRingBlocks(_) => StepKind::BuildRingBlocks,
            Self::WriteRingBlocks(_) => StepKind::WriteRingBlocks,
            Self::ClearRingBlocks(_) => StepKind::ClearRingBlocks,
            Self::ReplaceProgram { .. } => StepKind::ReplaceProgram,
            Self::Flip(_) => StepKind::Flip,
            Self::Settle => StepKind::Settle,
            Self::Attach { .. } => StepKind::Attach,
            Self::ChangeMode { .. } => StepKind::ChangeMode,
            Self::Detach(_) => StepKind::Detach,
            Self::ClearSlots { .. } => StepKind::ClearSlots,
            Self::RemoveSlots(_) => StepKind::RemoveSlots,
            Self::MakeFlows => StepKind::MakeFlows,
            Self::RemoveFlows => StepKind::RemoveFlows,
            Self::AttachEgress { .. } => StepKind::AttachEgress,
            Self::DetachEgress(_) => StepKind::DetachEgress,
            Self::AttachOverlay { .. } => StepKind::AttachOverlay,
            Self::DetachOverlay(_) => StepKind::DetachOverlay,
            Self::ForgetFormerLayouts => StepKind::ForgetFormerLayouts,
            Self::LowerTunnel => StepKind::LowerTunnel,
            Self::MakeTunnelDevice(_) => StepKind::MakeTunnelDevice,
            Self::WriteTunnel(_) => StepKind::WriteTunnel,
            Self::AttachTunnel => StepKind::AttachTunnel,
            Self::SetTunnelPods { .. } => StepKind::SetTunnelPods,
            Self::RaiseTunnel => StepKind::RaiseTunnel,
            Self::SetTunnelRoutes { .. } => StepKind::SetTunnelRoutes,
            Self::RemoveTunnelRoutes { .. } => StepKind::RemoveTunnelRoutes,
            Self::RemoveTunnel => StepKind::RemoveTunnel,
            Self::SetNativeRoutes(_) => StepKind::SetNativeRoutes,
            Self::RemoveNativeRoutes(_) => StepKind::RemoveNativeRoutes,
        }
    }

    /// The port that alone suffers when this step fails; `None` where the steps behind it build
    /// on it, so that the plan ends there. (Behind a detachment, slots that its program reads are
    /// cleared.)
    #[must_use]
    pub fn concerns_only(&self) -> Option<PortIndex> {
        match self {
            Self::Attach { port, .. } | Self::ChangeMode { port, .. } => Some(*port),
            _ => None,
        }
    }

    /// Whether services alone suffer when this step fails: policies go live without it.
    #[must_use]
    pub fn is_for_services(&self) -> bool {
        matches!(
            self,
            Self::MakeFlows | Self::AttachEgress { .. } | Self::AttachOverlay { .. }
        )
    }

    /// Whether the steps behind it are carried out also where it fails.
    #[must_use]
    pub fn fails_alone(&self) -> bool {
        self.concerns_only().is_some() || self.is_for_services()
    }
}

impl Step {
    /// Whether it is left out where `failed`, a step before it, has failed.
    #[must_use]
    pub fn waits_for(&self, failed: &Self) -> bool {
        if failed.is_of_tunnel() {
            return self.is_of_tunnel();
        }
        if failed.is_of_native() {
            // A plain route that could not be set was to take the place of one of these.
            return matches!(self, Self::RemoveTunnelRoutes { .. } | Self::RemoveTunnel);
        }
        true
    }

    /// Whether it concerns plain routes to peers alone.
    #[must_use]
    pub fn is_of_native(&self) -> bool {
        matches!(self, Self::SetNativeRoutes(_) | Self::RemoveNativeRoutes(_))
    }

    /// Whether it concerns the tunnel alone, behind whose steps no others come but those of plain routes.
    #[must_use]
    pub fn is_of_tunnel(&self) -> bool {
        matches!(
            self,
            Self::LowerTunnel
                | Self::MakeTunnelDevice(_)
                | Self::WriteTunnel(_)
                | Self::AttachTunnel
                | Self::SetTunnelPods { .. }
                | Self::RaiseTunnel
                | Self::SetTunnelRoutes { .. }
                | Self::RemoveTunnelRoutes { .. }
                | Self::RemoveTunnel
        )
    }
}

/// Slots by their numbers.
fn said(slots: impl Iterator<Item = Slot>) -> String {
    let slots: BTreeSet<String> = slots.map(|slot| slot.0.to_string()).collect();
    slots.into_iter().collect::<Vec<_>>().join(" and ")
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prepare => write!(f, "make the shared maps and pin them"),
            Self::AddFailsafe(peers) => write!(f, "add {} failsafe peers", peers.len()),
            Self::RemoveFailsafe(peers) => write!(f, "remove {} failsafe peers", peers.len()),
            Self::ResetCounters(counters) => write!(f, "reset {} rule counters", counters.len()),
            Self::MakeSlots(capacity) => write!(f, "make slots for tables of {capacity}"),
            Self::Build {
                digest,
                capacity,
                origin,
            } => {
                write!(f, "build tables {} in {capacity}", digest.short())?;
                match origin {
                    BlockOrigin::Wanted => Ok(()),
                    BlockOrigin::Copy { from } => write!(f, ", copied from {from}"),
                }
            }
            Self::WriteSlots { entries, .. } => {
                let slots = said(entries.keys().map(|(slot, _)| *slot));
                write!(f, "write {} entries of slot {slots}", entries.len())
            }
            Self::BuildRingBlocks(blocks) => write!(f, "build {} ring blocks", blocks.len()),
            Self::WriteRingBlocks(entries) => {
                let slots = said(entries.keys().map(|entry| entry.slot));
                write!(f, "write {} ring blocks of slot {slots}", entries.len())
            }
            Self::ClearRingBlocks(entries) => {
                write!(f, "clear {} entries of ring blocks", entries.len())
            }
            Self::ReplaceProgram { port, capacity } => {
                write!(f, "replace the program of {port} by one for {capacity}")
            }
            Self::Flip(slot) => write!(f, "make slot {} active", slot.0),
            Self::Settle => write!(f, "wait for a grace period"),
            Self::Attach {
                port,
                interface,
                mode,
                ..
            } => write!(f, "attach {port} to {interface}, mode {mode:?}"),
            Self::ChangeMode {
                interface, mode, ..
            } => write!(f, "detach {interface} and attach it again, mode {mode:?}"),
            Self::Detach(port) => write!(f, "detach {port}"),
            Self::ClearSlots { entries, .. } => write!(f, "clear {} entries", entries.len()),
            Self::RemoveSlots(capacity) => write!(f, "remove slots for tables of {capacity}"),
            Self::MakeFlows => write!(f, "make the table of flows"),
            Self::RemoveFlows => write!(f, "remove the table of flows"),
            Self::AttachEgress {
                port, interface, ..
            } => write!(f, "attach {port} to the egress of {interface}"),
            Self::DetachEgress(port) => write!(f, "detach {port} from its egress"),
            Self::AttachOverlay { interface, .. } => {
                write!(
                    f,
                    "attach the program for overlays to the ingress of {interface}"
                )
            }
            Self::DetachOverlay(ifindex) => write!(
                f,
                "detach the program for overlays from interface {}",
                ifindex.0
            ),
            Self::ForgetFormerLayouts => {
                write!(f, "take off what agents of other layouts have left")
            }
            Self::LowerTunnel => write!(f, "set {DEVICE} down"),
            Self::MakeTunnelDevice(device) => write!(
                f,
                "make {DEVICE}: port {}, MTU {}, {}",
                device.port, device.mtu, device.mac
            ),
            Self::WriteTunnel(digest) => write!(f, "write the tunnel's tables {}", digest.short()),
            Self::AttachTunnel => write!(f, "attach the tunnel's programs to {DEVICE}"),
            Self::SetTunnelPods { pods, gone } => {
                let (pods, gone) = (pods.len(), gone.len());
                write!(
                    f,
                    "give packets to {pods} pods directly, and no more to {gone}"
                )
            }
            Self::RaiseTunnel => write!(f, "set {DEVICE} up"),
            Self::SetTunnelRoutes { neighbours, routes } => {
                let (neighbours, routes) = (neighbours.len(), routes.len());
                write!(
                    f,
                    "set {neighbours} neighbours at {DEVICE} and {routes} routes by it"
                )
            }
            Self::RemoveTunnelRoutes { routes, neighbours } => {
                let (neighbours, routes) = (neighbours.len(), routes.len());
                write!(
                    f,
                    "remove {routes} routes by {DEVICE} and {neighbours} neighbours at it"
                )
            }
            Self::RemoveTunnel => write!(f, "remove {DEVICE} and its tables"),
            Self::SetNativeRoutes(routes) => {
                write!(f, "set {} plain routes to peers", routes.len())
            }
            Self::RemoveNativeRoutes(routes) => {
                write!(f, "remove {} plain routes to peers", routes.len())
            }
        }
    }
}

impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} KiB", self.0 >> 10)
    }
}

/// Steps in the order in which they must run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Whether nothing is to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, step) in self.steps.iter().enumerate() {
            writeln!(f, "{:>3}. {step}", number + 1)?;
        }
        Ok(())
    }
}
