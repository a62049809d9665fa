//! Frames and the fields that are read of them, path by path.

#[path = "../frames/mod.rs"]
mod frames;

mod buffers;
mod ipv4;
mod ipv6;
mod link;
mod mutations;
mod transport;

use headgate_packet::parse::{Packet, ParseError, Parsed, parse};

/// The fields of a frame that must have some.
fn fields(frame: &[u8]) -> Packet {
    match parse(frame) {
        Ok(Parsed::Ip(packet)) => packet,
        other => panic!("{frame:02x?} was read as {other:?}"),
    }
}

/// Why a frame has no fields; it must have none.
fn error(frame: &[u8]) -> ParseError {
    parse(frame).expect_err("the frame cannot be read")
}
