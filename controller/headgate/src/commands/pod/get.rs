//! `headgate pod get`.

use std::{net::IpAddr, str::FromStr};

use clap::Args;
use headgate_kernel::pods::neighbourhood;

use super::{
    names::{self, Names, Row},
    view::{self, PodView, ProgramView},
};
use crate::{
    arguments::StateArguments,
    outcome::{CliError, Outcome},
    output::{OutputArguments, fields, section},
};

/// Show where a pod is, by a Pod's name or by an address, or why that cannot be said.
///
/// There is an entry for each address of the Pod, and for each Pod that has the address.
#[derive(Args, Debug)]
pub(super) struct GetArguments {
    /// The Pod, or any address.
    #[arg(value_name = "NAMESPACE/NAME|ADDRESS")]
    pod: Asked,

    #[command(flatten)]
    output: OutputArguments,

    #[command(flatten)]
    state: StateArguments,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    Address(IpAddr),
    /// Namespace and name of a Pod, with a slash between.
    Pod(String),
}

impl FromStr for Asked {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        match text.split_once('/') {
            Some((namespace, name))
                if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
            {
                Ok(Self::Pod(text.to_owned()))
            }
            _ => Err("write an address without a prefix's length, or NAMESPACE/NAME of a Pod"),
        }
    }
}

pub(super) fn run(arguments: &GetArguments) -> Result<Outcome, CliError> {
    let names = Names::read(&arguments.state);
    let view = view::views(rows(&arguments.pod, &names)?)?;
    names.tell();
    arguments.output.show(&view, |view| {
        let tables: Vec<String> = view.iter().map(table).collect();
        tables.join("\n")
    })?;
    Ok(Outcome::Fine)
}

fn rows(asked: &Asked, names: &Names) -> Result<Vec<Row>, CliError> {
    let facts = neighbourhood()?;
    let pods = names.pods.as_deref();
    let name = match asked {
        Asked::Address(address) => return Ok(names::at(&facts, pods, *address)),
        Asked::Pod(name) => name,
    };
    let mut known = pods.into_iter().flatten();
    let pod = known.find(|pod| pod.to_string() == *name);
    let pod = pod.ok_or_else(|| CliError::no_pod(name, names.note.clone()))?;
    Ok(names::of(&facts, pod))
}

fn table(pod: &PodView) -> String {
    let Some(place) = &pod.place else {
        let reason = pod.reason.clone().unwrap_or_default();
        return fields([
            ("Pod", pod.owner()),
            ("Address", pod.address()),
            ("Interface", format!("not known: {reason}")),
        ]);
    };
    let unknown = || "not known".to_owned();
    let peer = place.peer_ifindex.map(|peer| peer.to_string());
    let mut text = fields([
        ("Pod", pod.owner()),
        ("Address", pod.address()),
        (
            "Interface",
            format!("{} ({})", place.interface, place.ifindex),
        ),
        ("Pod's end", peer.unwrap_or_else(unknown)),
        ("MTU", place.mtu.to_string()),
        ("Way", place.way()),
        ("Device address", place.mac.clone().unwrap_or_else(unknown)),
    ]);
    let programs = place.programs.iter().map(ProgramView::line);
    text.push_str(&section("Programs", programs));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_asked_for_by_address_or_by_name() {
        let asked = |text: &str| text.parse::<Asked>();
        let address = [10, 244, 1, 2].into();
        assert_eq!(asked("10.244.1.2"), Ok(Asked::Address(address)));
        assert_eq!(asked("shop/web-0"), Ok(Asked::Pod("shop/web-0".to_owned())));
        for bad in ["web-0", "/web-0", "shop/", "a/b/c", ""] {
            assert!(asked(bad).is_err(), "{bad}");
        }
    }
}
