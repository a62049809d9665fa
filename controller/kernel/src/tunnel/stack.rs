//! What the node's stack does with packets for pods: direct delivery would pass it by.

use std::{fs, io};

use headgate_datapath::{kernel::KernelError, tunnel::DEVICE};

use crate::{error::Asked, nftables};

/// Tables of iptables by family, as far as somebody made any; a kernel without them has no such file. Of the thread,
/// for a process may have threads in several network namespaces.
const IPTABLES: [(&str, &str); 2] = [
    ("iptables", "/proc/thread-self/net/ip_tables_names"),
    ("ip6tables", "/proc/thread-self/net/ip6_tables_names"),
];

/// Virtual servers of IPVS, below three lines of titles.
const IPVS: &str = "/proc/thread-self/net/ip_vs";
const TITLES: usize = 3;

/// Whoever has a part in packets from an interface of this network namespace to its pods: nftables, iptables, or
/// IPVS. `None` where nobody has. Whether their rules concern pods is not looked at: the next one may.
///
/// # Errors
/// Where the kernel does not answer.
pub fn stack_in_use() -> Result<Option<String>, KernelError> {
    let chains = nftables::base_chains().asked(|| "reading the chains of nftables".to_owned())?;
    if let Some(chain) = chains.iter().find(|chain| chain.sees_pods(DEVICE)) {
        return Ok(Some(format!("this node has {chain}")));
    }
    for (name, path) in IPTABLES {
        if let Some(table) = lines(path)?.first() {
            return Ok(Some(format!("this node has the table {table} of {name}")));
        }
    }
    if lines(IPVS)?.len() > TITLES {
        return Ok(Some("this node has virtual servers of IPVS".to_owned()));
    }
    Ok(None)
}

fn lines(path: &str) -> Result<Vec<String>, KernelError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).asked(|| format!("reading {path}")),
    }
}
