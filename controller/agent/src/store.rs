//! The state folder of an instance: memory, last good resources, report.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
};

use headgate_compile::{
    memory::{LastGood, Memory},
    snapshot::Uid,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::report::Report;

/// Why the state folder failed. Outcome: enforcement goes on, the error is reported.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or folder.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Content that is not ours or was damaged.
    #[error("{} is damaged: {source}", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

/// The state folder.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    /// What the files hold, to write only what changed.
    memory: Option<Memory>,
    report: Option<Report>,
}

impl Store {
    /// The state in `folder`, which is made if absent.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let resources = folder.join("resources");
        std::fs::create_dir_all(&resources).map_err(|source| StoreError::File {
            path: resources,
            source,
        })?;
        Ok(Self {
            folder: folder.to_owned(),
            memory: None,
            report: None,
        })
    }

    /// The memory, or `None` where there is none yet.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn memory(&mut self) -> Result<Option<Memory>, StoreError> {
        let Some(mut memory) = read::<Memory>(&self.folder.join("memory.json"))? else {
            return Ok(None);
        };
        memory.last_good = self.last_good()?;
        self.memory = Some(memory.clone());
        Ok(Some(memory))
    }

    fn last_good(&self) -> Result<BTreeMap<Uid, LastGood>, StoreError> {
        let folder = self.folder.join("resources");
        let failed = |source| StoreError::File {
            path: folder.clone(),
            source,
        };
        let mut found = BTreeMap::new();
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let Some(uid) = path.file_stem().and_then(|stem| stem.to_str()) else {
                continue;
            };
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
                && let Some(resource) = read(&path)?
            {
                found.insert(uid.to_owned(), resource);
            }
        }
        Ok(found)
    }

    /// Keeps `memory`, as far as it changed.
    ///
    /// # Errors
    /// It may then be kept in part; the next call mends that.
    pub fn keep(&mut self, memory: &Memory) -> Result<(), StoreError> {
        if self.memory.as_ref() == Some(memory) {
            return Ok(());
        }
        let known = self.memory.take().unwrap_or_default();
        for (uid, resource) in &memory.last_good {
            if known.last_good.get(uid) != Some(resource) {
                write(&self.resource_path(uid), resource)?;
            }
        }
        write(&self.folder.join("memory.json"), memory)?;
        for uid in known.last_good.keys() {
            if !memory.last_good.contains_key(uid) {
                remove(&self.resource_path(uid))?;
            }
        }
        self.memory = Some(memory.clone());
        Ok(())
    }

    fn resource_path(&self, uid: &Uid) -> PathBuf {
        self.folder.join("resources").join(format!("{uid}.json"))
    }

    /// Writes the report where it changed; whether it did.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn publish(&mut self, report: &Report) -> Result<bool, StoreError> {
        if self.report.as_ref() == Some(report) {
            return Ok(false);
        }
        write(&self.folder.join("report.json"), report)?;
        self.report = Some(report.clone());
        Ok(true)
    }

    /// Moves damaged files out of the way, for a person to look at; where they are now.
    ///
    /// # Errors
    /// The files cannot be moved.
    pub fn set_aside(&mut self) -> Result<PathBuf, StoreError> {
        let aside = self.folder.join("damaged");
        let failed = |source| StoreError::File {
            path: aside.clone(),
            source,
        };
        match std::fs::remove_dir_all(&aside) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            _ => std::fs::create_dir_all(&aside).map_err(failed)?,
        }
        for name in ["memory.json", "resources"] {
            match std::fs::rename(self.folder.join(name), aside.join(name)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        }
        std::fs::create_dir_all(self.folder.join("resources")).map_err(failed)?;
        self.memory = None;
        Ok(aside)
    }
}

/// The report of an instance, or `None` where no agent has written one.
///
/// # Errors
/// It is there and cannot be read.
pub fn report(folder: &Path) -> Result<Option<Report>, StoreError> {
    read(&folder.join("report.json"))
}

pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    match std::fs::read(path) {
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Some(value)),
            Err(source) => Err(StoreError::Damaged {
                path: path.to_owned(),
                source,
            }),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StoreError::File {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Writes whole or not at all: a new file takes the old one's place once it is on the disk.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), StoreError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let attempt = || -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        let mut buffer = std::io::BufWriter::new(&mut file);
        serde_json::to_writer(&mut buffer, value)?;
        buffer.flush()?;
        drop(buffer);
        file.as_file().sync_data()?;
        file.persist(path)?;
        Ok(())
    };
    attempt().map_err(|source| StoreError::File {
        path: path.to_owned(),
        source,
    })
}

pub(crate) fn remove(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != ErrorKind::NotFound => Err(StoreError::File {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}
