//! Waiting for a change of the directory.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    pin::Pin,
    time::Duration,
};

use futures_core::Stream;
use inotify::{Event, EventMask, EventStream, Inotify, WatchDescriptor, WatchMask};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::scan::Stamp;

/// A burst of writes has ended when nothing happened for so long.
const QUIET: Duration = Duration::from_millis(5);
/// A burst is cut off after so long.
const LONGEST_BURST: Duration = Duration::from_millis(50);
/// A file that was written to and not closed yet is waited for so long, for half of a
/// file may well parse.
const LONGEST_WRITE: Duration = Duration::from_millis(500);
/// How often the directory is looked at without being told: some file systems, network
/// ones above all, tell nothing.
const POLL: Duration = Duration::from_secs(5);
/// Room for some hundred events of usual names.
const BUFFER: usize = 16 << 10;

/// Tells when something happened in or around a directory. It never says that nothing
/// did: after [`POLL`] it lets the caller look.
#[derive(Default)]
pub(crate) struct Watch {
    inotify: Option<EventStream<Vec<u8>>>,
    folders: BTreeMap<PathBuf, Watched>,
    above: Option<Above>,
    /// Files that were written to and not closed yet, by folder and name.
    writing: BTreeSet<(i32, OsString)>,
    has_complained: bool,
}

struct Watched {
    stamp: Stamp,
    descriptor: WatchDescriptor,
}

/// The nearest folder above the directory that exists, and the name in it that leads to
/// the directory: what else happens there is none of our business.
struct Above {
    folder: PathBuf,
    watched: Watched,
    name: OsString,
}

impl Watch {
    /// Watches exactly `folders`, and what holds `directory`, so that its making and
    /// replacing is seen. Tells whether a folder was added.
    pub(crate) fn follow(
        &mut self,
        directory: &Path,
        folders: Option<&BTreeMap<PathBuf, Stamp>>,
    ) -> bool {
        let none = BTreeMap::new();
        let added = self
            .follow_folders(folders.unwrap_or(&none))
            .and_then(|added| Ok(self.follow_above(directory)? || added));
        added.unwrap_or_else(|error| {
            self.complain(directory, &error);
            false
        })
    }

    fn follow_folders(&mut self, wanted: &BTreeMap<PathBuf, Stamp>) -> io::Result<bool> {
        let mut unwatched = Vec::new();
        self.folders.retain(|folder, watched| {
            let is_wanted = wanted
                .get(folder)
                .is_some_and(|stamp| stamp.is_same_inode(&watched.stamp));
            if !is_wanted {
                unwatched.push(watched.descriptor.clone());
            }
            is_wanted
        });
        for descriptor in unwatched {
            self.unwatch(descriptor)?;
        }
        let mut added = false;
        for (folder, stamp) in wanted {
            if !self.folders.contains_key(folder) {
                let mask = WatchMask::CREATE
                    | WatchMask::DELETE
                    | WatchMask::MODIFY
                    | WatchMask::CLOSE_WRITE
                    | WatchMask::MOVE
                    | WatchMask::ATTRIB
                    | WatchMask::DELETE_SELF
                    | WatchMask::MOVE_SELF
                    | WatchMask::ONLYDIR;
                let watched = self.watch(folder, stamp, mask)?;
                self.folders.insert(folder.clone(), watched);
                added = true;
            }
        }
        Ok(added)
    }

    fn follow_above(&mut self, directory: &Path) -> io::Result<bool> {
        let Some((folder, name, stamp)) = nearest_above(directory) else {
            return Ok(false);
        };
        if let Some(above) = self.above.take() {
            if above.folder == folder && above.watched.stamp.is_same_inode(&stamp) {
                self.above = Some(above);
                return Ok(false);
            }
            self.unwatch(above.watched.descriptor)?;
        }
        let mask = WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::MOVE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        self.above = Some(Above {
            watched: self.watch(&folder, &stamp, mask)?,
            folder,
            name,
        });
        Ok(true)
    }

    fn watch(&mut self, folder: &Path, stamp: &Stamp, mask: WatchMask) -> io::Result<Watched> {
        let inotify = match &mut self.inotify {
            Some(inotify) => inotify,
            none => none.insert(Inotify::init()?.into_event_stream(vec![0; BUFFER])?),
        };
        let descriptor = inotify.watches().add(folder, mask)?;
        Ok(Watched {
            stamp: *stamp,
            descriptor,
        })
    }

    /// Two paths may lead to one folder, which then has one watch.
    fn unwatch(&mut self, descriptor: WatchDescriptor) -> io::Result<()> {
        let mut others = self
            .folders
            .values()
            .chain(self.above.iter().map(|a| &a.watched));
        if others.any(|watched| watched.descriptor == descriptor) {
            return Ok(());
        }
        if let Some(inotify) = &self.inotify {
            match inotify.watches().remove(descriptor) {
                // The kernel removes the watch of a deleted folder by itself.
                Err(error) if error.kind() != io::ErrorKind::InvalidInput => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Waits for an event, or for the next poll.
    pub(crate) async fn event(&mut self) {
        let poll = Instant::now() + POLL;
        if let Ok(Err(error)) = timeout_at(poll, self.next()).await {
            tracing::warn!(%error, "inotify failed; changes are seen by polling");
            *self = Self::default();
            sleep_until(poll).await;
        }
    }

    /// Waits for the end of a burst of events, the one that may be going on.
    pub(crate) async fn quiet(&mut self) {
        let start = Instant::now();
        loop {
            let end = if self.writing.is_empty() {
                (Instant::now() + QUIET).min(start + LONGEST_BURST)
            } else {
                start + LONGEST_WRITE
            };
            match timeout_at(end, self.next()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => break,
            }
        }
        // Who writes for longer, or has a word lost, does not hold up every later change.
        self.writing.clear();
    }

    /// Waits for an event that matters, and takes note of unfinished writes.
    async fn next(&mut self) -> io::Result<()> {
        loop {
            let Some(inotify) = &mut self.inotify else {
                return std::future::pending().await;
            };
            let event = std::future::poll_fn(|cx| Pin::new(&mut *inotify).poll_next(cx)).await;
            let event = event.ok_or(io::ErrorKind::UnexpectedEof)??;
            if self.take_note(event) {
                return Ok(());
            }
        }
    }

    /// Whether the event matters.
    fn take_note(&mut self, event: Event<OsString>) -> bool {
        if event.mask.contains(EventMask::IGNORED) {
            // The watched folder is gone; another may stand in its place.
            self.folders
                .retain(|_, watched| watched.descriptor != event.wd);
            self.above
                .take_if(|above| above.watched.descriptor == event.wd);
            return true;
        }
        let Some(name) = event.name else {
            return true;
        };
        if let Some(above) = &self.above
            && above.watched.descriptor == event.wd
        {
            return above.name == name;
        }
        let file = (event.wd.get_watch_descriptor_id(), name);
        if event.mask.contains(EventMask::MODIFY) {
            self.writing.insert(file);
        } else if event
            .mask
            .intersects(EventMask::CLOSE_WRITE | EventMask::DELETE | EventMask::MOVED_FROM)
        {
            self.writing.remove(&file);
        }
        true
    }

    fn complain(&mut self, directory: &Path, error: &io::Error) {
        if !self.has_complained {
            self.has_complained = true;
            tracing::warn!(
                %error,
                directory = %directory.display(),
                "cannot watch every folder, so changes are seen only every {} s; \
                 raise fs.inotify.max_user_watches and fs.inotify.max_user_instances",
                POLL.as_secs(),
            );
        }
    }
}

/// The nearest folder above `directory` that exists, and the name in it that leads down.
fn nearest_above(directory: &Path) -> Option<(PathBuf, OsString, Stamp)> {
    let mut below = directory;
    while let (Some(folder), Some(name)) = (below.parent(), below.file_name()) {
        // Above a relative path of one part is the working directory.
        let here = Path::new(".");
        let folder = if folder.as_os_str().is_empty() {
            here
        } else {
            folder
        };
        if let Ok(stamp) = Stamp::of(folder) {
            return Some((folder.to_owned(), name.to_owned(), stamp));
        }
        below = folder;
    }
    None
}
