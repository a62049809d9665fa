//! What a directory reads as: places, refusals, what is left aside.

mod again;
mod places;
mod refusals;

use std::{fs, path::Path};

use headgate_crds::Resource;
use headgate_source::{DirectorySource, Document, Listing, Reading};
use tempfile::TempDir;

const HEAD: &str = "apiVersion: headgate.dev/v1alpha1\n";

fn group(name: &str, cidr: &str) -> String {
    format!("{HEAD}kind: CidrGroup\nmetadata:\n  name: {name}\nspec:\n  cidrs:\n  - {cidr}\n")
}

struct Directory {
    folder: TempDir,
    source: DirectorySource<Resource>,
}

impl Directory {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let source = DirectorySource::new(folder.path(), |resource| resource);
        let directory = Self { folder, source };
        for (name, text) in files {
            directory.write(name, text);
        }
        directory
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().expect("inside of the directory")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn read(&mut self) -> Listing<Resource> {
        match self.source.read() {
            Reading::Complete(listing) => listing,
            Reading::Unavailable { reason } => panic!("unavailable: {reason}"),
        }
    }

    fn only_unreadable(&mut self) -> String {
        let listing = self.read();
        assert!(listing.documents.is_empty(), "{listing:?}");
        let [file] = listing.unreadable.as_slice() else {
            panic!("{listing:?}");
        };
        match file.line {
            Some(line) => format!("{}:{line}: {}", file.file, file.reason),
            None => format!("{}: {}", file.file, file.reason),
        }
    }
}

fn places(listing: &Listing<Resource>) -> Vec<String> {
    let documents = listing.documents.iter();
    documents
        .map(|d| format!("{} {} {}", d.origin, d.kind, d.name))
        .collect()
}

/// `line: path: reason; remedy` of every problem.
fn problems(document: &Document<Resource>) -> Vec<String> {
    let problems = document.content.as_ref().expect_err("it has problems");
    problems
        .iter()
        .map(|p| format!("{}: {p}", p.line.expect("a line")))
        .collect()
}
