//! Options that several commands share, and how they are read.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    str::FromStr,
};

use clap::Args;
use headgate_agent::config::state_folder;
use headgate_crds::parse_cidr;
use headgate_datapath::state::FailsafePeer;
use headgate_kernel::Instance;

use crate::outcome::CliError;

/// Where an instance's agent keeps what it knows.
#[derive(Args, Clone, Debug)]
pub(crate) struct StateArguments {
    /// Instance of the agent on this node: names its pins, its state folder and its lock.
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = instance_name)]
    pub(crate) instance: String,

    /// Folder in which all instances keep their state.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/headgate")]
    pub(crate) state_dir: PathBuf,
}

/// Where an instance keeps what it has.
#[derive(Args, Clone, Debug)]
pub(crate) struct InstanceArguments {
    #[command(flatten)]
    pub(crate) state: StateArguments,

    /// Where the BPF file system is mounted.
    #[arg(long, value_name = "DIR", default_value = headgate_kernel::DEFAULT_BPFFS)]
    pub(crate) bpffs: PathBuf,
}

impl StateArguments {
    pub(crate) fn folder(&self) -> PathBuf {
        state_folder(&self.state_dir, &self.instance)
    }
}

impl InstanceArguments {
    pub(crate) fn folder(&self) -> PathBuf {
        self.state.folder()
    }

    pub(crate) fn kernel_instance(&self) -> Instance {
        Instance {
            name: self.state.instance.clone(),
        }
    }
}

/// What policies select a node by, and what its datapath spares.
#[derive(Args, Clone, Debug)]
pub(crate) struct NodeArguments {
    /// Name of this node [default: its host name].
    #[arg(long, value_name = "NAME", value_parser = node_name)]
    pub(crate) node_name: Option<String>,

    /// Labels of this node, which nodeSelectors are compared with: KEY=VALUE,KEY=VALUE.
    #[arg(
        long,
        value_name = "LABELS",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) node_labels: Labels,

    /// Addresses that no policy may cut off from this node, such as those of its administrators;
    /// may be given several times.
    #[arg(long = "failsafe-cidr", value_name = "CIDR", value_parser = failsafe_peer)]
    pub(crate) failsafe: Vec<FailsafePeer>,
}

impl NodeArguments {
    /// The name that was given, or the host's.
    pub(crate) fn name(&self) -> Result<String, CliError> {
        if let Some(name) = &self.node_name {
            return Ok(name.clone());
        }
        let host = rustix::system::uname();
        let name = host.nodename().to_str().map_err(|_| CliError::HostName)?;
        Ok(name.to_owned())
    }

    pub(crate) fn failsafe(&self) -> BTreeSet<FailsafePeer> {
        self.failsafe.iter().copied().collect()
    }
}

/// Labels as written on a command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Labels(pub(crate) BTreeMap<String, String>);

impl FromStr for Labels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut labels = BTreeMap::new();
        for label in text.split(',').filter(|_| !text.is_empty()) {
            let (key, value) = label
                .split_once('=')
                .ok_or_else(|| format!("{label:?} has no value; write KEY=VALUE,KEY=VALUE"))?;
            if !is_label_key(key) {
                return Err(format!(
                    "{key:?} is no label key; write letters, digits, '-', '_' and '.', at most 63, after a DNS name and '/' if you like"
                ));
            }
            if !(value.is_empty() || is_label_word(value)) {
                return Err(format!(
                    "{value:?} is no label value; write letters, digits, '-', '_' and '.', at most 63, a letter or digit at both ends"
                ));
            }
            if labels.insert(key.to_owned(), value.to_owned()).is_some() {
                return Err(format!(
                    "the label {key:?} is given twice; remove one of the two"
                ));
            }
        }
        Ok(Self(labels))
    }
}

fn is_label_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_dns_name(prefix) && is_label_word(name),
        None => is_label_word(key),
    }
}

fn is_label_word(word: &str) -> bool {
    let ends = |c: char| c.is_ascii_alphanumeric();
    let middle = |c: char| ends(c) || matches!(c, '-' | '_' | '.');
    word.len() <= 63 && word.starts_with(ends) && word.ends_with(ends) && word.chars().all(middle)
}

fn is_dns_name(name: &str) -> bool {
    let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let part = |part: &str| {
        part.starts_with(ends) && part.ends_with(ends) && part.chars().all(|c| ends(c) || c == '-')
    };
    name.len() <= 253 && name.split('.').all(part)
}

fn node_name(text: &str) -> Result<String, String> {
    if is_dns_name(text) {
        Ok(text.to_owned())
    } else {
        Err("write lower-case letters, digits, '-' and '.', at most 253".to_owned())
    }
}

fn instance_name(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if (1..=32).contains(&text.len()) && text.chars().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err("write 1 to 32 lower-case letters, digits and '-'".to_owned())
    }
}

/// As strict as a policy's CIDRs, and without bits behind the prefix: a slip here would open more
/// than was meant.
fn failsafe_peer(text: &str) -> Result<FailsafePeer, String> {
    let network = parse_cidr(text).map_err(|error| {
        format!("{error}; write ADDRESS/LENGTH, a single address with /32 or /128")
    })?;
    if network.trunc() != network {
        return Err(format!(
            "bits are set behind the prefix; write {} for the network, or /{} for the address alone",
            network.trunc(),
            network.max_prefix_len()
        ));
    }
    Ok(FailsafePeer::trusted(network.addr(), network.prefix_len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instance_names_are_short_and_plain() {
        for good in ["default", "a", "test-2", &"x".repeat(32)] {
            assert!(instance_name(good).is_ok(), "{good}");
        }
        for bad in ["", "A", "a_b", "a/b", "..", "ä", &"x".repeat(33)] {
            assert!(instance_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn labels_are_those_of_kubernetes() {
        let labels: Labels = "role=edge,topology.kubernetes.io/zone=a-1,empty="
            .parse()
            .expect("three labels");
        let expected = [
            ("role", "edge"),
            ("topology.kubernetes.io/zone", "a-1"),
            ("empty", ""),
        ];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(labels.0, BTreeMap::from(expected));
        assert_eq!("".parse(), Ok(Labels::default()));
        for bad in [
            "role",
            "=x",
            "a=b,,c=d",
            "a=-x",
            "a=b,a=c",
            "Upper.Prefix/a=b",
            "a/b/c=d",
            "a=b c",
        ] {
            assert!(bad.parse::<Labels>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_failsafe_cidr_says_exactly_what_it_opens() {
        let peer = failsafe_peer("192.0.2.0/24").expect("a network");
        assert_eq!(peer.to_string(), "192.0.2.0/24");
        assert_eq!(
            failsafe_peer("192.0.2.7/24"),
            Err("bits are set behind the prefix; write 192.0.2.0/24 for the network, or /32 for the address alone".into())
        );
        for bad in [
            "192.0.2.1",
            "010.0.0.0/8",
            "::ffff:192.0.2.0/120",
            "192.0.2.0/33",
            "x/8",
        ] {
            assert!(failsafe_peer(bad).is_err(), "{bad}");
        }
    }
}
