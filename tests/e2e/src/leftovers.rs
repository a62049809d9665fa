//! What a run that was killed could not take down.

use std::{env, fs, path::Path, process::Command};

use crate::{
    binary::headgate,
    namespace::{PREFIX, run},
};

/// Takes down namespaces, pins and folders of runs whose process is no more.
///
/// # Panics
/// Where that fails.
pub fn sweep() {
    for name in of_the_dead(Path::new("/run/netns")) {
        run(Command::new("ip").args(["netns", "del", &name]));
    }
    let state = tempfile::tempdir().expect("a temporary folder can be made");
    for instance in of_the_dead(Path::new("/sys/fs/bpf/headgate")) {
        let arguments = ["detach", "--instance", &instance, "--state-dir"];
        run(Command::new(headgate()).args(arguments).arg(state.path()));
    }
    let folders = env::temp_dir();
    for name in of_the_dead(&folders) {
        fs::remove_dir_all(folders.join(name)).expect("it is ours");
    }
}

/// Names in a folder that contain the id of a process that is no more.
pub(crate) fn of_the_dead(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| is_of_the_dead(name)).collect()
}

fn is_of_the_dead(name: &str) -> bool {
    let rest = name.strip_prefix(PREFIX);
    let pid = rest.and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
    pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_dead_processes_left_is_taken_down() {
        // Beyond the kernel's largest process id.
        assert!(is_of_the_dead("hge-4194305-0-node"));
        assert!(!is_of_the_dead(&format!(
            "hge-{}-0-node",
            std::process::id()
        )));
        for other in ["default", "hge", "hge-", "hge-x-0"] {
            assert!(!is_of_the_dead(other), "{other}");
        }
    }
}
