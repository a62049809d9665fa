//! What a client may take of the webhook. The port is open to every pod where no NetworkPolicy says
//! otherwise.

use std::time::Duration;

/// A review of the largest object that etcd takes, old and new, is below it.
pub(super) const MOST_BODY: usize = 3 << 20;
/// Bytes of all bodies that are read or judged at one time.
pub(super) const MOST_BODIES: usize = 48 << 20;
/// An API server keeps one connection, and streams of it for each request.
pub(super) const MOST_CONNECTIONS: usize = 256;
/// Requests of one connection at one time.
pub(super) const MOST_STREAMS: u32 = 64;
/// For a TLS handshake.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(5);
/// For the head of a request, and for the first request of a connection.
pub(super) const HEAD: Duration = Duration::from_secs(5);
/// For a body, the wait for room included: longer than that no API server waits for the answer.
pub(super) const BODY: Duration = Duration::from_secs(5);
/// A connection without requests is closed after so long; sooner where another wants its place.
pub(super) const IDLE: Duration = Duration::from_secs(90);
/// A client that is told of a connection's end, with nothing under way on it, may answer within.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);
/// What is under way when a connection is closed may end within.
pub(super) const GRACE: Duration = Duration::from_secs(10);
