//! `headgate plan`.

mod against;
mod interfaces;
mod resources;
mod view;

use std::{collections::BTreeSet, path::PathBuf, str::FromStr};

use clap::Args;

use crate::{
    arguments::{InstanceArguments, NodeArguments},
    outcome::{CliError, Outcome},
    output::OutputArguments,
};

/// Show what the resources in a directory would change on this node. Changes nothing, ever.
///
/// Compiles them as the agent of this node would, with its interfaces and with what it remembers,
/// and prints what there is to say about them with file and line, the sizes of the tables, and what
/// would change: resources, interfaces, and the steps in the kernel. The running state is the
/// measure, or what another directory compiles to, which needs no root.
#[derive(Args, Debug)]
#[command(after_help = "\
Exit codes:
  0  all resources compile, whether anything would change or not
  1  a directory, or the state to compare with, cannot be read
  2  bad usage
  3  something is refused: a finding is Stalled

Examples:
  headgate plan policies/                        what would change on this node now
  headgate plan new/ --against old/              what a change of files comes to, without root
  headgate plan new/ --against old/ --interfaces eth0 --node-labels role=edge
                                                 the same for a node that this is not")]
pub(crate) struct PlanArguments {
    /// Directory of the resources to compile.
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// What to compare with: the word live, or another directory.
    #[arg(long, value_name = "DIR|live", default_value = "live")]
    against: Against,

    /// Interfaces that the node is taken to have, the first with its default route, in place of
    /// this node's own; only against a directory.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = interface_name)]
    interfaces: Vec<String>,

    #[command(flatten)]
    node: NodeArguments,

    #[command(flatten)]
    output: OutputArguments,

    #[command(flatten)]
    place: InstanceArguments,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Against {
    Live,
    Directory(PathBuf),
}

impl FromStr for Against {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "live" => Self::Live,
            path => Self::Directory(path.into()),
        })
    }
}

/// As the kernel takes them: at most 15 bytes.
fn interface_name(text: &str) -> Result<String, String> {
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '/' | ':');
    if (1..=15).contains(&text.len()) && text.chars().all(plain) && text != "." && text != ".." {
        Ok(text.to_owned())
    } else {
        Err("write 1 to 15 characters without blanks, '/' and ':'".to_owned())
    }
}

pub(crate) fn run(arguments: &PlanArguments) -> Result<Outcome, CliError> {
    let names: BTreeSet<_> = arguments.interfaces.iter().collect();
    if names.len() < arguments.interfaces.len() {
        usage("an interface is given twice by --interfaces; remove one of the two");
    }
    let (before, compilation) = match &arguments.against {
        Against::Live if !arguments.interfaces.is_empty() => usage(
            "--interfaces makes a node up, and this one's live state is no measure for it; add --against DIR, or leave --interfaces out",
        ),
        Against::Live => against::live(arguments)?,
        Against::Directory(directory) => against::directory(arguments, directory)?,
    };
    let plan = view::PlanView::new(&before, &compilation)?;
    arguments.output.show(&plan, view::table)?;
    Ok(Outcome::fine_if(!plan.refused))
}

/// Ends as clap does with what it finds by itself.
fn usage(message: &str) -> ! {
    use clap::CommandFactory as _;
    let kind = clap::error::ErrorKind::ArgumentConflict;
    crate::cli::Cli::command().error(kind, message).exit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_called_live_can_be_named() {
        assert_eq!("live".parse(), Ok(Against::Live));
        assert_eq!("./live".parse(), Ok(Against::Directory("./live".into())));
    }

    #[test]
    fn interface_names_are_the_kernels() {
        for good in ["eth0", "br-lan", "enp3s0f1np1.100"] {
            assert!(interface_name(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a/b", "..", "sixteen-letters!"] {
            assert!(interface_name(bad).is_err(), "{bad}");
        }
    }
}
