//! Programs.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use aya_obj::generated::{BPF_F_XDP_HAS_FRAGS, bpf_prog_type};

use super::{Command, call, get_by_id, get_pinned, info, open, pin, raw};

/// An open program.
#[derive(Debug)]
pub(crate) struct Program {
    fd: OwnedFd,
}

/// What a run on a frame of ours gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRun {
    /// What the program returned: `XDP_DROP` is 1, `XDP_PASS` 2.
    pub verdict: u32,
    /// Mean duration of one run, in nanoseconds.
    pub duration_ns: u32,
    /// The frame as the last run left it.
    pub frame: Vec<u8>,
}

/// The beginning of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RawProgramInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_length: u32,
    translated_length: u32,
    jited: u64,
    translated: u64,
    load_time: u64,
    created_by_uid: u32,
    map_count: u32,
    map_ids: u64,
    name: [u8; 16],
    /// From `ifindex` to `recursion_misses`.
    between: [u64; 17],
    verified_instructions: u32,
    attach_btf_object: u32,
}

#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct TestAttributes {
    program_fd: u32,
    verdict: u32,
    input_length: u32,
    output_length: u32,
    input: u64,
    output: u64,
    repeat: u32,
    duration: u32,
}

/// `r0 = XDP_PASS; exit`
const PASS: [u64; 2] = [0x0000_0002_0000_00b7, 0x95];

impl Program {
    /// Loads a program that passes every frame, also those in several buffers.
    pub(crate) fn load_pass() -> io::Result<Self> {
        let mut attributes = LoadAttributes {
            kind: bpf_prog_type::BPF_PROG_TYPE_XDP as u32,
            instruction_count: PASS.len() as u32,
            instructions: PASS.as_ptr() as u64,
            license: c"Apache-2.0".as_ptr() as u64,
            flags: BPF_F_XDP_HAS_FRAGS,
            ..Default::default()
        };
        // Instructions and licence are statics.
        open(Command::BPF_PROG_LOAD, &mut attributes).map(Self::from)
    }

    pub(crate) fn pinned(path: &Path) -> io::Result<Self> {
        get_pinned(path).map(Self::from)
    }

    pub(crate) fn by_id(id: u32) -> io::Result<Self> {
        get_by_id(Command::BPF_PROG_GET_FD_BY_ID, id).map(Self::from)
    }

    pub(crate) fn pin(&self, path: &Path) -> io::Result<()> {
        pin(self.fd.as_fd(), path)
    }

    /// The kernel's id of the program; never 0.
    pub(crate) fn id(&self) -> io::Result<u32> {
        Ok(info(self.fd.as_fd(), RawProgramInfo::default())?.id)
    }

    /// Its name, at most 15 bytes.
    pub(crate) fn name(&self) -> io::Result<String> {
        let name = info(self.fd.as_fd(), RawProgramInfo::default())?.name;
        let length = name.iter().position(|byte| *byte == 0).unwrap_or(16);
        Ok(String::from_utf8_lossy(&name[..length]).into_owned())
    }

    /// Whether it was compiled to machine code.
    pub(crate) fn is_jited(&self) -> io::Result<bool> {
        Ok(info(self.fd.as_fd(), RawProgramInfo::default())?.jited_length > 0)
    }

    /// Instructions that the verifier walked, of the million that it walks at most.
    pub(crate) fn verified_instructions(&self) -> io::Result<u32> {
        Ok(info(self.fd.as_fd(), RawProgramInfo::default())?.verified_instructions)
    }

    /// Ids of the maps that it uses.
    pub(crate) fn map_ids(&self) -> io::Result<Vec<u32>> {
        let count = info(self.fd.as_fd(), RawProgramInfo::default())?.map_count;
        let mut ids = vec![0_u32; count as usize];
        let request = RawProgramInfo {
            map_count: count,
            map_ids: ids.as_mut_ptr() as u64,
            ..Default::default()
        };
        // The kernel writes at most `map_count` ids, for which there is room.
        let answer = info(self.fd.as_fd(), request)?;
        ids.truncate(answer.map_count as usize);
        Ok(ids)
    }

    /// Runs the program `repeat` times on `frame`, attached or not.
    pub(crate) fn test_run(&self, frame: &[u8], repeat: u32) -> io::Result<TestRun> {
        // A program may put headers in front.
        let mut output = vec![0; frame.len() + HEADROOM];
        let mut attributes = TestAttributes {
            program_fd: raw(&self.fd),
            output_length: u32::try_from(output.len()).map_err(io::Error::other)?,
            output: output.as_mut_ptr() as u64,
            input_length: u32::try_from(frame.len()).map_err(io::Error::other)?,
            input: frame.as_ptr() as u64,
            repeat,
            ..Default::default()
        };
        // The kernel copies the frame in, and as much of it out as there is room for.
        call(Command::BPF_PROG_TEST_RUN, &mut attributes)?;
        output.truncate(attributes.output_length as usize);
        Ok(TestRun {
            verdict: attributes.verdict,
            duration_ns: attributes.duration,
            frame: output,
        })
    }
}

/// `XDP_PACKET_HEADROOM` of include/uapi/linux/bpf.h.
const HEADROOM: usize = 256;

impl From<OwnedFd> for Program {
    fn from(fd: OwnedFd) -> Self {
        Self { fd }
    }
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
