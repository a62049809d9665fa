//! The control groups of a node, in every hierarchy that this machine has.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use crate::leftovers::of_the_dead;

const ROOT: &str = "/sys/fs/cgroup";
/// Where there is one hierarchy for all controllers, a group with groups below it has no process
/// of its own: those of the node that are in no pod are here.
const LEAF: &str = "init";
/// Time that processes take to be gone when they are killed.
const END: Duration = Duration::from_secs(20);

/// The groups of a node, gone when dropped; its processes are to be gone by then, or on their way.
#[derive(Debug)]
pub(crate) struct Cgroups {
    folders: Vec<PathBuf>,
    unified: bool,
}

impl Cgroups {
    /// # Panics
    /// Where they cannot be made.
    pub(crate) fn new(name: &str) -> Self {
        let (parents, unified) = parents();
        let folders: Vec<PathBuf> = parents.iter().map(|parent| parent.join(name)).collect();
        for folder in &folders {
            fs::create_dir(folder).unwrap_or_else(|error| {
                panic!("making the control group {}: {error}", folder.display())
            });
            inherit_cpus(folder);
        }
        let groups = Self { folders, unified };
        if unified {
            enable_controllers(Path::new(ROOT));
            fs::create_dir(groups.folders[0].join(LEAF)).expect("the group is new");
        }
        groups
    }

    /// The groups that are the roots of the node's.
    pub(crate) fn roots(&self) -> &[PathBuf] {
        &self.folders
    }

    /// The groups that a process of the node is in.
    pub(crate) fn joined(&self) -> Vec<PathBuf> {
        let leaf = |folder: &PathBuf| match self.unified {
            true => folder.join(LEAF),
            false => folder.clone(),
        };
        self.folders.iter().map(leaf).collect()
    }

    /// Lets the node divide what it has, once its first processes, which are these, see its groups
    /// as roots.
    ///
    /// # Panics
    /// Where they have ended.
    pub(crate) fn hand_over(&self, processes: &[u32]) {
        if !self.unified {
            return;
        }
        for process in processes {
            fs::write(
                self.folders[0].join(LEAF).join("cgroup.procs"),
                process.to_string(),
            )
            .expect("the process runs");
        }
        enable_controllers(&self.folders[0]);
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for folder in &self.folders {
            if let Err(error) = remove(folder) {
                eprintln!("the control group {} stays: {error}", folder.display());
            }
        }
    }
}

/// Takes down groups of runs whose process is no more.
///
/// # Panics
/// Where one is not empty.
pub fn sweep() {
    for parent in parents().0 {
        for name in of_the_dead(&parent) {
            remove(&parent.join(name)).expect("their processes went with the run");
        }
    }
}

/// Where groups are made, and whether there is one hierarchy for all controllers.
fn parents() -> (Vec<PathBuf>, bool) {
    let root = Path::new(ROOT);
    if root.join("cgroup.controllers").exists() {
        return (vec![root.to_owned()], true);
    }
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let parent = |line: &str| {
        // number:controllers:path, below the group that this process is in.
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let name = match controllers.strip_prefix("name=").unwrap_or(controllers) {
            "" => "unified",
            name => name,
        };
        Some(root.join(name).join(path.trim_start_matches('/')))
    };
    let parents = own.lines().filter_map(parent);
    (parents.filter(|folder| folder.exists()).collect(), false)
}

/// A new group of the old kind has no CPU to run on.
fn inherit_cpus(folder: &Path) {
    let clones = folder.join("cgroup.clone_children");
    if !folder.join("cpuset.cpus").exists() || !clones.exists() {
        return;
    }
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let value = fs::read(folder.join("..").join(file));
        fs::write(
            folder.join(file),
            value.expect("it has what its parent has"),
        )
        .expect("what the parent has can be had");
    }
    fs::write(clones, "1").expect("it was just there");
}

fn enable_controllers(folder: &Path) {
    let controllers = fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        // One that cannot be given on is missed by whoever needs it.
        let _ = fs::write(
            folder.join("cgroup.subtree_control"),
            format!("+{controller}"),
        );
    }
}

/// Removes a group and those below, as soon as nothing is in them.
fn remove(folder: &Path) -> io::Result<()> {
    let started = Instant::now();
    loop {
        match remove_empty(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if started.elapsed() > END => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(50)),
            Ok(()) => return Ok(()),
        }
    }
}

fn remove_empty(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_empty(&entry.path())?;
        }
    }
    fs::remove_dir(folder)
}
