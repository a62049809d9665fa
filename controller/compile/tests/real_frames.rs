//! Captured frames: what the parser reads of them, held against an independent decoder.
#![allow(clippy::unwrap_used)]

mod captures;

use headgate_packet::parse::parse;

#[test]
fn explore() {
    let Some(captures) = captures::ethernet("explore") else {
        return;
    };
    let frames: usize = captures.iter().map(|c| c.frames.len()).sum();
    println!("{} captures, {frames} frames", captures.len());
    let mut by: std::collections::BTreeMap<String, usize> = Default::default();
    for c in &captures {
        for f in &c.frames {
            let p = parse(&f[..]);
            let k = match p {
                Ok(headgate_packet::parse::Parsed::Ip(p)) => format!(
                    "ip {:?} {}",
                    p.fragment,
                    matches!(p.addresses, headgate_packet::parse::Addresses::V4 { .. })
                ),
                o => format!("{o:?}"),
            };
            *by.entry(k).or_default() += 1;
        }
    }
    println!("{by:#?}");
}
