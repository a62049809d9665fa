//! A Git repository that something is synced from.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{namespace::run, paths::workspace};

/// A bare repository and a checkout of it.
#[derive(Debug)]
pub struct Repository {
    folder: TempDir,
}

impl Repository {
    /// An empty one, in a folder whose name begins so.
    ///
    /// # Panics
    /// Where it cannot be made.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        let folder = tempfile::Builder::new().prefix(prefix).tempdir();
        let repository = Self {
            folder: folder.expect("a temporary folder can be made"),
        };
        let bare = repository.bare();
        run(git()
            .args(["init", "--bare", "-q", "-b", "main"])
            .arg(&bare));
        run(git()
            .args(["clone", "-q"])
            .arg(bare)
            .arg(repository.checkout()));
        repository
    }

    /// Where others clone it from.
    #[must_use]
    pub fn url(&self) -> String {
        format!("file://{}", self.bare().display())
    }

    /// Writes a file into the checkout.
    ///
    /// # Panics
    /// Where it cannot be written.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.checkout().join(path);
        fs::create_dir_all(path.parent().expect("it is a file")).expect("the folder is ours");
        fs::write(path, text).expect("the folder is ours");
    }

    /// Takes a file out of the checkout.
    ///
    /// # Panics
    /// Where it is not there.
    pub fn remove(&self, path: &str) {
        fs::remove_file(self.checkout().join(path)).expect("the file is there");
    }

    /// Copies these files and folders of this project into the checkout.
    ///
    /// # Panics
    /// Where they cannot be copied.
    pub fn copy(&self, paths: &[&str]) {
        let mut copy = Command::new("cp");
        copy.current_dir(workspace()).args(["-r", "--parents"]);
        run(copy.args(paths).arg(self.checkout()));
    }

    /// Commits and pushes all that was changed; gives the commit.
    ///
    /// # Panics
    /// Where there is nothing to commit.
    pub fn commit(&self, message: &str) -> String {
        run(self.git().args(["add", "--all"]));
        run(self.git().args(["commit", "-q", "-m", message]));
        run(self.git().args(["push", "-q", "origin", "HEAD:main"]));
        let commit = run(self.git().args(["rev-parse", "HEAD"])).stdout;
        String::from_utf8_lossy(&commit).trim_end().to_owned()
    }

    fn bare(&self) -> PathBuf {
        self.folder.path().join("repository.git")
    }

    fn checkout(&self) -> PathBuf {
        self.folder.path().join("checkout")
    }

    fn git(&self) -> Command {
        let mut git = git();
        git.arg("-C").arg(self.checkout());
        git
    }
}

/// Nothing of whoever runs the tests has a say in it.
fn git() -> Command {
    let mut git = Command::new("git");
    git.envs([
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_AUTHOR_NAME", "Tests"),
        ("GIT_AUTHOR_EMAIL", "tests@example.com"),
        ("GIT_COMMITTER_NAME", "Tests"),
        ("GIT_COMMITTER_EMAIL", "tests@example.com"),
    ]);
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        git.env_remove(name);
    }
    git.current_dir(Path::new("/"));
    git
}
