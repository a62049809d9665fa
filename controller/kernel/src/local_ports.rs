//! Ports that the node's own connections leave from.

use std::{fs, io};

use headgate_datapath::{failsafe::PortRange, kernel::KernelError};

use crate::error::Asked;

const PATH: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// `net.ipv4.ip_local_port_range` of this network namespace, which is IPv6's too.
///
/// # Errors
/// Where it cannot be read.
pub fn local_ports() -> Result<PortRange, KernelError> {
    fs::read_to_string(PATH)
        .and_then(|text| {
            range(&text).ok_or_else(|| io::Error::other(format!("{text:?} is no range of ports")))
        })
        .asked(|| format!("reading {PATH}"))
}

fn range(text: &str) -> Option<PortRange> {
    let mut numbers = text.split_whitespace().map(str::parse);
    let range = PortRange::new(numbers.next()?.ok()?, numbers.next()?.ok()?);
    range.filter(|_| numbers.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_text_is_two_numbers() {
        assert_eq!(range("32768\t60999\n"), PortRange::new(32_768, 60_999));
        for nonsense in ["", "32768", "1 2 3", "2 1", "0 5", "a b", "1 65536"] {
            assert_eq!(range(nonsense), None, "{nonsense}");
        }
    }
}
