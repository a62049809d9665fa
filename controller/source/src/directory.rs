//! A directory as the source of resources.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use headgate_crds::{Kind, Problem, Resource};

use crate::{
    document::{Document, Listing, Reading, UnreadableFile},
    file::{self, Contents},
    scan::{Scan, Stamp, scan},
    watch::Watch,
};

/// How often a directory is read that changes while it is read.
const MOST_READINGS: usize = 10;

/// All `*.yaml`, `*.yml` and `*.json` files of a directory and its folders, hidden
/// ones left out. Symbolic links are followed.
pub struct DirectorySource<T> {
    path: PathBuf,
    convert: Box<dyn Fn(Resource) -> T + Send>,
    files: BTreeMap<String, CachedFile<T>>,
    /// What [`Self::read`] saw last; `None` before, and where there was no directory.
    seen: Option<Scan>,
    has_read: bool,
    watch: Watch,
}

/// A file as it was parsed last.
struct CachedFile<T> {
    stamp: Stamp,
    /// The stamp may stand for another content by now.
    is_fresh: bool,
    digest: blake3::Hash,
    contents: Result<Contents<T>, UnreadableFile>,
}

impl<T> DirectorySource<T> {
    /// A source that reads `path` and keeps of each resource what `convert` makes of it.
    pub fn new(path: impl Into<PathBuf>, convert: impl Fn(Resource) -> T + Send + 'static) -> Self {
        Self {
            path: path.into(),
            convert: Box::new(convert),
            files: BTreeMap::new(),
            seen: None,
            has_read: false,
            watch: Watch::default(),
        }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the directory, at one moment of it: where files changed between the reading of one
    /// and another (a ConfigMap volume swaps all at once), they are read again. Only files that
    /// changed since the last reading are parsed.
    pub fn read(&mut self) -> Reading<T>
    where
        T: Clone,
    {
        self.has_read = true;
        self.seen = None;
        for _ in 0..MOST_READINGS {
            let found = match scan(&self.path) {
                Ok(found) => found,
                Err(error) => {
                    return Reading::Unavailable {
                        reason: error.to_string(),
                    };
                }
            };
            let listing = self.list(&found);
            if self.is_one_moment(&found) {
                self.seen = Some(found);
                return Reading::Complete(listing);
            }
        }
        Reading::Unavailable {
            reason: format!(
                "{} changed each of {MOST_READINGS} times that it was read",
                self.path.display()
            ),
        }
    }

    fn list(&mut self, found: &Scan) -> Listing<T>
    where
        T: Clone,
    {
        self.files.retain(|file, _| found.files.contains_key(file));
        let mut listing = Listing {
            documents: Vec::new(),
            unreadable: Vec::new(),
            warnings: Vec::new(),
            stale: None,
            slices: None,
        };
        for (file, stamp) in &found.files {
            match self.file(file, stamp.as_ref()) {
                Ok(contents) => {
                    listing.documents.extend(contents.documents.iter().cloned());
                    listing.warnings.extend(contents.warnings.iter().cloned());
                }
                Err(unreadable) => listing.unreadable.push(unreadable),
            }
        }
        refuse_duplicates(&mut listing.documents);
        listing
    }

    /// Waits until the directory differs from what [`Self::read`] saw last, and until a
    /// burst of changes has ended. Returns at once where it was never read. Dropping the
    /// future loses nothing.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O and time.
    pub async fn changed(&mut self) {
        if !self.has_read {
            return;
        }
        while !self.has_changed() {
            self.watch.event().await;
        }
        self.watch.quiet().await;
    }

    fn has_changed(&mut self) -> bool {
        let found = scan(&self.path).ok();
        let folders = found.as_ref().map(|found| &found.folders);
        if self.watch.follow(&self.path, folders) {
            // Something may have happened in a folder before it was watched.
            return self.has_changed();
        }
        match (&self.seen, &found) {
            (Some(seen), Some(found)) => {
                !found.has_same_files(seen) || self.hides_a_change(SystemTime::now())
            }
            (seen, found) => seen.is_some() != found.is_some(),
        }
    }

    /// Whether a file has another content under the stamp of the last reading.
    fn hides_a_change(&mut self, now: SystemTime) -> bool {
        let mut is_changed = false;
        for (file, known) in self.files.iter_mut().filter(|(_, known)| known.is_fresh) {
            let bytes = file::read_bytes(&self.path.join(file), file);
            let differs = bytes.map_or(true, |(bytes, _)| blake3::hash(&bytes) != known.digest);
            known.is_fresh = differs || known.stamp.is_fresh(now);
            is_changed |= differs;
        }
        is_changed
    }

    /// The contents of one file, from the cache where it did not change.
    fn file(&mut self, file: &str, stamp: Option<&Stamp>) -> Result<&Contents<T>, UnreadableFile> {
        let Some(stamp) = stamp else {
            self.files.remove(file);
            return Err(UnreadableFile {
                file: file.into(),
                line: None,
                reason: "is a symbolic link that leads nowhere; mend or delete it".into(),
            });
        };
        let is_known = self
            .files
            .get(file)
            .is_some_and(|known| known.stamp == *stamp && !known.is_fresh);
        if !is_known {
            self.parse(file)?;
        }
        match &self.files[file].contents {
            Ok(contents) => Ok(contents),
            Err(unreadable) => Err(unreadable.clone()),
        }
    }

    fn parse(&mut self, file: &str) -> Result<(), UnreadableFile> {
        let now = SystemTime::now();
        let (bytes, stamp) = match file::read_bytes(&self.path.join(file), file) {
            Ok(read) => read,
            Err(unreadable) => {
                self.files.remove(file);
                return Err(unreadable);
            }
        };
        let is_fresh = stamp.is_fresh(now);
        let digest = blake3::hash(&bytes);
        match self.files.get_mut(file) {
            Some(known) if known.digest == digest => {
                known.stamp = stamp;
                known.is_fresh = is_fresh;
            }
            _ => {
                let cached = CachedFile {
                    stamp,
                    is_fresh,
                    digest,
                    contents: file::parse(file, &bytes, &self.convert),
                };
                self.files.insert(file.to_owned(), cached);
            }
        }
        Ok(())
    }

    /// Whether what was parsed are the files that were found, each of them still there.
    fn is_one_moment(&self, found: &Scan) -> bool {
        let is_as_found = |(file, stamp): (&String, &Option<Stamp>)| {
            let parsed = self.files.get(file);
            parsed.is_none_or(|parsed| Some(parsed.stamp) == *stamp)
        };
        found.files.iter().all(is_as_found)
            && scan(&self.path).is_ok_and(|again| again.has_same_files(found))
    }
}

/// Of two documents of one kind and name neither is taken: which one is meant would
/// depend on file names.
fn refuse_duplicates<T: Clone>(documents: &mut [Arc<Document<T>>]) {
    let mut places: HashMap<(Kind, &str), Vec<usize>> = HashMap::new();
    for (index, document) in documents.iter().enumerate() {
        let same = places.entry((document.kind, &document.name)).or_default();
        same.push(index);
    }
    let repeated: Vec<Vec<usize>> = places.into_values().filter(|p| p.len() > 1).collect();
    for indices in repeated {
        let origins: Vec<_> = indices
            .iter()
            .map(|i| documents[*i].origin.clone())
            .collect();
        for (position, index) in indices.into_iter().enumerate() {
            let others: Vec<String> = origins
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != position)
                .map(|(_, origin)| origin.to_string())
                .collect();
            let document = &*documents[index];
            let problem = Problem {
                path: "metadata.name".into(),
                reason: format!(
                    "{} {} at {} is also at {}, and neither is taken",
                    document.kind,
                    document.name,
                    document.origin,
                    others.join(" and ")
                ),
                remedy: "rename or delete one of them".into(),
                line: document.origin.line,
            };
            documents[index] = Arc::new(Document {
                content: Err(vec![problem]),
                ..document.clone()
            });
        }
    }
}
