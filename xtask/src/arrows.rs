//! The arrows that must never exist between crates, and the check that none does.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use serde_json::Value;

use crate::cargo;

/// Crates, and what they must not depend on.
struct Rule {
    from: &'static [&'static str],
    never: Never,
    why: &'static str,
}

enum Never {
    /// Any crate of the workspace besides these.
    WorkspaceExcept(&'static [&'static str]),
    /// These crates, through whichever others; `prefix*` stands for a family.
    Reach(&'static [&'static str]),
    /// These crates, named in the crate's own manifest.
    Name(&'static [&'static str]),
}

/// Every crate of the workspace has a row here, or stands in `FREE`.
const RULES: &[Rule] = &[
    Rule {
        from: &["headgate-layout", "headgate-build-ebpf"],
        never: Never::WorkspaceExcept(&[]),
        why: "ebpf/ is below everything else",
    },
    Rule {
        from: &["headgate-packet"],
        never: Never::WorkspaceExcept(&["headgate-layout"]),
        why: "packet runs in the kernel: nothing of the host's may reach it",
    },
    Rule {
        from: &["headgate-programs"],
        never: Never::WorkspaceExcept(&["headgate-layout", "headgate-packet"]),
        why: "programs run in the kernel: nothing of the host's may reach them",
    },
    Rule {
        from: &["headgate-crds", "headgate-compile", "headgate-datapath"],
        never: Never::Reach(&[
            "kube-client",
            "kube-runtime",
            "hyper*",
            "tokio*",
            "aya*",
            "netlink-*",
            "rtnetlink",
            "rustix",
            "nix",
            "tempfile",
            "notify",
        ]),
        why: "a pure crate knows no Kubernetes client, no runtime, no kernel and no files",
    },
    Rule {
        from: &["headgate-crds"],
        never: Never::WorkspaceExcept(&[]),
        why: "the resource types say nothing of how they are carried out",
    },
    Rule {
        from: &["headgate-datapath"],
        never: Never::WorkspaceExcept(&["headgate-layout"]),
        why: "plans speak of the datapath alone, not of resources or the kernel",
    },
    Rule {
        from: &["headgate-compile"],
        never: Never::Reach(&["headgate-kernel", "headgate-source", "headgate-agent"]),
        why: "the flow goes one way: compile gives a state and does nothing",
    },
    Rule {
        from: &["headgate-kernel"],
        never: Never::Reach(&["headgate-crds", "headgate-compile", "kube*", "k8s-openapi"]),
        why: "the kernel crate carries out and never decides",
    },
    Rule {
        from: &["headgate-source"],
        never: Never::Reach(&["headgate-kernel", "headgate-compile", "headgate-datapath"]),
        why: "where resources come from has no say in what becomes of them",
    },
    Rule {
        from: &["headgate-telemetry"],
        never: Never::WorkspaceExcept(&[]),
        why: "it serves what others know",
    },
    Rule {
        from: &["headgate-operator"],
        never: Never::Reach(&["headgate-kernel", "headgate-agent", "aya*"]),
        why: "the operator knows what nodes show, never a kernel",
    },
    Rule {
        from: &["headgate-source", "headgate-agent", "headgate"],
        never: Never::Name(&["aya*", "netlink-*", "rtnetlink"]),
        why: "only headgate-kernel may name what speaks to the kernel",
    },
];

/// Crates that may depend on everything: nothing of the product depends on them.
const FREE: &[&str] = &[
    "headgate-kernel-tests",
    "headgate-e2e-tests",
    "headgate-bench",
    "xtask",
];

/// The manifest of the one crate in the rules that stands outside the workspace.
const PROGRAMS: (&str, &str) = ("headgate-programs", "ebpf/programs/Cargo.toml");

/// Checks every rule; prints one line a broken one and fails.
pub(crate) fn check() -> Result<()> {
    let workspace = workspace_crates()?;
    let mut broken = Vec::new();
    for name in &workspace {
        let ruled = RULES.iter().any(|rule| rule.from.contains(&name.as_str()));
        if !ruled && !FREE.contains(&name.as_str()) {
            broken.push(format!("{name} has no row in xtask/src/arrows.rs"));
        }
    }
    for rule in RULES {
        for from in rule.from {
            let names = dependencies(from, matches!(rule.never, Never::Name(_)))?;
            for to in forbidden(&names, &rule.never, &workspace) {
                broken.push(format!("{from} -> {to}: {}", rule.why));
            }
        }
    }
    for arrow in &broken {
        eprintln!("arrows: {arrow}");
    }
    if !broken.is_empty() {
        bail!(
            "{} arrows that must not exist; `cargo tree -p CRATE -e normal -i DEPENDENCY` shows the way",
            broken.len()
        );
    }
    println!(
        "arrows: {} rules hold over {} crates",
        RULES.len(),
        workspace.len() + 1
    );
    Ok(())
}

fn workspace_crates() -> Result<BTreeSet<String>> {
    let metadata =
        cargo::output(cargo::command().args(["metadata", "--no-deps", "--format-version=1"]))?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    Ok(metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|package| package["name"].as_str())
        .map(str::to_owned)
        .collect())
}

/// The names of a crate's normal dependencies: all that it reaches, or those it names itself.
fn dependencies(name: &str, direct: bool) -> Result<BTreeSet<String>> {
    let mut tree = cargo::command();
    tree.args([
        "tree", "-e", "normal", "--prefix", "none", "--format", "{p}",
    ]);
    if name == PROGRAMS.0 {
        tree.args(["--manifest-path", PROGRAMS.1]);
    } else {
        tree.args(["-p", name]);
    }
    if direct {
        tree.args(["--depth", "1"]);
    }
    Ok(cargo::output(&mut tree)?
        .lines()
        .filter_map(|line| line.split(' ').next())
        .filter(|dependency| !dependency.is_empty() && *dependency != name)
        .map(str::to_owned)
        .collect())
}

fn forbidden<'a>(
    names: &'a BTreeSet<String>,
    never: &Never,
    workspace: &BTreeSet<String>,
) -> Vec<&'a str> {
    let is_forbidden = |name: &str| match never {
        Never::WorkspaceExcept(allowed) => workspace.contains(name) && !allowed.contains(&name),
        Never::Reach(list) | Never::Name(list) => list.iter().any(|pattern| fits(pattern, name)),
    };
    names
        .iter()
        .map(String::as_str)
        .filter(|name| is_forbidden(name))
        .collect()
}

/// `aya*` is aya and every crate whose name goes on with a hyphen.
fn fits(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(family) => name
            .strip_prefix(family)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('-') || family.ends_with('-')),
        None => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Never, fits, forbidden};

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_star_stands_for_a_family() {
        assert!(fits("aya*", "aya") && fits("aya*", "aya-obj"));
        assert!(fits("netlink-*", "netlink-sys"));
        assert!(!fits("aya*", "ayaz") && !fits("aya", "aya-obj"));
    }

    #[test]
    fn a_forbidden_dependency_is_found() {
        let reached = set(&["serde", "tokio", "tokio-util"]);
        let never = Never::Reach(&["tokio*"]);
        assert_eq!(
            forbidden(&reached, &never, &set(&[])),
            ["tokio", "tokio-util"]
        );
    }

    #[test]
    fn only_the_allowed_crates_of_the_workspace_pass() {
        let workspace = set(&["headgate-layout", "headgate-crds"]);
        let reached = set(&["headgate-layout", "headgate-crds", "serde"]);
        let never = Never::WorkspaceExcept(&["headgate-layout"]);
        assert_eq!(forbidden(&reached, &never, &workspace), ["headgate-crds"]);
    }
}
