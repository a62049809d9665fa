//! Which files there are, and whether they changed, by metadata alone.

use std::{
    collections::BTreeMap,
    fs::Metadata,
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Deeper trees are not searched: a symbolic link may lead back up.
const DEEPEST: usize = 16;
/// A write within this time after the last one may leave the time of change as it is:
/// the kernel's clock for it ticks every 4 ms, on some kernels every 10.
const CLOCK_TICK: Duration = Duration::from_millis(20);
/// How often a scan is begun anew because a folder changed under it.
const ATTEMPTS: usize = 10;

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// When content or permissions changed last; no tool can set it back.
    changed: SystemTime,
}

impl Stamp {
    /// The state of the file or directory at `path`, through symbolic links.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        Ok(Self::from(&metadata))
    }

    /// Whether a write just after this one could look the same.
    pub(crate) fn is_fresh(&self, now: SystemTime) -> bool {
        now.duration_since(self.changed)
            .map_or(true, |age| age < CLOCK_TICK)
    }

    /// Whether it is still the same file or directory, changed or not.
    pub(crate) fn is_same_inode(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            changed: time_of_change(metadata),
        }
    }
}

fn time_of_change(metadata: &Metadata) -> SystemTime {
    let seconds = u64::try_from(metadata.ctime()).unwrap_or_default();
    let nanoseconds = u32::try_from(metadata.ctime_nsec()).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds)
}

/// The files and folders of a directory at one time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Files that may hold resources, by their path relative to the directory, in
    /// its order. `None` is a link that leads nowhere.
    pub(crate) files: BTreeMap<String, Option<Stamp>>,
    /// The directory and all below it.
    pub(crate) folders: BTreeMap<PathBuf, Stamp>,
}

/// A folder that cannot be listed.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be read: {source}", folder.display())]
pub(crate) struct ScanError {
    folder: PathBuf,
    #[source]
    source: io::Error,
}

/// Why a scan came to nothing.
enum Hindrance {
    /// The folder changed while it was listed: a file that was renamed, or that lies in a
    /// directory that was, may have been missed.
    Changed(PathBuf),
    Failed(ScanError),
}

impl From<ScanError> for Hindrance {
    fn from(error: ScanError) -> Self {
        Self::Failed(error)
    }
}

/// Looks through `directory`, at one moment of it. One folder that cannot be listed fails
/// the whole, for its files would else seem to be deleted.
pub(crate) fn scan(directory: &Path) -> Result<Scan, ScanError> {
    let mut changed = directory.to_owned();
    for _ in 0..ATTEMPTS {
        let mut scan = Scan::default();
        match scan.folder(directory, "", 0) {
            Ok(()) => return Ok(scan),
            Err(Hindrance::Failed(error)) => return Err(error),
            Err(Hindrance::Changed(folder)) => changed = folder,
        }
    }
    Err(ScanError {
        folder: changed,
        source: io::Error::other("it changed each time that it was listed"),
    })
}

impl Scan {
    /// Files without the stamps of folders, which change with every temporary file.
    pub(crate) fn has_same_files(&self, other: &Self) -> bool {
        self.files == other.files
    }

    fn folder(&mut self, path: &Path, relative: &str, depth: usize) -> Result<(), Hindrance> {
        let failed = |source| ScanError {
            folder: path.to_owned(),
            source,
        };
        let stamp = Stamp::of(path).map_err(failed)?;
        self.folders.insert(path.to_owned(), stamp);
        for entry in std::fs::read_dir(path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            // A name that is not UTF-8 cannot be told to the user; no tool makes them.
            let Some(name) = name.to_str().filter(|name| !is_left_out(name)) else {
                continue;
            };
            let relative = if relative.is_empty() {
                name.to_owned()
            } else {
                format!("{relative}/{name}")
            };
            self.entry(&entry.path(), relative, depth)?;
        }
        if Stamp::of(path).map_err(failed)? != stamp {
            return Err(Hindrance::Changed(path.to_owned()));
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, relative: String, depth: usize) -> Result<(), Hindrance> {
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                if depth < DEEPEST {
                    self.folder(path, &relative, depth + 1)?;
                }
            }
            Ok(metadata) if metadata.is_file() && holds_resources(&relative) => {
                self.files.insert(relative, Some(Stamp::from(&metadata)));
            }
            Ok(_) => {}
            // It went since the folder was listed, or the folder itself did.
            Err(_) if path.symlink_metadata().is_err() => {
                return Err(Hindrance::Changed(path.to_owned()));
            }
            // A link that leads nowhere.
            Err(_) if holds_resources(&relative) => {
                self.files.insert(relative, None);
            }
            Err(_) => {}
        }
        Ok(())
    }
}

fn holds_resources(file: &str) -> bool {
    [".yaml", ".yml", ".json"]
        .iter()
        .any(|ending| file.ends_with(ending))
}

/// Hidden entries, `..data` of a ConfigMap volume among them, and what editors leave
/// beside a file while it is open.
fn is_left_out(name: &str) -> bool {
    name.starts_with(['.', '#', '~'])
}
