//! Frames that others captured: tcpdump's own tests, where `HEADGATE_DATA` names the folder that
//! holds them. Complete in itself, for test crates that include it by its path; they need the
//! crates `lzma-rs`, `pcap-parser` and `tar`.
#![allow(dead_code, unreachable_pub, reason = "each test uses its own part")]
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::{env, fs, io::Read, path::PathBuf};

use pcap_parser::{
    Block, Linktype, PcapBlockOwned, PcapError, create_reader, traits::PcapReaderIterator,
};

/// The Ethernet frames of one file.
pub struct Capture {
    /// Name of the file.
    pub name: String,
    /// Its frames, as far as they were captured, from the Ethernet header on.
    pub frames: Vec<Vec<u8>>,
}

/// The folder with large test data; where there is none, says that `test` is skipped.
pub fn data(test: &str) -> Option<PathBuf> {
    let folder = env::var_os("HEADGATE_DATA").map(PathBuf::from);
    if folder.is_none() {
        println!("SKIPPED {test}: HEADGATE_DATA is not set");
    }
    folder
}

/// All captures that hold Ethernet frames, in the order of their names; where there are none, says
/// that `test` is skipped.
pub fn ethernet(test: &str) -> Option<Vec<Capture>> {
    let archive = data(test)?.join("tcpdump-pcaps.tar.xz");
    let packed =
        fs::read(&archive).unwrap_or_else(|error| panic!("{}: {error}", archive.display()));
    let mut unpacked = Vec::new();
    lzma_rs::xz_decompress(&mut &packed[..], &mut unpacked)
        .unwrap_or_else(|error| panic!("{}: {error:?}", archive.display()));
    let mut captures = Vec::new();
    for entry in tar::Archive::new(&unpacked[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let frames = frames(&bytes);
        if !frames.is_empty() {
            captures.push(Capture { name, frames });
        }
    }
    captures.sort_by(|a, b| a.name.cmp(&b.name));
    Some(captures)
}

/// The Ethernet frames of a pcap or pcapng file. Some are broken on purpose: what comes before the
/// fault counts.
fn frames(file: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    // Room for the whole file: nothing ever has to be read again.
    let Ok(mut reader) = create_reader(file.len().max(1 << 16), file) else {
        return frames;
    };
    // Link types of the interfaces of a pcapng section; a pcap file is one interface.
    let mut interfaces: Vec<Linktype> = Vec::new();
    while let Ok((length, block)) = next(reader.as_mut()) {
        match block {
            PcapBlockOwned::LegacyHeader(header) => interfaces = vec![header.network],
            PcapBlockOwned::Legacy(packet) => {
                add(&mut frames, &interfaces, 0, packet.data, packet.caplen);
            }
            PcapBlockOwned::NG(Block::SectionHeader(_)) => interfaces.clear(),
            PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
                interfaces.push(interface.linktype);
            }
            PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                let interface = packet.if_id as usize;
                add(
                    &mut frames,
                    &interfaces,
                    interface,
                    packet.data,
                    packet.caplen,
                );
            }
            PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
                add(&mut frames, &interfaces, 0, packet.data, packet.origlen);
            }
            PcapBlockOwned::NG(_) => {}
        }
        reader.consume(length);
    }
    frames
}

fn next(
    reader: &mut dyn PcapReaderIterator,
) -> Result<(usize, PcapBlockOwned<'_>), PcapError<&[u8]>> {
    reader.next()
}

fn add(
    frames: &mut Vec<Vec<u8>>,
    interfaces: &[Linktype],
    interface: usize,
    data: &[u8],
    length: u32,
) {
    if interfaces.get(interface) == Some(&Linktype::ETHERNET) {
        // A block's data are padded.
        let length = data.len().min(length as usize);
        frames.push(data[..length].to_vec());
    }
}
