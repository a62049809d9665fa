//! The file system that a machine boots into: the tests, the programs that they call, and the
//! libraries of both, from this machine.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::packages::Kernel;
use crate::cargo;

/// What the tests call and busybox has not, or not with the options they use.
const PROGRAMS: [&str; 5] = ["bpftool", "ip", "setpriv", "tc", "unshare"];

/// Writes it as a file into `folder` and gives the file's path.
pub(crate) fn pack(
    kernel: &Kernel,
    tests: &Path,
    test_args: &[String],
    folder: &Path,
) -> Result<PathBuf> {
    let root = folder.join("root");
    for mount_point in ["dev", "proc", "sys", "tmp", "bin"] {
        fs::create_dir_all(root.join(mount_point))?;
    }
    copy(&find("busybox")?, &root.join("bin/busybox"))?;
    copy(tests, &root.join("tests"))?;
    copy_libraries(tests, &root)?;
    for program in PROGRAMS {
        let path = find(program)?;
        copy(&path, &root.join("usr/bin").join(program))?;
        copy_libraries(&path, &root)?;
    }
    for module in fs::read_dir(&kernel.modules)? {
        let module = module?;
        copy(
            &module.path(),
            &root.join("modules").join(module.file_name()),
        )?;
    }
    let init = root.join("init");
    fs::write(&init, script(test_args))?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    let file = folder.join("initramfs");
    cargo::succeed(
        Command::new("sh")
            .args(["-ec", "busybox find . | busybox cpio -o -H newc >\"$0\""])
            .arg(&file)
            .current_dir(&root),
    )?;
    Ok(file)
}

/// What the kernel starts. Results go to the second serial port, where the kernel says nothing.
fn script(test_args: &[String]) -> String {
    let quoted = test_args
        .iter()
        .map(|arg| format!(" '{}'", arg.replace('\'', r"'\''")));
    let args: String = quoted.collect();
    format!(
        "#!/bin/busybox sh\n\
         export PATH=/usr/bin:/bin\n\
         busybox mount -t proc proc /proc\n\
         busybox --install -s /bin\n\
         mount -t devtmpfs dev /dev\n\
         mount -t sysfs sys /sys\n\
         mount -t bpf bpf /sys/fs/bpf\n\
         for module in /modules/*; do insmod $module; done\n\
         stty -opost </dev/ttyS1\n\
         /tests --color never --test-threads 2{args} >/dev/ttyS1 2>&1\n\
         echo \"{}$?\" >/dev/ttyS1\n\
         poweroff -f\n",
        super::machine::DONE
    )
}

/// Copies the libraries that a program is linked with to where it looks for them.
fn copy_libraries(program: &Path, root: &Path) -> Result<()> {
    let libraries = cargo::output(Command::new("ldd").arg(program))?;
    // `libc.so.6 => /lib/libc.so.6 (0x7f00)`, and for the loader `/lib64/ld.so (0x7f00)`.
    let words = libraries.split_whitespace();
    for library in words.filter(|word| word.starts_with('/')) {
        let inside = root.join(library.trim_start_matches('/'));
        if !inside.exists() {
            copy(Path::new(library), &inside)?;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let copied = to
        .parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::copy(from, to));
    copied.with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

fn find(program: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    // Where `ip` is, which a user's PATH may lack.
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
        .with_context(|| format!("there is no program {program} on this machine"))
}

#[cfg(test)]
mod tests {
    use super::script;

    #[test]
    fn arguments_reach_the_tests_as_they_are() {
        let script = script(&["--exact".to_owned(), "it's $HOME".to_owned()]);
        assert!(
            script.contains(r"/tests --color never --test-threads 2 '--exact' 'it'\''s $HOME' >"),
            "{script}"
        );
    }
}
