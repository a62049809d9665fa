//! What a leader had under way when it was cut off is not sent once another leads.

use std::{net::SocketAddr, time::Duration};

use rustix::{
    net::{getsockname, sockopt::set_socket_linger},
    process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open},
};

/// Lets the kernel forget what is not sent yet of a connection when it closes, instead of sending it for minutes
/// after its process has ended (`SO_LINGER` of 0). Connections that others have opened to one of the ports in
/// `listening` are left alone: their answers are to arrive. Where the kernel does not give a process its own
/// descriptors (before Linux 5.6, or by a filter of system calls), nothing changes.
pub(crate) fn forget_unsent_at_close(listening: &[u16]) {
    let Ok(own) = pidfd_open(getpid(), PidfdFlags::empty()) else {
        return;
    };
    let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    let numbers = descriptors
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    for number in numbers {
        let Ok(socket) = pidfd_getfd(&own, number, PidfdGetfdFlags::empty()) else {
            continue;
        };
        let local = getsockname(&socket).ok();
        let local = local.and_then(|local| SocketAddr::try_from(local).ok());
        if local.is_some_and(|local| !listening.contains(&local.port())) {
            let _ = set_socket_linger(&socket, Some(Duration::ZERO));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use rustix::net::sockopt::socket_linger;

    use super::*;

    #[test]
    fn connections_of_others_are_left_alone() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("an address");
        let client = TcpStream::connect(address).expect("connected");
        let (server, _) = listener.accept().expect("accepted");
        forget_unsent_at_close(&[address.port()]);
        assert_eq!(socket_linger(&client), Ok(Some(Duration::ZERO)));
        assert_eq!(socket_linger(&server), Ok(None));
    }
}
