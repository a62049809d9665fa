//! `headgate detach`.

use clap::Args;
use headgate_agent::lock::{InstanceLock, LockError};
use headgate_datapath::{
    kernel::Kernel as _,
    observed::Attached,
    state::{Ifindex, PortIndex},
    tunnel::DEVICE,
};
use headgate_kernel::RunningKernel;

use crate::{
    arguments::InstanceArguments,
    live::interface_names,
    outcome::{CliError, Outcome},
    output::{count, print},
};

/// Take every program of an instance off this node's interfaces: nothing is enforced any more.
///
/// Removes links, programs, tables and counters from the kernel, at once and without asking.
/// Refuses while an agent of the instance runs, for it would attach them again. The state folder
/// stays: an agent that is started again enforces what its source says.
#[derive(Args, Debug)]
#[command(after_help = "\
Exit codes:
  0  nothing of the instance is left in the kernel
  1  an agent runs, or something could not be removed
  2  bad usage")]
pub(crate) struct DetachArguments {
    #[command(flatten)]
    place: InstanceArguments,
}

pub(crate) fn run(arguments: &DetachArguments) -> Result<Outcome, CliError> {
    let place = &arguments.place;
    let _lock = lock(place)?;
    let mut kernel = RunningKernel::open_read_only(&place.kernel_instance(), &place.bpffs)?;
    let attached = attached(&mut kernel);
    let links = kernel.detach_all()?;
    print(&told(&place.state.instance, &attached, links))?;
    Ok(Outcome::Fine)
}

/// Held to the end, so that no agent starts in between.
fn lock(place: &InstanceArguments) -> Result<InstanceLock, CliError> {
    InstanceLock::take(&place.folder()).map_err(|error| match error {
        LockError::Held { pid } => CliError::AgentRuns {
            instance: place.state.instance.clone(),
            pid,
        },
        error @ LockError::File { .. } => CliError::Lock(error),
    })
}

/// What is attached, for people; what cannot be read, such as pins of another layout, is taken down
/// all the same.
fn attached(kernel: &mut RunningKernel) -> Vec<String> {
    let observed = kernel.observe().unwrap_or_default();
    let names = interface_names().unwrap_or_default();
    let describe = |(port, link): (&PortIndex, &Attached)| {
        let ifindex = link.ifindex?;
        let name = names.get(&ifindex).cloned();
        let name = name.unwrap_or_else(|| numbered(ifindex));
        Some(format!("{name} ({port}, {} mode)", link.mode))
    };
    let tunnel = observed
        .tunnel
        .programs
        .map(|_| format!("{DEVICE} (the tunnel)"));
    let links = observed.links.iter().filter_map(describe);
    links.chain(tunnel).collect()
}

fn numbered(ifindex: Ifindex) -> String {
    format!("interface {}", ifindex.0)
}

fn told(instance: &str, attached: &[String], links: usize) -> String {
    if links == 0 {
        return format!("instance {instance}: nothing was attached\n");
    }
    let lines: String = attached
        .iter()
        .map(|interface| format!("detached from {interface}\n"))
        .collect();
    let dangling = links.saturating_sub(attached.len());
    let rest = match dangling {
        0 => String::new(),
        n => format!(
            "removed {} on no interface of this network namespace\n",
            count(n, "link")
        ),
    };
    format!("{lines}{rest}instance {instance}: nothing is enforced any more\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_removed_is_told() {
        let attached = ["eth0 (port 0, native mode)".to_owned()];
        assert_eq!(
            told("default", &attached, 2),
            "detached from eth0 (port 0, native mode)\n\
             removed 1 link on no interface of this network namespace\n\
             instance default: nothing is enforced any more\n"
        );
        assert_eq!(told("a", &[], 0), "instance a: nothing was attached\n");
    }
}
