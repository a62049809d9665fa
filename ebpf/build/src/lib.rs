//! Builds a crate for the kernel's virtual machine, from a build script.
//!
//! Two toolchains will do: Debian's packages, whose `rustc` comes with a ready `core` for the target,
//! or a rustup nightly with `rust-src`, which builds its own.

use std::{
    env,
    error::Error,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use object::{
    Object, ObjectSection,
    build::elf::{Builder, SectionData},
    elf::SHT_STRTAB,
};

const TARGET: &str = "bpfel-unknown-none";
/// The folder of the pinned linker under the cache folder, as `xtask/setup.sh` makes it.
const PINNED_LINKER: &str = "bpf-linker-0.13.0-llvm22";

const REMEDY: &str = "`make setup` installs what is needed on Debian 12 and 13 as root; \
    elsewhere: rustup toolchain install nightly --component rust-src, and cargo install bpf-linker";

/// What names of its sections, and of those of relocations to them, contain.
const DWARF: &[u8] = b".debug";

/// Variables of the outer build that would change or break the inner one.
const OUTER: [&str; 9] = [
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "RUSTC",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_LINKER",
    "RUSTUP_TOOLCHAIN",
];

/// What can compile for the target on this machine.
enum Toolchain {
    /// A `cargo` and a `rustc` with a ready `core`; any channel, as `RUSTC_BOOTSTRAP` opens it.
    WithCore { cargo: PathBuf, rustc: PathBuf },
    /// rustup's nightly with `rust-src`.
    Nightly { sysroot: PathBuf },
}

impl Toolchain {
    fn find() -> Result<Self, String> {
        let outer = ["CARGO", "RUSTC"].map(|name| env::var_os(name).map(PathBuf::from));
        let packaged = ["cargo", "rustc"].map(|name| Some(Path::new("/usr/bin").join(name)));
        for [cargo, rustc] in [outer, packaged] {
            let (Some(cargo), Some(rustc)) = (cargo, rustc) else {
                continue;
            };
            if has_core(&rustc) {
                return Ok(Self::WithCore { cargo, rustc });
            }
        }
        let sysroot = print_sysroot(Command::new("rustup").args(["run", "nightly", "rustc"]))
            .ok_or(format!(
                "neither this rustc nor /usr/bin/rustc has core for {TARGET} \
                 (Debian: libstd-rust-web-dev-bpf), and there is no rustup nightly"
            ))?;
        if !sysroot.join("lib/rustlib/src/rust/library/core").is_dir() {
            return Err("rustup's nightly lacks the component rust-src".into());
        }
        Ok(Self::Nightly { sysroot })
    }

    /// `cargo build` for the target, with an environment of its own.
    fn cargo(&self) -> Command {
        let mut command = match self {
            Self::WithCore { cargo, .. } => Command::new(cargo),
            Self::Nightly { .. } => Command::new("rustup"),
        };
        for name in OUTER {
            command.env_remove(name);
        }
        match self {
            // aya-ebpf uses unstable features; the compiler is new enough for them.
            Self::WithCore { rustc, .. } => command
                .env("RUSTC", rustc)
                .env("RUSTC_BOOTSTRAP", "1")
                .arg("build"),
            Self::Nightly { .. } => {
                command.args(["run", "nightly", "cargo", "build", "-Z", "build-std=core"])
            }
        };
        command.args(["--release", "--target", TARGET]);
        command
    }
}

fn print_sysroot(rustc: &mut Command) -> Option<PathBuf> {
    rustc.env_remove("RUSTUP_TOOLCHAIN");
    let output = rustc.args(["--print", "sysroot"]).output().ok()?;
    let sysroot = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| sysroot.trim().into())
}

fn has_core(rustc: &Path) -> bool {
    print_sysroot(&mut Command::new(rustc)).is_some_and(|sysroot| {
        sysroot
            .join("lib/rustlib")
            .join(TARGET)
            .join("lib")
            .is_dir()
    })
}

/// The linker named by `BPF_LINKER`, else the pinned one (it fits the packaged toolchain's LLVM),
/// else the one on PATH.
fn find_linker(toolchain: &Toolchain) -> Result<PathBuf, String> {
    if let Some(named) = env::var_os("BPF_LINKER") {
        return Ok(named.into());
    }
    let pinned = cache_folder().map(|cache| cache.join(PINNED_LINKER).join("bin/bpf-linker"));
    let on_path = env::split_paths(&env::var_os("PATH").unwrap_or_default())
        .map(|folder| folder.join("bpf-linker"))
        .find(|candidate| candidate.is_file());
    let pinned = pinned
        .filter(|candidate| matches!(toolchain, Toolchain::WithCore { .. }) && candidate.is_file());
    pinned.or(on_path).ok_or(
        "bpf-linker is missing: not named by BPF_LINKER, not in the cache folder, not on PATH"
            .into(),
    )
}

/// The same rule as in `xtask/setup.sh`.
fn cache_folder() -> Option<PathBuf> {
    let non_empty = |name| env::var_os(name).filter(|value: &OsString| !value.is_empty());
    non_empty("HEADGATE_CACHE").map(PathBuf::from).or_else(|| {
        non_empty("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(Path::new(&non_empty("HOME")?).join(".cache")))
            .map(|cache| cache.join("headgate"))
    })
}

/// Flags of rustc. Paths of this machine are taken out of the debug information, so that the
/// object, and with it its digest, is the same wherever it is built.
fn rustflags(linker: &Path, root: &Path, toolchain: &Toolchain) -> String {
    let mut flags = vec![
        format!("-Clinker={}", linker.display()),
        "-Clink-arg=--btf".into(),
        "-Cdebuginfo=2".into(),
        // v3 has 32-bit jumps and registers; every kernel that Headgate supports has it.
        "-Ctarget-cpu=v3".into(),
        // x86-64 and arm64 read unaligned words: addresses are compared as words, not bytes.
        "-Clink-arg=--cpu-features=+allows-misaligned-mem-access".into(),
    ];
    let mut remap = |from: &Path, to: &str| {
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    };
    remap(root, "headgate");
    if let Some(home) = cargo_home() {
        remap(&home.join("registry/src"), "registry");
    }
    if let Toolchain::Nightly { sysroot } = toolchain {
        remap(&sysroot.join("lib/rustlib/src/rust"), "rust");
    }
    flags.join("\x1f")
}

fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".cargo")))
}

fn rerun_on_change(root: &Path, folder: &str) -> Result<(), Box<dyn Error>> {
    for name in ["BPF_LINKER", "HEADGATE_CACHE", "XDG_CACHE_HOME", "HOME"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    // The crates of ebpf/ inherit versions from the workspace.
    println!(
        "cargo:rerun-if-changed={}",
        root.join("Cargo.toml").display()
    );
    let shared = ["ebpf/layout", "ebpf/packet"].map(|shared| root.join(shared));
    for folder in shared.into_iter().chain([root.join(folder)]) {
        for name in ["Cargo.toml", "Cargo.lock", "src"] {
            let path = folder.join(name);
            if path.exists() {
                println!("cargo:rerun-if-changed={}", path.display());
            }
        }
    }
    Ok(())
}

/// The object without DWARF, which nothing loads: BTF was made of it. Its symbol names hold a hash of
/// the checkout's path; the rest is equal between two checkouts, as the binary that holds it is to be.
fn without_dwarf(object: &[u8]) -> Result<Vec<u8>, object::build::Error> {
    let mut builder = Builder::read(object)?;
    for section in &mut builder.sections {
        section.delete = section
            .name
            .as_slice()
            .windows(DWARF.len())
            .any(|part| part == DWARF);
    }
    builder.delete_orphans();
    // LLVM's linker keeps the names of sections among the other strings.
    let names = builder.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
    let mut without = Vec::new();
    builder.write(&mut without)?;
    Ok(without)
}

/// Digest over all sections that the kernel may get something of.
fn digest(object: &[u8]) -> Result<blake3::Hash, object::Error> {
    let mut hasher = blake3::Hasher::new();
    for section in object::File::parse(object)?.sections() {
        hasher.update(section.name()?.as_bytes());
        hasher.update(section.data()?);
    }
    Ok(hasher.finalize())
}

/// Builds the binary `binary` of the crate in `folder` (relative to the workspace's root) and leaves
/// it as `$OUT_DIR/{binary}.bpf.o`. Gives the BLAKE3 digest, in hex, of what the kernel gets of it.
///
/// # Errors
/// What is missing and how to get it, or that the build failed.
pub fn build(folder: &str, binary: &str) -> Result<String, Box<dyn Error>> {
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").ok_or("run by cargo only")?);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()?;
    rerun_on_change(&root, folder)?;

    let with_remedy = |reason| format!("cannot build the eBPF programs: {reason}\n{REMEDY}");
    let toolchain = Toolchain::find().map_err(with_remedy)?;
    let linker = find_linker(&toolchain).map_err(with_remedy)?;
    let target_dir = out_dir.join("programs");
    let mut build = toolchain.cargo();
    build
        .current_dir(root.join(folder))
        .env("CARGO_TARGET_DIR", &target_dir)
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            rustflags(&linker, &root, &toolchain),
        );
    if root.join(folder).join("Cargo.lock").is_file() {
        build.arg("--locked");
    }
    let status = build
        .status()
        .map_err(|error| format!("cannot run {:?}: {error}", build.get_program()))?;
    if !status.success() {
        return Err(format!("building {folder} failed ({status}), see above").into());
    }

    let linked = fs::read(target_dir.join(TARGET).join("release").join(binary))?;
    let object = without_dwarf(&linked)?;
    fs::write(out_dir.join(format!("{binary}.bpf.o")), &object)?;
    Ok(digest(&object)?.to_string())
}
