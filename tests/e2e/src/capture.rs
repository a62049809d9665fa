//! Frames of an interface, kept for a program that decodes them.

use std::{
    fs,
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, SockProtocol, recv},
};

use crate::{namespace::Namespace, tap::open};

/// Of a file as tcpdump writes it: the number of the format, its version, no time zone, the longest frame, and
/// that frames begin with Ethernet.
const FILE: [u32; 6] = [0xa1b2_c3d4, 4 << 16 | 2, 0, 0, 1 << 16, 1];

/// Keeps what comes and leaves by an interface from its begin on.
#[derive(Debug)]
pub struct Capture(OwnedFd);

impl Capture {
    /// Begins.
    ///
    /// # Panics
    /// Where the kernel refuses.
    #[must_use]
    pub fn open(namespace: &Namespace, interface: &str) -> Self {
        let (socket, _) = open(namespace, interface, Some(SockProtocol::EthAll));
        Self(socket)
    }

    /// Writes what was kept until now to a file, without times.
    ///
    /// # Panics
    /// Where the file cannot be written.
    pub fn write(&self, file: &Path) {
        let mut bytes: Vec<u8> = FILE.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut buffer = vec![0; 1 << 16];
        loop {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => {
                    let kept = u32::try_from(length).expect("no frame is that long");
                    for word in [0, 0, kept, kept] {
                        bytes.extend(word.to_ne_bytes());
                    }
                    bytes.extend(&buffer[..length]);
                }
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => panic!("receiving frames: {errno}"),
            }
        }
        fs::write(file, bytes).expect("the folder is ours");
    }
}
