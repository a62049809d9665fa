//! Debian's kernels, from the mirror that this machine's apt uses.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::cargo;

/// Where to look for kernels, besides in what this machine's own release offers.
const SUITES: [&str; 3] = ["bookworm", "trixie", "trixie-backports"];

/// Debian's keys for all of these; part of every Debian.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The smallest of the flavours has all that is tested.
const FLAVOUR: &str = "-cloud-amd64";

/// Modules that the tests need, each after those that it depends on.
const MODULES: [&str; 9] = [
    "drivers/net/veth.ko",
    "net/llc/llc.ko",
    "net/802/stp.ko",
    "net/bridge/bridge.ko",
    "net/ipv4/udp_tunnel.ko",
    "net/ipv6/ip6_udp_tunnel.ko",
    "drivers/net/vxlan/vxlan.ko",
    "net/sched/sch_ingress.ko",
    "net/sched/cls_bpf.ko",
];

/// A kernel, ready to boot.
pub(crate) struct Kernel {
    /// Upstream's version, such as `6.1.176`.
    pub(crate) version: String,
    /// The folder that keeps it.
    pub(crate) folder: PathBuf,
    pub(crate) image: PathBuf,
    pub(crate) modules: PathBuf,
}

impl Kernel {
    fn kept(folder: PathBuf) -> Option<Self> {
        Some(Self {
            version: folder.file_name()?.to_str()?.to_owned(),
            image: folder.join("vmlinuz"),
            modules: folder.join("modules"),
            folder,
        })
    }
}

/// Kernels that were downloaded before, and those that can be.
pub(crate) struct Packages {
    folder: PathBuf,
}

impl Packages {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The newest kernel of a version such as `6.1`: the one that is kept, else it is downloaded.
    pub(crate) fn kernel(&self, version: &str) -> Result<Kernel> {
        let wanted = numbers(version);
        if wanted.is_empty() {
            bail!("'{version}' is no kernel version: name one such as 6.1");
        }
        match self.newest_kept(&wanted)? {
            Some(kernel) => Ok(kernel),
            None => self
                .download(&wanted)
                .with_context(|| format!("cannot get a kernel {version}")),
        }
    }

    fn newest_kept(&self, wanted: &[u64]) -> Result<Option<Kernel>> {
        let mut kernels = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            kernels.extend(Kernel::kept(entry?.path()));
        }
        // One that was kept when the tests needed other modules is downloaded anew.
        kernels.retain(|kernel| {
            numbers(&kernel.version).starts_with(wanted)
                && fs::read_dir(&kernel.modules)
                    .is_ok_and(|modules| modules.count() == MODULES.len())
        });
        Ok(kernels
            .into_iter()
            .max_by_key(|kernel| numbers(&kernel.version)))
    }

    fn download(&self, wanted: &[u64]) -> Result<Kernel> {
        let apt = Apt::update(&self.folder.join("apt"))?;
        let names = apt.names()?;
        let release = newest(&names, wanted).with_context(|| {
            let mut series: Vec<_> = names.iter().filter_map(|name| release(name)).collect();
            series.sort_unstable_by_key(|release| numbers(release));
            format!("there are {}", series.join(", "))
        })?;
        let work = tempfile::tempdir_in(&self.folder)?;
        // Later releases split what was one package.
        let packages: Vec<String> = ["image", "binary", "modules"]
            .map(|kind| format!("linux-{kind}-{release}{FLAVOUR}"))
            .into_iter()
            .filter(|package| names.contains(package))
            .collect();
        println!("downloading {}", packages.join(", "));
        apt.download(&packages, work.path())?;
        let version = unpack(work.path())?;
        let kept = work.path().join("kept");
        keep(work.path(), &format!("{release}{FLAVOUR}"), &kept)?;
        let folder = self.folder.join(version);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::rename(&kept, &folder)?;
        Kernel::kept(folder).context("a kernel's folder has a name")
    }
}

/// Unpacks every package in a folder there; gives the kernel's version, which their names bear.
fn unpack(folder: &Path) -> Result<String> {
    let mut version = None;
    for entry in fs::read_dir(folder)? {
        let package = entry?.path();
        if package
            .extension()
            .is_some_and(|extension| extension == "deb")
        {
            cargo::succeed(Command::new("dpkg-deb").arg("-x").args([&package, folder]))?;
            version = package.file_name().and_then(|name| {
                let (_, version) = name.to_str()?.split_once('_')?;
                Some(version.split_once(['-', '_'])?.0.to_owned())
            });
        }
    }
    version.context("apt downloaded no package")
}

/// Moves what a machine boots from where packages have it.
fn keep(unpacked: &Path, release: &str, kept: &Path) -> Result<()> {
    let find = |names: &[String]| {
        let mut paths = names.iter().map(|name| unpacked.join(name));
        paths
            .find(|path| path.is_file())
            .with_context(|| format!("the packages have no {}", names.join(" and no ")))
    };
    let modules = kept.join("modules");
    fs::create_dir_all(&modules)?;
    let image = find(&[
        format!("boot/vmlinuz-{release}"),
        format!("usr/lib/modules/{release}/vmlinuz"),
    ])?;
    fs::rename(image, kept.join("vmlinuz"))?;
    for (order, module) in MODULES.iter().enumerate() {
        let module = find(&[
            format!("lib/modules/{release}/kernel/{module}"),
            format!("usr/lib/modules/{release}/kernel/{module}"),
            format!("lib/modules/{release}/kernel/{module}.xz"),
            format!("usr/lib/modules/{release}/kernel/{module}.xz"),
        ])?;
        let name = module.file_name().context("a module has a name")?;
        fs::rename(&module, modules.join(format!("{order}-{}", name.display())))?;
    }
    Ok(())
}

/// apt with package lists of its own, so that this machine's are left as they are.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn update(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder.join("lists/partial"))?;
        fs::create_dir_all(folder.join("archives/partial"))?;
        let sources = folder.join("sources.list");
        let mirror = mirror()?;
        let lines = SUITES.map(|suite| {
            format!("deb [target=Packages signed-by={KEYRING}] {mirror} {suite} main\n")
        });
        fs::write(&sources, lines.concat())?;
        let set = |name: &str, value: &Path| format!("-o{name}={}", value.display());
        let apt = Self {
            options: vec![
                set("Dir::Etc::sourcelist", &sources),
                set("Dir::Etc::sourceparts", Path::new("/dev/null")),
                set("Dir::State::lists", &folder.join("lists")),
                set("Dir::Cache", folder),
                // The user that apt otherwise downloads as cannot enter a home folder.
                "-oAPT::Sandbox::User=".to_owned(),
            ],
        };
        println!("looking for kernels on {mirror}");
        cargo::succeed(apt.command("apt-get").args(["-qq", "update"]))?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options).stdin(Stdio::null());
        command
    }

    /// The names of all packages of kernels.
    fn names(&self) -> Result<Vec<String>> {
        let names = cargo::output(self.command("apt-cache").args(["pkgnames", "linux-"]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    fn download(&self, packages: &[String], folder: &Path) -> Result<()> {
        let mut command = self.command("apt-get");
        command.current_dir(folder).args(["-q", "download"]);
        cargo::succeed(command.args(packages))
    }
}

/// The address of Debian's archive that this machine's apt uses.
fn mirror() -> Result<String> {
    let sources = cargo::output(Command::new("apt-get").args([
        "indextargets",
        "--format=$(ORIGIN) $(LABEL) $(REPO_URI)",
        "Created-By: Packages",
    ]))?;
    let mirror = sources
        .lines()
        .find_map(|line| line.strip_prefix("Debian Debian "));
    mirror
        .map(str::to_owned)
        .context("apt knows no mirror of Debian's archive: has `apt-get update` been run?")
}

/// `6.1.0-50` of the package of that kernel.
fn release(package: &str) -> Option<&str> {
    package
        .strip_prefix("linux-image-")?
        .strip_suffix(FLAVOUR)
        .filter(|release| !release.is_empty())
}

/// The newest release of a version, of all these packages.
fn newest<'a>(packages: &'a [String], wanted: &[u64]) -> Option<&'a str> {
    packages
        .iter()
        .filter_map(|package| release(package))
        .filter(|release| numbers(release).starts_with(wanted))
        .max_by_key(|release| numbers(release))
}

fn numbers(version: &str) -> Vec<u64> {
    version
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|number| number.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{newest, numbers};

    #[test]
    fn the_newest_of_a_version_is_chosen_by_number() {
        let packages = [
            "linux-image-cloud-amd64",
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-50-cloud-amd64",
            "linux-image-6.1.0-51-amd64",
            "linux-image-6.1.0-52-cloud-amd64-unsigned",
            "linux-image-6.12.94+deb13-cloud-amd64",
            "linux-image-6.12.107+deb13-cloud-amd64",
        ]
        .map(str::to_owned);
        let newest = |version| newest(&packages, &numbers(version));
        assert_eq!(newest("6.1"), Some("6.1.0-50"));
        assert_eq!(newest("6.12"), Some("6.12.107+deb13"));
        assert_eq!(newest("6.12.94"), Some("6.12.94+deb13"));
        assert_eq!(newest("5.10"), None);
    }
}
