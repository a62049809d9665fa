//! What the node lacks is named, with what to do about it.

use std::{
    ffi::OsStr,
    path::Path,
    process::{Command, ExitCode},
};

use headgate_datapath::{
    diff::diff,
    kernel::{Kernel, KernelError},
    plan::{Step, StepKind},
    state::DatapathState,
};
use headgate_kernel::{DEFAULT_BPFFS, RunningKernel, object_digest, probe};
use headgate_kernel_tests::{
    blocks::default_of,
    network::{run, veth},
    node::{Node, port, random_instance, wanted},
    trials::in_kernel,
};
use headgate_layout::verdict::Action;
use libtest_mimic::Trial;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use tempfile::TempDir;

/// Set in the environment of this program when it is to check its rights and no more.
pub(crate) const CHILD: &str = "HEADGATE_KERNEL_TESTS_CHILD";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        in_kernel("without_rights_the_missing_capability_is_named", no_rights),
        in_kernel("one_capability_is_enough", enough_rights),
        in_kernel("a_read_only_file_system_is_named", read_only),
        in_kernel("a_file_system_is_mounted_where_there_is_none", mounted),
        in_kernel("a_reader_mounts_nothing_and_says_so", reader),
        in_kernel("a_folder_that_is_absent_is_named", no_folder),
        in_kernel(
            "a_file_system_that_turns_read_only_is_named",
            turned_read_only,
        ),
        in_kernel("a_pin_that_is_refused_leaves_no_program", pin_refused),
        in_kernel("a_map_of_another_shape_is_named", other_shape),
        in_kernel("an_instance_name_is_checked", instance_name),
    ]
}

/// In a process with fewer rights: opens a kernel and prints what comes of it.
pub(crate) fn child(_: &OsStr) -> ExitCode {
    match RunningKernel::open(&random_instance(), Path::new(DEFAULT_BPFFS)) {
        Ok(_) => println!("usable"),
        Err(error) => println!("{error}"),
    }
    ExitCode::SUCCESS
}

/// What [`child`] prints in a process with these capabilities alone.
fn with_capabilities(capabilities: &str) -> String {
    let output = Command::new("setpriv")
        .args(["--bounding-set", capabilities, "--inh-caps", "-all"])
        .arg(std::env::current_exe().expect("this program"))
        .env(CHILD, "open")
        .output()
        .expect("setpriv");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn no_rights() {
    let words = with_capabilities("-all");
    assert!(
        words.contains("neither CAP_BPF nor CAP_SYS_ADMIN: run as root"),
        "{words}"
    );
    let words = with_capabilities("-all,+bpf,+net_admin,+perfmon");
    assert!(
        words.contains("has CAP_BPF but not CAP_SYS_ADMIN"),
        "{words}"
    );
}

fn enough_rights() {
    assert_eq!(with_capabilities("-all,+sys_admin").trim(), "usable");
    let features = probe().expect("usable");
    assert!(!features.release.is_empty());
}

/// A folder in a mount namespace of this thread's own; whatever is mounted there goes with it.
fn private_folder() -> TempDir {
    unshare(CloneFlags::CLONE_NEWNS).expect("a new mount namespace");
    mount_as(
        "none",
        Path::new("/"),
        None,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
    );
    let folder = tempfile::tempdir().expect("a folder");
    // Were the folder on the host's file system, it could not be removed while mounted here.
    folder
}

fn mount_as(source: &str, target: &Path, kind: Option<&str>, flags: MsFlags) {
    mount(Some(source), target, kind, flags, None::<&str>).expect("mounted");
}

fn words<T>(result: Result<T, KernelError>) -> String {
    match result {
        Err(error @ KernelError::Unusable { .. }) => error.to_string(),
        Err(error) => panic!("another error: {error:?}"),
        Ok(_) => panic!("not refused"),
    }
}

fn read_only() {
    let folder = private_folder();
    mount_as("bpf", folder.path(), Some("bpf"), MsFlags::MS_RDONLY);
    let words = words(RunningKernel::open(&random_instance(), folder.path()));
    assert!(
        words.contains("is read-only: remount it with `mount -o remount,rw "),
        "{words}"
    );
}

fn mounted() {
    let folder = private_folder();
    let instance = random_instance();
    let mut kernel = RunningKernel::open(&instance, folder.path()).expect("mounted and opened");
    let step = Step::Prepare;
    kernel.apply(&step, &Default::default()).expect("prepared");
    assert!(folder.path().join("headgate").join(&instance.name).exists());
    kernel.detach_all().expect("detached");
}

fn reader() {
    let folder = private_folder();
    let words = words(RunningKernel::open_read_only(
        &random_instance(),
        folder.path(),
    ));
    assert!(
        words.starts_with("no BPF file system is mounted at "),
        "{words}"
    );
}

fn no_folder() {
    let absent = Path::new("/nonexistent/bpf");
    let words = words(RunningKernel::open(&random_instance(), absent));
    assert!(words.contains("no folder /nonexistent/bpf"), "{words}");
}

/// Carries out the steps up to the one that attaches, which it gives.
fn up_to_attach(kernel: &mut RunningKernel, state: &DatapathState) -> Step {
    let observed = kernel.observe().expect("observed");
    let plan = diff(&observed, state, object_digest()).expect("a plan");
    for step in plan.steps {
        if step.kind() == StepKind::Attach {
            return step;
        }
        kernel.apply(&step, &state.blocks).expect("applied");
    }
    panic!("nothing to attach");
}

fn turned_read_only() {
    let folder = private_folder();
    let mut kernel = RunningKernel::open(&random_instance(), folder.path()).expect("opened");
    let interface = veth("v0", "v1");
    let state = wanted(&[(port(0), interface, &default_of(Action::Drop))]);
    let step = up_to_attach(&mut kernel, &state);
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount_as("bpf", folder.path(), Some("bpf"), flags);
    for refused in [
        kernel.apply(&step, &state.blocks).map(drop),
        kernel.observe().map(drop),
    ] {
        let words = words(refused);
        assert!(words.contains("read-only"), "{words}");
    }
    assert!(!run("ip", "link show v0").contains("prog/xdp"));
}

fn pin_refused() {
    let mut node = Node::new();
    let interface = veth("v0", "v1");
    let state = wanted(&[(port(0), interface, &default_of(Action::Drop))]);
    let step = up_to_attach(&mut node.kernel, &state);
    std::fs::remove_dir(node.layout_pins().join("links")).expect("removed");
    let refused = node.kernel.apply(&step, &state.blocks);
    let Err(error @ KernelError::Call { .. }) = refused else {
        panic!("not refused: {refused:?}");
    };
    assert!(
        error.to_string().starts_with("pinning the link "),
        "{error}"
    );
    assert!(!run("ip", "link show v0").contains("prog/xdp"));
    let programs = std::fs::read_dir(node.layout_pins().join("programs")).expect("programs");
    assert_eq!(programs.count(), 0);
}

fn other_shape() {
    let mut node = Node::new();
    let step = Step::Prepare;
    node.kernel
        .apply(&step, &Default::default())
        .expect("prepared");
    let pin = node.layout_pins().join("ACTIVE");
    std::fs::remove_file(&pin).expect("removed");
    let pin = pin.display();
    let map = "type array key 4 value 8 entries 1 name ACTIVE";
    run("bpftool", &format!("map create {pin} {map}"));
    let words = words(node.kernel.observe());
    assert!(
        words.contains("has another shape") && words.contains("headgate detach"),
        "{words}"
    );
}

fn instance_name() {
    let mut instance = random_instance();
    instance.name = "a.b".into();
    let words = words(RunningKernel::open(&instance, Path::new(DEFAULT_BPFFS)));
    assert!(words.contains("\"a.b\""), "{words}");
}
