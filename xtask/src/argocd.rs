//! What Argo CD is told about our kinds.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::cargo;

/// In the layout of Argo CD's own folder, so that it can go there as it is.
const CHECKS: &str = "manifests/argocd/resource_customizations/headgate.dev";
/// The check of all kinds whose status the operator rolls up.
const ROLLED_UP: &str = "manifests/argocd/rolled-up-health.lua";
/// The kind whose status agents write; its check is its own.
const OF_AGENTS: &str = "NodeDatapath";
/// What checks become for users of a released Argo CD.
const PATCH: &str = "manifests/argocd/argocd-cm-patch.yaml";
const HEAD: &str = "\
# How Argo CD tells whether our kinds are healthy: a patch of its ConfigMap, by kubectl or kustomize.
# Written by `cargo xtask argocd` from resource_customizations/ and rolled-up-health.lua.
apiVersion: v1
kind: ConfigMap
metadata:
  name: argocd-cm
  namespace: argocd
data:
";

/// Writes the health checks of the kinds that share one, and all as a patch of Argo CD's ConfigMap; or fails where
/// something differs.
pub(crate) fn patch(check: bool) -> Result<()> {
    let root = cargo::root();
    for (path, wanted) in files(root)? {
        let full = root.join(&path);
        if !check {
            fs::write(&full, wanted).with_context(|| full.display().to_string())?;
        } else if fs::read_to_string(&full).ok() != Some(wanted) {
            bail!(
                "{} is not what {ROLLED_UP} and the checks of {CHECKS} say: `cargo xtask argocd` writes it",
                path.display()
            );
        }
    }
    Ok(())
}

/// What is written, by its place.
fn files(root: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let read = |path: &Path| {
        let path = root.join(path);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    let shared = read(Path::new(ROLLED_UP))?;
    let mut files = BTreeMap::new();
    let mut patch = HEAD.to_owned();
    for kind in kinds(&root.join(CHECKS))? {
        let path = Path::new(CHECKS).join(&kind).join("health.lua");
        if kind == OF_AGENTS {
            add(&mut patch, &kind, &read(&path)?)?;
        } else {
            add(&mut patch, &kind, &shared)?;
            files.insert(path, shared.clone());
        }
    }
    files.insert(PATCH.into(), patch);
    Ok(files)
}

fn kinds(folder: &Path) -> Result<Vec<String>> {
    let mut kinds = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        kinds.push(entry?.file_name().display().to_string());
    }
    kinds.sort();
    Ok(kinds)
}

fn add(patch: &mut String, kind: &str, script: &str) -> Result<()> {
    writeln!(
        patch,
        "  resource.customizations.health.headgate.dev_{kind}: |"
    )?;
    for line in script.lines() {
        // Nothing ends in a blank: block scalars keep it.
        writeln!(patch, "{}", format!("    {line}").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_that_the_operator_rolls_up_share_one_check() {
        let root = tempfile::tempdir().expect("a folder");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("it is in a folder")).expect("made");
            fs::write(path, text).expect("written");
        };
        let check = |kind: &str| format!("{CHECKS}/{kind}/health.lua");
        write(ROLLED_UP, "return shared\n");
        write(&check("NodeDatapath"), "return own\n");
        write(&check("XdpPolicy"), "return another\n");
        let files = files(root.path()).expect("all are there");
        let patch = format!(
            "{HEAD}  resource.customizations.health.headgate.dev_NodeDatapath: |\n    return own\n  resource.customizations.health.headgate.dev_XdpPolicy: |\n    return shared\n"
        );
        let expected = [
            (PATCH.to_owned(), patch),
            (check("XdpPolicy"), "return shared\n".to_owned()),
        ];
        let expected = expected.map(|(path, text)| (PathBuf::from(path), text));
        assert_eq!(files, expected.into());
    }
}
