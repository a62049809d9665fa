//! Where everything is pinned.
//!
//! ```text
//! <bpffs>/headgate/<instance>/v<layout version>/
//!   ACTIVE  RULE_COUNTERS  REASON_COUNTERS  FAILSAFE  FAILSAFE_BITS
//!   MONITORED  MONITOR  MONITOR_BUDGETS  EVENTS  ERROR_BUDGETS  FLOWS  PLACEMENTS
//!   slots-<capacity>                            the outer map for programs of this capacity
//!   links/port<number>                          what keeps a program on its interface
//!   programs/port<number>-<object>-<capacity>   the program behind that link
//!   egress/port<number>-<object>                what keeps a program at the interface's egress
//!   overlay/interface<number>-<object>          what keeps the program for overlays at an interface's ingress
//!   TUNNEL  TUNNEL_COUNTERS                     what the tunnel's programs share, from the first tunnel on
//!   tunnel/<side>-<object>                      what keeps a program at the tunnel's device by TCX
//!   classifiers/<side>-<object>                 the program at the tunnel's device by clsact
//! <bpffs>/headgate/<instance>/native-routes     there, and empty, where there may be plain routes to peers
//! ```

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use headgate_datapath::{
    kernel::KernelError,
    state::{Capacity, Digest, Ifindex, PortIndex},
};
use headgate_layout::LAYOUT_VERSION;

use crate::{
    error::{Asked, if_present, unusable},
    tunnel::Metrics,
};

/// Where the BPF file system is mounted by custom.
pub const DEFAULT_BPFFS: &str = "/sys/fs/bpf";

/// Name under which one agent keeps its pins, so that several live side by side on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Letters, digits, `-` and `_`: the BPF file system refuses dots.
    pub name: String,
}

/// Folders of one layout version, those with links first.
const FOLDERS: [&str; 6] = [
    LINKS,
    EGRESSES,
    OVERLAYS,
    TUNNEL_LINKS,
    CLASSIFIERS,
    "programs",
];

/// The folders of one layout version that hold links, those at the tunnel's device apart.
pub(crate) const LINK_FOLDERS: [&str; 3] = [LINKS, EGRESSES, OVERLAYS];

pub(crate) const LINKS: &str = "links";
pub(crate) const EGRESSES: &str = "egress";
pub(crate) const OVERLAYS: &str = "overlay";
pub(crate) const TUNNEL_LINKS: &str = "tunnel";
pub(crate) const CLASSIFIERS: &str = "classifiers";

/// The pins of one instance.
#[derive(Clone, Debug)]
pub(crate) struct Pins {
    /// `<bpffs>/headgate/<instance>`
    instance: PathBuf,
    /// The folder of our layout version.
    root: PathBuf,
}

/// Which packets of a device a program sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    /// Those that came.
    In,
    /// Those that leave.
    Out,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::In => "in",
            Self::Out => "out",
        })
    }
}

/// Name of a pinned program, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProgramPin {
    pub(crate) port: PortIndex,
    pub(crate) object: Digest,
    pub(crate) capacity: Capacity,
}

impl Pins {
    pub(crate) fn new(instance: &Instance, bpffs: &Path) -> Result<Self, KernelError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let name = &instance.name;
        if name.is_empty() || name.len() > 64 || !name.chars().all(allowed) {
            return Err(unusable(
                format!("instance name {name:?} cannot name a folder of a BPF file system"),
                "use 1 to 64 letters, digits, `-` and `_`",
            ));
        }
        let instance = bpffs.join("headgate").join(name);
        let root = instance.join(format!("v{LAYOUT_VERSION}"));
        Ok(Self { instance, root })
    }

    pub(crate) fn instance(&self) -> &Path {
        &self.instance
    }

    /// Says that there may be plain routes of the instance, whatever the layout: a folder with nothing in it.
    pub(crate) fn native(&self) -> PathBuf {
        self.instance.join("native-routes")
    }

    /// The metrics of the instance's routes.
    pub(crate) fn metrics(&self) -> Metrics {
        let name = self.instance.file_name().unwrap_or_default();
        Metrics::of(&name.to_string_lossy())
    }

    /// Folders of other layout versions, which agents of them have left.
    pub(crate) fn other_layouts(&self) -> Result<Vec<PathBuf>, KernelError> {
        let is_layout = |name: &String| {
            let number = name.strip_prefix('v');
            number.is_some_and(|number| number.parse::<u32>().is_ok())
        };
        let names = names_in(&self.instance)?.into_iter().filter(is_layout);
        let folders = names.map(|name| self.instance.join(name));
        Ok(folders.filter(|folder| *folder != self.root).collect())
    }

    /// The folder of our layout version.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn slots(&self, capacity: Capacity) -> PathBuf {
        self.root.join(format!("slots-{}", capacity.0))
    }

    pub(crate) fn link(&self, port: PortIndex) -> PathBuf {
        self.root.join(LINKS).join(format!("port{}", port.number()))
    }

    pub(crate) fn program(&self, pin: &ProgramPin) -> PathBuf {
        self.root.join("programs").join(pin.file_name())
    }

    /// The link at the egress, with a program of `object`.
    pub(crate) fn egress(&self, port: PortIndex, object: Digest) -> PathBuf {
        let name = format!("port{}-{object}", port.number());
        self.root.join(EGRESSES).join(name)
    }

    /// Links at the egress, with the objects of their programs.
    pub(crate) fn egresses(&self) -> Result<Vec<(PortIndex, Digest)>, KernelError> {
        let names = names_in(&self.root.join(EGRESSES))?;
        let parse = |name: &String| {
            let (port, object) = name.split_once('-')?;
            Some((port_of(port)?, object.parse().ok()?))
        };
        Ok(names.iter().filter_map(parse).collect())
    }

    /// The link of the program for overlays, of `object`, at an interface.
    pub(crate) fn overlay(&self, ifindex: Ifindex, object: Digest) -> PathBuf {
        let name = format!("interface{}-{object}", ifindex.0);
        self.root.join(OVERLAYS).join(name)
    }

    /// Links of the program for overlays, with the objects that it is from.
    pub(crate) fn overlays(&self) -> Result<Vec<(Ifindex, Digest)>, KernelError> {
        let names = names_in(&self.root.join(OVERLAYS))?;
        let parse = |name: &String| {
            let (interface, object) = name.split_once('-')?;
            let number = interface.strip_prefix("interface")?.parse().ok()?;
            Some((Ifindex(number), object.parse().ok()?))
        };
        Ok(names.iter().filter_map(parse).collect())
    }

    /// The link at one side of the tunnel's device, with a program of `object`.
    pub(crate) fn tunnel(&self, side: Side, object: Digest) -> PathBuf {
        let name = format!("{side}-{object}");
        self.root.join(TUNNEL_LINKS).join(name)
    }

    /// Links at the tunnel's device, with the objects of their programs.
    pub(crate) fn tunnels(&self) -> Result<Vec<(Side, Digest)>, KernelError> {
        self.sides(TUNNEL_LINKS)
    }

    /// The program of `object` for one side of the tunnel's device, by clsact.
    pub(crate) fn classifier(&self, side: Side, object: Digest) -> PathBuf {
        let name = format!("{side}-{object}");
        self.root.join(CLASSIFIERS).join(name)
    }

    /// Programs at the tunnel's device by clsact, with their objects.
    pub(crate) fn classifiers(&self) -> Result<Vec<(Side, Digest)>, KernelError> {
        self.sides(CLASSIFIERS)
    }

    fn sides(&self, folder: &str) -> Result<Vec<(Side, Digest)>, KernelError> {
        let names = names_in(&self.root.join(folder))?;
        let parse = |name: &String| {
            let (side, object) = name.split_once('-')?;
            let side = [Side::In, Side::Out]
                .into_iter()
                .find(|known| known.to_string() == side)?;
            Some((side, object.parse().ok()?))
        };
        Ok(names.iter().filter_map(parse).collect())
    }

    /// Makes the folders.
    pub(crate) fn make(&self) -> Result<(), KernelError> {
        for folder in FOLDERS {
            let path = self.root.join(folder);
            // Once more where another instance has just removed the folder that both share.
            fs::create_dir_all(&path)
                .or_else(|_| fs::create_dir_all(&path))
                .asked(|| format!("making the folder {}", path.display()))?;
        }
        Ok(())
    }

    /// Capacities with an outer map.
    pub(crate) fn capacities(&self) -> Result<Vec<Capacity>, KernelError> {
        let names = names_in(&self.root)?;
        let mut found: Vec<_> = names
            .iter()
            .filter_map(|name| name.strip_prefix("slots-")?.parse().ok())
            .map(Capacity)
            .collect();
        found.sort_unstable();
        Ok(found)
    }

    /// Ports with a link.
    pub(crate) fn links(&self) -> Result<Vec<PortIndex>, KernelError> {
        let names = names_in(&self.root.join("links"))?;
        Ok(names.iter().filter_map(|name| port_of(name)).collect())
    }

    /// Pinned programs.
    pub(crate) fn programs(&self) -> Result<Vec<ProgramPin>, KernelError> {
        let names = names_in(&self.root.join("programs"))?;
        Ok(names
            .iter()
            .filter_map(|name| ProgramPin::parse(name))
            .collect())
    }
}

impl ProgramPin {
    fn file_name(&self) -> String {
        let port = self.port.number();
        format!("port{port}-{}-{}", self.object, self.capacity.0)
    }

    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.splitn(3, '-');
        Some(Self {
            port: port_of(parts.next()?)?,
            object: parts.next()?.parse().ok()?,
            capacity: Capacity(parts.next()?.parse().ok()?),
        })
    }
}

fn port_of(name: &str) -> Option<PortIndex> {
    PortIndex::new(name.strip_prefix("port")?.parse().ok()?)
}

/// Names in a folder; none where the folder is absent.
pub(crate) fn names_in(folder: &Path) -> Result<Vec<String>, KernelError> {
    let read = || -> io::Result<Vec<String>> {
        let Some(entries) = if_present(fs::read_dir(folder))? else {
            return Ok(Vec::new());
        };
        entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    };
    read().asked(|| format!("reading the folder {}", folder.display()))
}

/// Takes away a pin; one that is absent is no error.
pub(crate) fn unpin(path: &Path) -> Result<(), KernelError> {
    if_present(fs::remove_file(path))
        .map(drop)
        .asked(|| format!("removing the pin {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_pin_tells_what_it_was_loaded_from() {
        let pin = ProgramPin {
            port: PortIndex::new(7).expect("below MAX_PORTS"),
            object: Digest::of(b"object"),
            capacity: Capacity(65_536),
        };
        assert_eq!(ProgramPin::parse(&pin.file_name()), Some(pin));
        assert_eq!(ProgramPin::parse("port7"), None);
        assert_eq!(ProgramPin::parse("port999-aa-1"), None);
    }

    #[test]
    fn a_name_that_the_file_system_refuses_is_refused_with_a_remedy() {
        for name in ["", "a.b", "a/b", &"x".repeat(65)] {
            let instance = Instance { name: name.into() };
            let refused = Pins::new(&instance, Path::new(DEFAULT_BPFFS));
            assert!(
                matches!(refused, Err(KernelError::Unusable { .. })),
                "{name}"
            );
        }
    }
}
