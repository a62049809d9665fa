//! What Argo CD is told about our kinds.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result, bail};

use crate::cargo;

/// In the layout of Argo CD's own folder, so that it can go there as it is.
const CHECKS: &str = "manifests/argocd/resource_customizations/headgate.dev";
/// What they become for users of a released Argo CD.
const PATCH: &str = "manifests/argocd/argocd-cm-patch.yaml";
const HEAD: &str = "\
# How Argo CD tells whether our kinds are healthy: a patch of its ConfigMap, by kubectl or kustomize.
# Written by `cargo xtask argocd` from resource_customizations/.
apiVersion: v1
kind: ConfigMap
metadata:
  name: argocd-cm
  namespace: argocd
data:
";

/// Writes the health checks as a patch of Argo CD's ConfigMap; or fails where they differ.
pub(crate) fn patch(check: bool) -> Result<()> {
    let root = cargo::root();
    let (wanted, path) = (text(&root.join(CHECKS))?, root.join(PATCH));
    if !check {
        return fs::write(&path, wanted).with_context(|| path.display().to_string());
    }
    if fs::read_to_string(&path).ok() != Some(wanted) {
        bail!("{PATCH} is not what {CHECKS} says: `cargo xtask argocd` writes it");
    }
    Ok(())
}

fn text(folder: &Path) -> Result<String> {
    let mut kinds = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        kinds.push(entry?.path());
    }
    kinds.sort();
    let mut text = HEAD.to_owned();
    for kind in kinds {
        let script = kind.join("health.lua");
        let script = fs::read_to_string(&script).with_context(|| script.display().to_string())?;
        let kind = kind.file_name().unwrap_or_default().display();
        writeln!(
            text,
            "  resource.customizations.health.headgate.dev_{kind}: |"
        )?;
        for line in script.lines() {
            // Nothing ends in a blank: block scalars keep it.
            writeln!(text, "{}", format!("    {line}").trim_end())?;
        }
    }
    Ok(text)
}
