//! Where resources come from: a directory of YAML and JSON files, or the Kubernetes API.
//!
//! `read` of [`DirectorySource`] and of [`kubernetes::KubernetesSource`] gives all resources, each
//! with its place; `changed` waits until there is something new to read. What cannot be read is
//! said, never taken for "no resources".

mod directory;
mod document;
mod file;
pub mod kubernetes;
mod scan;
mod watch;
mod yaml;

pub use directory::DirectorySource;
pub use document::{Document, Listing, Origin, Reading, UnreadableFile, Warning};
