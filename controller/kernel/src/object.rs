//! The eBPF object that this binary carries.

use std::{error::Error, os::fd::AsFd};

use aya::{
    EbpfLoader,
    programs::{SchedClassifier, Xdp},
};
use headgate_datapath::{
    kernel::KernelError,
    state::{Capacity, Digest, PortIndex},
};
use headgate_layout::maps::{self, LINE};

use crate::{bpf::Program, features::why_no_balancer, observe, pins::Pins, shared::Shared};

/// The object as built: an ELF file.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/headgate.bpf.o"));

/// The program with the load balancer, and the one without.
const PROGRAM: &str = "headgate";
const FILTER: &str = "headgate_filter";
/// The program at the egress.
const EGRESS: &str = "headgate_egress";
/// The program at the ingress, for backends behind an overlay.
const OVERLAY: &str = "headgate_overlay";
/// The programs at the tunnel's device: for what comes, and for what leaves.
pub(crate) const TUNNEL: [&str; 2] = ["headgate_tunnel_in", "headgate_tunnel_out"];

/// Most of a message that is passed on, from its begin and as much from its end.
const LOG_CHARACTERS: usize = 2048;

/// Digest of [`OBJECT`].
#[must_use]
pub fn object_digest() -> Digest {
    env!("HEADGATE_OBJECT_DIGEST")
        .parse()
        .expect("the build script writes a digest")
}

/// Loads the program for `port` on the pinned maps, with the slots of `capacity`.
pub(crate) fn load(
    pins: &Pins,
    port: PortIndex,
    capacity: Capacity,
) -> Result<Program, KernelError> {
    // The loader would make what it does not find, and in the object's own shape.
    observe::open_outer(pins, capacity)?;
    Shared::required(pins)?;
    let number = port.number();
    let limit = capacity.0 - LINE;
    let name = match why_no_balancer() {
        None => PROGRAM,
        Some(_) => FILTER,
    };
    let mut loader = EbpfLoader::new();
    loader
        .override_global("PORT", &number, true)
        .override_global("LIMIT", &limit, true)
        .map_pin_path(maps::TABLES.name, pins.slots(capacity));
    let mut load = || -> Result<Program, Box<dyn Error>> {
        let mut object = share_maps(&mut loader, pins).load(OBJECT)?;
        let program = object.program_mut(name).ok_or("the object lacks it")?;
        let program: &mut Xdp = program.try_into()?;
        program.load()?;
        let fd = program.fd()?.as_fd().try_clone_to_owned()?;
        Ok(Program::from(fd))
    };
    load().map_err(|error| KernelError::Load {
        port,
        message: shortened(&with_causes(error.as_ref())),
    })
}

/// Loads the program for the egress on the pinned maps.
pub(crate) fn load_egress(pins: &Pins) -> Result<Program, KernelError> {
    let [program] = load_classifiers(pins, [EGRESS], "the program for the egress")?;
    Ok(program)
}

/// Loads the program for backends behind an overlay on the pinned maps.
pub(crate) fn load_overlay(pins: &Pins) -> Result<Program, KernelError> {
    let [program] = load_classifiers(pins, [OVERLAY], "the program for overlays")?;
    Ok(program)
}

/// Loads the programs at the tunnel's device on the pinned maps: for what comes, and for what leaves.
pub(crate) fn load_tunnel(pins: &Pins) -> Result<[Program; 2], KernelError> {
    load_classifiers(pins, TUNNEL, "the tunnel's programs")
}

fn load_classifiers<const N: usize>(
    pins: &Pins,
    names: [&str; N],
    what: &str,
) -> Result<[Program; N], KernelError> {
    Shared::required(pins)?;
    let mut loader = EbpfLoader::new();
    let mut load = || -> Result<Vec<Program>, Box<dyn Error>> {
        let mut object = share_maps(&mut loader, pins).load(OBJECT)?;
        let mut loaded = Vec::new();
        for name in names {
            let program = object.program_mut(name).ok_or("the object lacks it")?;
            let program: &mut SchedClassifier = program.try_into()?;
            program.load()?;
            let fd = program.fd()?.as_fd().try_clone_to_owned()?;
            loaded.push(Program::from(fd));
        }
        Ok(loaded)
    };
    let loaded = load().map_err(|error| KernelError::Call {
        what: format!("loading {what}"),
        source: std::io::Error::other(shortened(&with_causes(error.as_ref()))),
    })?;
    Ok(loaded.try_into().expect("as many as there are names"))
}

fn share_maps<'a, 'b>(loader: &'b mut EbpfLoader<'a>, pins: &Pins) -> &'b mut EbpfLoader<'a> {
    loader.map_pin_path(maps::MONITORED_SECTION, pins.map(maps::MONITORED.name));
    for spec in &maps::SHARED {
        loader.map_pin_path(spec.name, pins.map(spec.name));
    }
    // Where they are not there yet, the loader would make them, in the object's own shape.
    for spec in &maps::TUNNEL_MAPS {
        let path = pins.map(spec.name);
        if path.exists() {
            loader.map_pin_path(spec.name, path);
        }
    }
    loader
}

/// What an error says, with what its causes add to that.
fn with_causes(error: &dyn Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        cause = error.source();
    }
    message
}

/// Begin and end of a message that may hold a verifier's log of megabytes: it begins with the error
/// and ends with the reason.
fn shortened(message: &str) -> String {
    let length = message.chars().count();
    if length <= 2 * LOG_CHARACTERS {
        return message.to_owned();
    }
    let head: String = message.chars().take(LOG_CHARACTERS).collect();
    let tail: String = message.chars().skip(length - LOG_CHARACTERS).collect();
    format!("{head}\n[...]\n{tail}")
}
