//! What the verifier must not know.

use headgate_layout::{LAYOUT_VERSION, tables::Header};

/// `word`, given a header of this layout, as all are. The verifier cannot know that, and forgets what it
/// knows of each way on which `word` came about: else it walks the tries once more for each.
#[inline(always)]
#[must_use]
pub fn blinded(word: u32, header: &Header) -> u32 {
    word ^ header.version ^ LAYOUT_VERSION
}
