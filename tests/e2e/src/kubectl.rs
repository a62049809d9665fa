//! The real kubectl.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use serde_json::Value;

use crate::{assets, namespace::Namespace, paths::workspace, said::Said};

/// kubectl in a network namespace, with a kubeconfig; run at the root of the repository.
#[derive(Clone, Debug)]
pub struct Kubectl {
    namespace: Arc<Namespace>,
    kubeconfig: PathBuf,
    home: PathBuf,
}

impl Kubectl {
    /// One that keeps what it caches in the folder `home`.
    #[must_use]
    pub fn new(namespace: &Arc<Namespace>, kubeconfig: &Path, home: &Path) -> Self {
        Self {
            namespace: Arc::clone(namespace),
            kubeconfig: kubeconfig.to_owned(),
            home: home.to_owned(),
        }
    }

    /// Who it is, and where the API server is.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The command with these arguments, not run. Nothing of whoever runs the tests has a say in
    /// it: no settings of theirs, no proxy.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.in_place(&assets::program("kubectl"));
        command.args(arguments);
        command
    }

    /// A script for bash that calls kubectl by its name, as a user's does, not run; it ends where a
    /// command fails, or after this many seconds.
    ///
    /// # Panics
    /// Where there is no kubectl.
    #[must_use]
    pub fn script(&self, text: &str, seconds: u32) -> Command {
        let kubectl = assets::program("kubectl");
        let folder = kubectl.parent().expect("a file is in a folder");
        let mut path = folder.as_os_str().to_owned();
        path.push(":");
        path.push(env::var_os("PATH").unwrap_or_default());
        let mut command = self.in_place(Path::new("timeout"));
        command
            .arg(seconds.to_string())
            .args(["bash", "-euo", "pipefail", "-c", text])
            .env("PATH", path);
        command
    }

    fn in_place(&self, program: &Path) -> Command {
        let mut command = self.namespace.command(program);
        command
            .current_dir(workspace())
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.home)
            .env("KUBECONFIG", &self.kubeconfig);
        command
    }

    /// Runs it to its end, whatever that is.
    ///
    /// # Panics
    /// Where it cannot be run.
    #[must_use]
    pub fn said(&self, arguments: &[&str]) -> Said {
        Said::of(&mut self.command(arguments))
    }

    /// The same with something to read from standard input.
    ///
    /// # Panics
    /// Where it cannot be run.
    #[must_use]
    pub fn said_of(&self, arguments: &[&str], input: &str) -> Said {
        Said::of_input(&mut self.command(arguments), input)
    }

    /// What it prints.
    ///
    /// # Panics
    /// Where it fails.
    pub fn run(&self, arguments: &[&str]) -> String {
        succeeded(arguments, self.said(arguments))
    }

    /// What it prints, as JSON.
    ///
    /// # Panics
    /// Where it fails.
    #[must_use]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let mut arguments = arguments.to_vec();
        if arguments.first() == Some(&"get") && !arguments.contains(&"--raw") {
            arguments.extend(["-o", "json"]);
        }
        let text = self.run(&arguments);
        serde_json::from_str(&text).unwrap_or_else(|error| {
            panic!("kubectl {arguments:?} printed no JSON ({error}): {text}")
        })
    }

    /// Applies these manifests, YAML or JSON; gives what it prints.
    ///
    /// # Panics
    /// Where it fails.
    pub fn apply(&self, manifests: &str) -> String {
        let arguments = ["apply", "-f", "-"];
        succeeded(&arguments, self.said_of(&arguments, manifests))
    }
}

fn succeeded(arguments: &[&str], said: Said) -> String {
    assert_eq!(said.code, 0, "kubectl {arguments:?}: {said:?}");
    said.output
}
