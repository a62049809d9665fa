//! The tries against a naive model: what is built, read by the reader of the eBPF program.

mod model;
mod v4;
mod v6;
