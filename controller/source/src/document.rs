//! What a reading yields, of a directory or of the Kubernetes API.

use std::{fmt, sync::Arc};

use headgate_crds::{Kind, Problem};
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// One look at a source. `T` is what is kept of a resource.
#[derive(Debug)]
pub enum Reading<T> {
    /// The source was read; what is not listed does not exist.
    Complete(Listing<T>),
    /// The source could not be read: nothing is known, so keep what is.
    Unavailable {
        /// Why, for the user.
        reason: String,
    },
}

/// Everything in a source, by file name and line, or by uid.
#[derive(Debug)]
pub struct Listing<T> {
    /// The resources, good and bad. What did not change is the same `Arc` as in the reading
    /// before.
    pub documents: Vec<Arc<Document<T>>>,
    /// Files of which it is not known what they hold; what they held last stays.
    /// None of the documents is from such a file.
    pub unreadable: Vec<UnreadableFile>,
    /// What was left aside.
    pub warnings: Vec<Warning>,
    /// Why this is what was last heard and perhaps not what is: the API does not answer.
    pub stale: Option<String>,
    /// The EndpointSlices of all Services, where a service uses some; `None` where they are not known.
    pub slices: Option<Vec<Arc<EndpointSlice>>>,
}

/// One resource as a file or the API holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct Document<T> {
    /// Where it stands.
    pub origin: Origin,
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Its identity: the API's, or a hash of kind and name, 32 hexadecimal digits.
    pub uid: String,
    /// Its generation, where an API counts them.
    pub generation: Option<u64>,
    /// BLAKE3 of its labels and spec: what changes with its meaning, not with
    /// comments, annotations or place.
    pub written: [u8; 32],
    /// The resource, or what is wrong with it, each problem with its line.
    pub content: Result<T, Vec<Problem>>,
    /// What is accepted but hardly meant, with lines.
    pub warnings: Vec<Problem>,
}

/// Where a resource was read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// The file, relative to the directory, or the API's list.
    pub list: String,
    /// Line in the file, from 1.
    pub line: Option<u32>,
}

impl fmt::Display for Origin {
    /// `file:line`, or the list alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.list),
            None => f.write_str(&self.list),
        }
    }
}

/// A file of which it is not known what resources it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableFile {
    /// The file, relative to the directory.
    pub file: String,
    /// Where in it, where that is known.
    pub line: Option<u32>,
    /// What is wrong, and what to do.
    pub reason: String,
}

/// Something that was left aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Where.
    pub origin: Origin,
    /// What and why.
    pub message: String,
}
