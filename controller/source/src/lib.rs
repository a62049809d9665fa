//! Where resources come from: a directory of YAML and JSON files.
//!
//! [`DirectorySource::read`] gives all resources of the directory, each with its
//! file and line; [`DirectorySource::changed`] waits until there is something
//! new to read. What cannot be read is said, never taken for "no resources".

mod directory;
mod document;
mod file;
mod scan;
mod watch;
mod yaml;

pub use directory::DirectorySource;
pub use document::{Document, Listing, Origin, Reading, UnreadableFile, Warning};
