//! Maps.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use aya_obj::generated::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, bpf_map_type};
use headgate_layout::maps::{MapSpec, MapType};

use super::{Command, call, get_by_id, get_pinned, info, name_of, open, pin, raw};

/// An open map, with the sizes that the kernel copies by.
#[derive(Debug)]
pub(crate) struct Map {
    fd: OwnedFd,
    info: MapInfo,
    /// Bytes that the kernel copies for one value, over all CPUs where there is one for each.
    value_bytes: usize,
}

/// The beginning of `struct bpf_map_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct CreateAttributes {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    name: [u8; 16],
}

#[repr(C)]
#[derive(Default)]
struct ElementAttributes {
    map_fd: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct BatchAttributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    element_flags: u64,
    flags: u64,
}

#[repr(C)]
struct FreezeAttributes {
    map_fd: u32,
}

impl Map {
    /// Makes a map of this shape; an array of maps takes maps of `inner`'s shape.
    pub(crate) fn create(spec: &MapSpec, name: &str, inner: Option<&Self>) -> io::Result<Self> {
        let mut attributes = CreateAttributes {
            kind: kind_of(spec.kind) as u32,
            key_size: spec.key_size,
            value_size: spec.value_size,
            max_entries: spec.max_entries,
            flags: flags_of(spec),
            inner_map_fd: inner.map_or(0, |inner| raw(&inner.fd)),
            numa_node: 0,
            name: name_of(name),
        };
        Self::from_fd(open(Command::BPF_MAP_CREATE, &mut attributes)?)
    }

    pub(crate) fn pinned(path: &Path) -> io::Result<Self> {
        Self::from_fd(get_pinned(path)?)
    }

    pub(crate) fn by_id(id: u32) -> io::Result<Self> {
        Self::from_fd(get_by_id(Command::BPF_MAP_GET_FD_BY_ID, id)?)
    }

    fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let info = info(fd.as_fd(), MapInfo::default())?;
        let per_cpu = info.kind == bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY as u32;
        let value_bytes = if per_cpu {
            info.value_size.next_multiple_of(8) as usize * possible_cpus()?
        } else {
            info.value_size as usize
        };
        Ok(Self {
            fd,
            info,
            value_bytes,
        })
    }

    pub(crate) fn pin(&self, path: &Path) -> io::Result<()> {
        pin(self.fd.as_fd(), path)
    }

    /// The kernel's id of the map; never 0.
    pub(crate) fn id(&self) -> u32 {
        self.info.id
    }

    /// Bytes of one value as it is copied: over all CPUs where there is one for each.
    pub(crate) fn value_bytes(&self) -> usize {
        self.value_bytes
    }

    /// Bytes between one CPU's value and the next's.
    pub(crate) fn stride(&self) -> usize {
        self.info.value_size.next_multiple_of(8) as usize
    }

    /// Whether the map has just this shape.
    pub(crate) fn is(&self, spec: &MapSpec) -> bool {
        self.info.kind == kind_of(spec.kind) as u32
            && self.info.key_size == spec.key_size
            && self.info.value_size == spec.value_size
            && self.info.max_entries == spec.max_entries
            && self.info.flags == flags_of(spec)
    }

    /// The value of `key`; an error of kind `NotFound` where there is none.
    pub(crate) fn lookup(&self, key: &[u8]) -> io::Result<Vec<u8>> {
        let mut value = vec![0; self.value_bytes];
        self.element(Command::BPF_MAP_LOOKUP_ELEM, key, value.as_mut_ptr() as u64)?;
        Ok(value)
    }

    pub(crate) fn update(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        assert_eq!(value.len(), self.value_bytes, "a value of the map's size");
        self.element(Command::BPF_MAP_UPDATE_ELEM, key, value.as_ptr() as u64)
    }

    /// Makes `inner` the entry of an array of maps.
    pub(crate) fn update_map(&self, key: u32, inner: &Self) -> io::Result<()> {
        self.update(&key.to_ne_bytes(), &raw(&inner.fd).to_ne_bytes())
    }

    pub(crate) fn delete(&self, key: &[u8]) -> io::Result<()> {
        self.element(Command::BPF_MAP_DELETE_ELEM, key, 0)
    }

    /// The key behind `key`, or the first; `None` behind the last.
    pub(crate) fn next_key(&self, key: Option<&[u8]>) -> io::Result<Option<Vec<u8>>> {
        let mut next = vec![0; self.info.key_size as usize];
        if let Some(key) = key {
            assert_eq!(key.len(), next.len(), "a key of the map's size");
        }
        let mut attributes = ElementAttributes {
            map_fd: raw(&self.fd),
            key: key.map_or(0, |key| key.as_ptr() as u64),
            value: next.as_mut_ptr() as u64,
            ..Default::default()
        };
        // `key` and `next` are of the map's key size, as just seen.
        match call(Command::BPF_MAP_GET_NEXT_KEY, &mut attributes) {
            Ok(_) => Ok(Some(next)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn element(&self, command: Command, key: &[u8], value: u64) -> io::Result<()> {
        assert_eq!(key.len(), self.info.key_size as usize, "the map's key size");
        let mut attributes = ElementAttributes {
            map_fd: raw(&self.fd),
            key: key.as_ptr() as u64,
            value,
            ..Default::default()
        };
        // The key is of the map's size, and so is the value: every caller sees to that.
        call(command, &mut attributes).map(drop)
    }

    /// Writes values by index, in one call.
    pub(crate) fn update_batch(&self, keys: &[u32], values: &[u8]) -> io::Result<()> {
        assert_eq!(self.info.key_size, 4, "an array");
        assert_eq!(values.len(), keys.len() * self.value_bytes, "a value a key");
        let mut attributes = BatchAttributes {
            keys: keys.as_ptr() as u64,
            values: values.as_ptr() as u64,
            count: keys.len() as u32,
            map_fd: raw(&self.fd),
            ..Default::default()
        };
        // Both buffers hold `count` entries of the map's sizes, as just seen.
        call(Command::BPF_MAP_UPDATE_BATCH, &mut attributes).map(drop)
    }

    /// As [`Self::update_batch`], for the entries of an array of maps.
    pub(crate) fn update_map_batch(&self, entries: &[(u32, &Self)]) -> io::Result<()> {
        let keys: Vec<u32> = entries.iter().map(|(key, _)| *key).collect();
        let values: Vec<u8> = entries
            .iter()
            .flat_map(|(_, inner)| raw(&inner.fd).to_ne_bytes())
            .collect();
        self.update_batch(&keys, &values)
    }

    /// Reads the values of an array from index `first` on, `count` of them, in one call.
    pub(crate) fn lookup_batch(&self, first: u32, count: u32) -> io::Result<Vec<u8>> {
        assert_eq!(self.info.key_size, 4, "an array");
        // The kernel starts behind the key that it is given.
        let before = first.wrapping_sub(1);
        let mut keys = vec![0_u32; count as usize];
        let mut values = vec![0; count as usize * self.value_bytes];
        let mut reached = 0_u32;
        let mut attributes = BatchAttributes {
            in_batch: if first == 0 {
                0
            } else {
                std::ptr::from_ref(&before) as u64
            },
            out_batch: std::ptr::from_mut(&mut reached) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count,
            map_fd: raw(&self.fd),
            ..Default::default()
        };
        // Both buffers hold `count` entries of the map's sizes; `before` and `reached` are keys.
        match call(Command::BPF_MAP_LOOKUP_BATCH, &mut attributes) {
            // NotFound says that the map's end was reached; the values up to there are read.
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => {
                values.truncate(attributes.count as usize * self.value_bytes);
                Ok(values)
            }
        }
    }

    /// Refuses every later write from user space. No writable memory map may be left.
    pub(crate) fn freeze(&self) -> io::Result<()> {
        let mut attributes = FreezeAttributes {
            map_fd: raw(&self.fd),
        };
        call(Command::BPF_MAP_FREEZE, &mut attributes).map(drop)
    }

    /// Whether the map is frozen. The info by descriptor lacks it, the one in /proc has it.
    pub(crate) fn is_frozen(&self) -> io::Result<bool> {
        let path = format!("/proc/self/fdinfo/{}", self.fd.as_raw_fd());
        let text = std::fs::read_to_string(path)?;
        Ok(text
            .lines()
            .filter_map(|line| line.strip_prefix("frozen:"))
            .any(|value| value.trim() == "1"))
    }
}

impl AsFd for Map {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn kind_of(kind: MapType) -> bpf_map_type {
    match kind {
        MapType::Array => bpf_map_type::BPF_MAP_TYPE_ARRAY,
        MapType::PerCpuArray => bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY,
        MapType::LpmTrie => bpf_map_type::BPF_MAP_TYPE_LPM_TRIE,
        MapType::ArrayOfMaps => bpf_map_type::BPF_MAP_TYPE_ARRAY_OF_MAPS,
        MapType::Hash => bpf_map_type::BPF_MAP_TYPE_HASH,
        MapType::RingBuffer => bpf_map_type::BPF_MAP_TYPE_RINGBUF,
    }
}

fn flags_of(spec: &MapSpec) -> u32 {
    // The kernel makes no trie without the first flag.
    let trie = if spec.kind == MapType::LpmTrie {
        BPF_F_NO_PREALLOC
    } else {
        0
    };
    let mmapable = if spec.mmapable { BPF_F_MMAPABLE } else { 0 };
    trie | mmapable
}

/// CPUs for which per-CPU maps hold a value: those that could ever be online.
fn possible_cpus() -> io::Result<usize> {
    aya::util::nr_cpus().map_err(|(path, error)| io::Error::other(format!("{path}: {error}")))
}
