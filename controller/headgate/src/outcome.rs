//! How a command ends: exit codes, and errors in one line.

use std::{io, net::SocketAddr, path::PathBuf, process::ExitCode};

use headgate_agent::{AgentError, lock::LockError, store::StoreError};
use headgate_datapath::{diff::DiffError, kernel::KernelError};

/// Exit code of a command that could not do what was asked; 2 is clap's, for bad usage.
pub(crate) const FAILED: u8 = 1;
/// Exit code of a command that did, and found something that needs somebody's attention.
const ATTENTION: u8 = 3;

/// How a command ended that did what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing is amiss.
    Fine,
    /// Something selected is not enforced, or refused.
    Attention,
}

impl Outcome {
    pub(crate) fn fine_if(fine: bool) -> Self {
        if fine { Self::Fine } else { Self::Attention }
    }
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Fine => Self::SUCCESS,
            Outcome::Attention => Self::from(ATTENTION),
        }
    }
}

/// Why a command could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error("{0}{remedy}", remedy = kernel_remedy(.0))]
    Kernel(#[from] KernelError),
    #[error("{0}{remedy}", remedy = store_remedy(.0))]
    Store(#[from] StoreError),
    #[error("{0}{remedy}", remedy = agent_remedy(.0))]
    Agent(#[from] AgentError),
    #[error(transparent)]
    Operator(#[from] headgate_operator::OperatorError),
    #[error("{0}{remedy}", remedy = diff_remedy(.0))]
    Diff(#[from] DiffError),
    #[error("{0}; look at its permissions, or name another state folder by --state-dir")]
    Lock(LockError),
    #[error(
        "an agent of instance {instance:?} is running (pid {pid}) and would attach everything again; stop it first"
    )]
    AgentRuns { instance: String, pid: String },
    #[error(
        "no agent of instance {instance:?} has left a report in {}; start `headgate agent`, or give the --instance and --state-dir that it was started with",
        folder.display()
    )]
    NoReport { instance: String, folder: PathBuf },
    #[error("there is no policy {name:?} on this node; {known}")]
    NoPolicy { name: String, known: String },
    #[error("there is no LoadBalancerService {name:?} on this node; {known}")]
    NoService { name: String, known: String },
    #[error("no service of this node serves {protocol} at {address}; see `headgate lb list`")]
    NotServed {
        address: SocketAddr,
        protocol: &'static str,
    },
    #[error("there is no TunnelPeer {name:?} on this node; {known}")]
    NoPeer { name: String, known: String },
    #[error(
        "there is no Pod {name:?} on this node that has a network namespace of its own; see `headgate pod list` ({known})"
    )]
    NoPod { name: String, known: String },
    #[error("the two addresses are of two families; give two IPv4 or two IPv6 addresses")]
    TwoFamilies,
    #[error("there is no rule {name} in effect on this node; {known}")]
    NoRule { name: String, known: String },
    #[error("{}", headgate_source::kubernetes::explain(.0))]
    Api(Box<kube::Error>),
    #[error("{0}; name a kubeconfig by --kubeconfig, or a context of it by --context")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    #[error("the resources cannot be read: {0}; name a directory of YAML files")]
    Unavailable(String),
    #[error(
        "HEADGATE_LOG is no filter: {0}; write a level such as `info` or `headgate_agent=debug`"
    )]
    LogFilter(String),
    #[error("starting the runtime: {0}; look at the limits of open files and memory (`ulimit -a`)")]
    Runtime(io::Error),
    #[error("the name of this host cannot be told: it is no UTF-8; give --node-name")]
    HostName,
    #[error("writing to standard output: {0}; look at where it leads")]
    Output(io::Error),
}

impl CliError {
    /// There is no policy of this name, but of those that are known.
    pub(crate) fn no_policy(name: &str, known: &[String]) -> Self {
        Self::NoPolicy {
            name: name.to_owned(),
            known: listed(known),
        }
    }

    /// There is no service of this name, but of those that are known.
    pub(crate) fn no_service(name: &str, known: &[String]) -> Self {
        Self::NoService {
            name: name.to_owned(),
            known: listed(known),
        }
    }

    /// No peer is called so.
    pub(crate) fn no_peer(name: &str, known: &[String]) -> Self {
        Self::NoPeer {
            name: name.to_owned(),
            known: listed(known),
        }
    }

    /// No Pod is called so, as far as names are known.
    pub(crate) fn no_pod(name: &str, note: Option<String>) -> Self {
        Self::NoPod {
            name: name.to_owned(),
            known: note.unwrap_or_else(|| {
                "those with hostNetwork, and those that have ended, are not kept".to_owned()
            }),
        }
    }

    /// Nothing is served at this address and port.
    pub(crate) fn not_served(address: SocketAddr, protocol: &'static str) -> Self {
        Self::NotServed { address, protocol }
    }
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "there is none at all".to_owned(),
        names => format!("there are: {}", names.join(", ")),
    }
}

const AS_ROOT: &str = "; run it as root";

fn remedy_of(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => AS_ROOT,
        _ => "",
    }
}

fn kernel_remedy(error: &KernelError) -> &'static str {
    match error {
        KernelError::Call { source, .. } | KernelError::Attach { source, .. } => remedy_of(source),
        _ => "",
    }
}

fn diff_remedy(error: &DiffError) -> &'static str {
    match error {
        DiffError::Failsafe(_) => "",
        DiffError::TooLarge { .. } => {
            "; this is an error of headgate, please report it with the resources"
        }
    }
}

fn store_remedy(error: &StoreError) -> &'static str {
    match error {
        StoreError::File { source, .. } => remedy_of(source),
        StoreError::Damaged { .. } => "; the agent writes it anew when it is started again",
    }
}

fn agent_remedy(error: &AgentError) -> &'static str {
    match error {
        AgentError::Kernel(error) => kernel_remedy(error),
        AgentError::Lock(LockError::File { source, .. }) => remedy_of(source),
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_permission_comes_with_its_remedy() {
        let error = CliError::from(KernelError::Call {
            what: "reading the folder /sys/fs/bpf/headgate/default".into(),
            source: io::ErrorKind::PermissionDenied.into(),
        });
        assert_eq!(
            error.to_string(),
            "reading the folder /sys/fs/bpf/headgate/default: permission denied; run it as root"
        );
    }

    #[test]
    fn only_what_needs_attention_has_the_code_for_it() {
        let code = |outcome: Outcome| format!("{:?}", ExitCode::from(outcome));
        assert_eq!(
            code(Outcome::fine_if(true)),
            format!("{:?}", ExitCode::SUCCESS)
        );
        assert_eq!(
            code(Outcome::fine_if(false)),
            format!("{:?}", ExitCode::from(3))
        );
    }
}
