//! The image that clusters run: the one binary, linked to nothing, and no distribution below it.
//!
//! Written as an OCI archive, without a container engine or a registry. The same binary gives the same
//! bytes.

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use crate::cargo;

/// What the manifests call it. Nobody can pull it from there: it is loaded.
const NAME: &str = "localhost/headgate";
const VERSION: &str = env!("CARGO_PKG_VERSION");
const MEDIA: &str = "application/vnd.oci.image";

/// How the binary is built.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Optimised, which takes long.
    Release,
    /// Quick to build, for tests.
    Dev,
}

/// Builds the binary and writes the archive; below the build folder where no path is given. Gives
/// where it is.
pub(crate) fn write(path: Option<&Path>, profile: Profile) -> Result<PathBuf> {
    let target = Target::of_host()?;
    let binary = build(&target, profile)?;
    let path = match path {
        Some(path) => path.to_owned(),
        None => {
            let folder = binary.parent().context("a file is in a folder")?;
            folder.join(format!("headgate-{VERSION}-{}.tar", target.architecture))
        }
    };
    let content = read(&binary)?;
    if let Some(place) = named(&content, &places()) {
        bail!(
            "the binary names {}: built elsewhere, it would be another; map that path to something \
             else in xtask/src/image.rs",
            place.display()
        );
    }
    let image = Image {
        name: NAME,
        version: VERSION,
        title: "headgate",
        license: env!("CARGO_PKG_LICENSE"),
        entrypoint: &["/headgate"],
        file: ("headgate", &content),
    };
    let archive = image.archive(target.architecture)?;
    fs::write(&path, &archive).with_context(|| path.display().to_string())?;
    println!(
        "{NAME}:{VERSION}, {} KiB: {}",
        archive.len() / 1024,
        path.display()
    );
    println!("Its digest: sha256:{}", sha256(&archive)?);
    Ok(path)
}

/// Writes the image of the pods that tests send packets between, and of the sandbox of every pod.
pub(crate) fn write_pods(path: &Path) -> Result<()> {
    let image = Image {
        name: "localhost/headgate-tests",
        version: "1",
        title: "busybox",
        license: "GPL-2.0-only",
        // What a sandbox runs: it does nothing until it is killed.
        entrypoint: &["/busybox", "sleep", "2147483647"],
        file: ("busybox", &read(Path::new("/bin/busybox"))?),
    };
    let archive = image.archive(Target::of_host()?.architecture)?;
    fs::write(path, archive).with_context(|| path.display().to_string())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| path.display().to_string())
}

/// What the image is for.
struct Target {
    triple: String,
    /// As the image specification names it.
    architecture: &'static str,
}

impl Target {
    fn of_host() -> Result<Self> {
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let said = cargo::output(Command::new(rustc).arg("-vV"))?;
        let host = said.lines().find_map(|line| line.strip_prefix("host: "));
        let triple = host.context("rustc -vV names its host")?.to_owned();
        let architecture = match triple.split('-').next() {
            Some("x86_64") => "amd64",
            Some("aarch64") => "arm64",
            _ => bail!("no image can be built for {triple}: headgate runs on x86_64 and aarch64"),
        };
        Ok(Self {
            triple,
            architecture,
        })
    }
}

fn build(target: &Target, profile: Profile) -> Result<PathBuf> {
    let mut flags = vec![
        "-Ctarget-feature=+crt-static".to_owned(),
        "-Cstrip=symbols".to_owned(),
        // It would differ where nothing else does.
        "-Clink-arg=-Wl,--build-id=none".to_owned(),
    ];
    // The last that fits counts: what is built is below the checkout mostly.
    for (place, name) in places().iter().zip(NAMES) {
        flags.push(format!("--remap-path-prefix={}={name}", place.display()));
    }
    let mut command = cargo::command();
    command
        .args(["build", "--locked", "-p", "headgate"])
        // Named, so that the flags are not those of build scripts too.
        .args(["--bin", "headgate", "--target", &target.triple])
        .env_remove("RUSTFLAGS")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    if profile == Profile::Release {
        command.arg("--release");
    }
    cargo::executable("headgate", &mut command)
}

/// What the binary has in place of [`places`].
const NAMES: [&str; 3] = ["headgate", "target", "registry"];

/// Where the checkout is, what is built of it, and sources that cargo keeps.
fn places() -> Vec<PathBuf> {
    let built = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let sources = cargo_home().map(|home| home.join("registry/src"));
    let ours = [cargo::root().to_owned(), cargo::root().join(built)];
    ours.into_iter().chain(sources).collect()
}

/// The first of these places that a binary names.
fn named<'a>(binary: &[u8], places: &'a [PathBuf]) -> Option<&'a PathBuf> {
    places.iter().find(|place| {
        let path = place.as_os_str().as_encoded_bytes();
        binary.windows(path.len()).any(|window| window == path)
    })
}

fn cargo_home() -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))
}

/// An image of one file.
struct Image<'a> {
    name: &'a str,
    version: &'a str,
    title: &'a str,
    license: &'a str,
    entrypoint: &'a [&'a str],
    /// Its path and its content.
    file: (&'a str, &'a [u8]),
}

impl Image<'_> {
    /// The archive: an OCI layout with one image of one layer.
    fn archive(&self, architecture: &str) -> Result<Vec<u8>> {
        let mut blobs = Blobs(Vec::new());
        let layer = blobs.add("layer.v1.tar", self.layer()?)?;
        let config = blobs.add_json("config.v1+json", &self.config(architecture, &layer))?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": format!("{MEDIA}.manifest.v1+json"),
            "config": config,
            "layers": [layer],
        });
        let mut manifest = blobs.add_json("manifest.v1+json", &manifest)?;
        manifest["platform"] = json!({"architecture": architecture, "os": "linux"});
        // containerd and those who load into it go by the first, others by the second.
        manifest["annotations"] = json!({
            "io.containerd.image.name": format!("{}:{}", self.name, self.version),
            "org.opencontainers.image.ref.name": self.version,
        });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": format!("{MEDIA}.index.v1+json"),
            "manifests": [manifest],
        });
        let mut archive = Builder::new(Vec::new());
        append(
            &mut archive,
            "oci-layout",
            0o644,
            br#"{"imageLayoutVersion":"1.0.0"}"#,
        )?;
        append(
            &mut archive,
            "index.json",
            0o644,
            index.to_string().as_bytes(),
        )?;
        for (digest, content) in &blobs.0 {
            append(
                &mut archive,
                &format!("blobs/sha256/{digest}"),
                0o644,
                content,
            )?;
        }
        Ok(archive.into_inner()?)
    }

    fn config(&self, architecture: &str, layer: &Value) -> Value {
        let labels = json!({
            "org.opencontainers.image.title": self.title,
            "org.opencontainers.image.version": self.version,
            "org.opencontainers.image.licenses": self.license,
        });
        json!({
            "architecture": architecture,
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {"Entrypoint": self.entrypoint, "WorkingDir": "/", "Labels": labels},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        })
    }

    fn layer(&self) -> Result<Vec<u8>> {
        let mut layer = Builder::new(Vec::new());
        append(&mut layer, self.file.0, 0o755, self.file.1)?;
        Ok(layer.into_inner()?)
    }
}

/// Appends a file of root's, as old as time.
fn append(archive: &mut Builder<Vec<u8>>, path: &str, mode: u32, content: &[u8]) -> Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(u64::try_from(content.len())?);
    archive.append_data(&mut header, path, content)?;
    Ok(())
}

/// Contents by their digests.
struct Blobs(Vec<(String, Vec<u8>)>);

impl Blobs {
    /// Adds one, and gives its descriptor.
    fn add(&mut self, media: &str, content: Vec<u8>) -> Result<Value> {
        let digest = sha256(&content)?;
        let descriptor = json!({
            "mediaType": format!("{MEDIA}.{media}"),
            "digest": format!("sha256:{digest}"),
            "size": content.len(),
        });
        self.0.push((digest, content));
        Ok(descriptor)
    }

    fn add_json(&mut self, media: &str, content: &Value) -> Result<Value> {
        self.add(media, content.to_string().into_bytes())
    }
}

/// By the command that every Debian has: chores depend on little.
fn sha256(content: &[u8]) -> Result<String> {
    let mut file = tempfile::tempfile()?;
    file.write_all(content)?;
    std::io::Seek::rewind(&mut file)?;
    let said = cargo::output(Command::new("sha256sum").stdin(Stdio::from(file)))?;
    let digest = said.split_whitespace().next();
    Ok(digest.context("sha256sum prints a digest")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_that_names_where_it_was_built_is_found_out() {
        let places = [PathBuf::from("/src/one"), PathBuf::from("/src/two")];
        assert_eq!(named(b"at headgate/main.rs", &places), None);
        assert_eq!(named(b"at /src/two/x.rs", &places), Some(&places[1]));
    }

    #[test]
    fn an_archive_names_what_it_holds_and_is_the_same_twice() -> Result<()> {
        let image = |content| Image {
            name: NAME,
            version: VERSION,
            title: "headgate",
            license: "Apache-2.0",
            entrypoint: &["/headgate"],
            file: ("headgate", content),
        };
        let first = image(b"binary").archive("amd64")?;
        assert_eq!(first, image(b"binary").archive("amd64")?);
        assert_ne!(first, image(b"another").archive("amd64")?);
        let mut files = std::collections::BTreeMap::new();
        for entry in tar::Archive::new(first.as_slice()).entries()? {
            let mut entry = entry?;
            assert_eq!((entry.header().mtime()?, entry.header().uid()?), (0, 0));
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content)?;
            files.insert(entry.path()?.display().to_string(), content);
        }
        let of = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap_or_default();
            let path = format!("blobs/{}", digest.replace(':', "/"));
            let content = files
                .get(&path)
                .with_context(|| format!("{path} is missing"))?;
            assert_eq!(descriptor["size"], content.len());
            anyhow::Ok(content.clone())
        };
        let index: Value = serde_json::from_slice(&files["index.json"])?;
        let manifest: Value = serde_json::from_slice(&of(&index["manifests"][0])?)?;
        let config: Value = serde_json::from_slice(&of(&manifest["config"])?)?;
        assert_eq!(config["config"]["Entrypoint"], json!(["/headgate"]));
        let layer = of(&manifest["layers"][0])?;
        assert_eq!(
            config["rootfs"]["diff_ids"][0],
            manifest["layers"][0]["digest"]
        );
        let mut layer = tar::Archive::new(layer.as_slice());
        let binary = layer.entries()?.next().context("the layer has a file")??;
        assert_eq!(
            (binary.path()?.as_ref(), binary.header().mode()?),
            (Path::new("headgate"), 0o755)
        );
        Ok(())
    }
}
