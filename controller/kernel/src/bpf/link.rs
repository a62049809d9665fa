//! Links: what keeps a program on an interface or at its egress.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use aya_obj::generated::{
    BPF_F_BEFORE, BPF_F_REPLACE, XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE, bpf_attach_type,
    bpf_link_type,
};
use headgate_datapath::state::{AttachedMode, Ifindex};

use super::{Command, Program, call, get_pinned, info, open, pin, raw};
use crate::pins::Side;

/// An open XDP or TCX link.
#[derive(Debug)]
pub(crate) struct Link {
    fd: OwnedFd,
}

/// Where a program comes by TCX, among all that are there.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// In front of them.
    First,
    /// Behind them.
    Last,
}

/// What the kernel says of a link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkInfo {
    pub(crate) id: u32,
    pub(crate) program_id: u32,
    /// `None` where the program was taken off the interface.
    pub(crate) ifindex: Option<Ifindex>,
}

/// Mode flags of an attachment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct XdpFlags(u32);

impl From<AttachedMode> for XdpFlags {
    fn from(mode: AttachedMode) -> Self {
        Self(match mode {
            AttachedMode::Native => XDP_FLAGS_DRV_MODE,
            AttachedMode::Generic => XDP_FLAGS_SKB_MODE,
        })
    }
}

/// The beginning of `struct bpf_link_info`, for XDP and TCX.
#[repr(C)]
#[derive(Default)]
struct RawLinkInfo {
    kind: u32,
    id: u32,
    program_id: u32,
    padding: u32,
    ifindex: u32,
    rest: u32,
}

#[repr(C)]
struct CreateAttributes {
    program_fd: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
struct UpdateAttributes {
    link_fd: u32,
    new_program_fd: u32,
    flags: u32,
    old_program_fd: u32,
}

#[repr(C)]
#[derive(Default)]
struct QueryAttributes {
    ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    count: u32,
    padding: u32,
}

#[repr(C)]
struct DetachAttributes {
    link_fd: u32,
}

impl Link {
    /// Attaches `program`; without a pin the link lasts as long as its last descriptor.
    pub(crate) fn create(program: &Program, ifindex: Ifindex, flags: XdpFlags) -> io::Result<Self> {
        Self::create_as(bpf_attach_type::BPF_XDP, program, ifindex, flags.0)
    }

    /// Attaches `program` to a side of an interface by TCX.
    pub(crate) fn create_tcx(
        program: &Program,
        ifindex: Ifindex,
        side: Side,
        place: Place,
    ) -> io::Result<Self> {
        let flags = match place {
            Place::First => BPF_F_BEFORE,
            Place::Last => 0,
        };
        Self::create_as(tcx(side), program, ifindex, flags)
    }

    fn create_as(
        kind: bpf_attach_type,
        program: &Program,
        ifindex: Ifindex,
        flags: u32,
    ) -> io::Result<Self> {
        let mut attributes = CreateAttributes {
            program_fd: raw(program),
            ifindex: ifindex.0,
            attach_type: kind as u32,
            flags,
        };
        let fd = open(Command::BPF_LINK_CREATE, &mut attributes)?;
        Ok(Self { fd })
    }

    pub(crate) fn pinned(path: &Path) -> io::Result<Self> {
        let fd = get_pinned(path)?;
        Ok(Self { fd })
    }

    pub(crate) fn pin(&self, path: &Path) -> io::Result<()> {
        pin(self.fd.as_fd(), path)
    }

    pub(crate) fn info(&self) -> io::Result<LinkInfo> {
        let raw = info(self.fd.as_fd(), RawLinkInfo::default())?;
        let kinds = [
            bpf_link_type::BPF_LINK_TYPE_XDP,
            bpf_link_type::BPF_LINK_TYPE_TCX,
        ];
        if kinds.iter().all(|kind| raw.kind != *kind as u32) {
            return Err(io::Error::other("neither an XDP nor a TCX link"));
        }
        Ok(LinkInfo {
            id: raw.id,
            program_id: raw.program_id,
            ifindex: (raw.ifindex != 0).then_some(Ifindex(raw.ifindex)),
        })
    }

    /// Puts `new` in the place of `old`, in one step; refused where the program is not `old`.
    pub(crate) fn replace(&self, old: &Program, new: &Program) -> io::Result<()> {
        let mut attributes = UpdateAttributes {
            link_fd: raw(&self.fd),
            new_program_fd: raw(new),
            flags: BPF_F_REPLACE,
            old_program_fd: raw(old),
        };
        call(Command::BPF_LINK_UPDATE, &mut attributes).map(drop)
    }

    /// Takes the program off the interface, whoever else still holds the link.
    pub(crate) fn detach(&self) -> io::Result<()> {
        let mut attributes = DetachAttributes {
            link_fd: raw(&self.fd),
        };
        call(Command::BPF_LINK_DETACH, &mut attributes).map(drop)
    }
}

/// Whether programs are attached to an interface by TCX, which came with Linux 6.6.
pub(crate) fn has_tcx(ifindex: Ifindex) -> io::Result<bool> {
    let mut attributes = QueryAttributes {
        ifindex: ifindex.0,
        attach_type: tcx(Side::In) as u32,
        ..Default::default()
    };
    match call(Command::BPF_PROG_QUERY, &mut attributes) {
        Ok(_) => Ok(true),
        // The answer to a kind of attachment that the kernel does not know.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

fn tcx(side: Side) -> bpf_attach_type {
    match side {
        Side::In => bpf_attach_type::BPF_TCX_INGRESS,
        Side::Out => bpf_attach_type::BPF_TCX_EGRESS,
    }
}
