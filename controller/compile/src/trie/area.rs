//! The memory that a trie is laid out in.

use super::TrieError;
use headgate_layout::trie::{Entry, LINE, OFFSET_BITS};
use zerocopy::{Immutable, IntoBytes};

const LINE_WORDS: usize = LINE / 4;

/// A growing run of words, the first of which lies at the start of a cache line.
pub(super) struct Area {
    words: Vec<u32>,
    /// Words that an entry's offset counts in.
    unit: usize,
}

impl Area {
    /// An empty area with room for `capacity` words, whose offsets count `unit` bytes.
    pub(super) fn new(capacity: usize, unit: u32) -> Self {
        Self {
            words: Vec::with_capacity(capacity),
            unit: unit as usize / 4,
        }
    }

    /// Room for `words` words at the end, as an index; may cross lines.
    pub(super) fn reserve(&mut self, words: usize) -> usize {
        let at = self.words.len();
        self.words.resize(at + words, 0);
        at
    }

    /// Appends `node`, at most a line long, within one line, and returns its index.
    pub(super) fn push<N: IntoBytes + Immutable + ?Sized>(&mut self, node: &N) -> usize {
        let bytes = node.as_bytes();
        let words = bytes.len() / 4;
        let free = LINE_WORDS - self.words.len() % LINE_WORDS;
        if words > free {
            self.reserve(free);
        }
        let at = self.reserve(words);
        self.words[at..].as_mut_bytes().copy_from_slice(bytes);
        at
    }

    /// Writes `entry` at an index got from [`Self::reserve`].
    pub(super) fn set(&mut self, at: usize, entry: Entry) {
        self.words[at] = entry.word();
    }

    /// The index `at` in an entry's units. Wraps beyond [`Self::finish`]'s limit.
    pub(super) fn offset(&self, at: usize) -> u32 {
        (at / self.unit) as u32 & ((1 << OFFSET_BITS) - 1)
    }

    /// The words, filled up to whole lines with at least a line readable from every node,
    /// however short.
    pub(super) fn finish(mut self) -> Result<Vec<u32>, TrieError> {
        let words = (self.words.len() + LINE_WORDS - 1).next_multiple_of(LINE_WORDS);
        check_size(words, self.unit)?;
        self.words.resize(words, 0);
        Ok(self.words)
    }
}

/// Checks that offsets counted in `unit` words reach the whole of `words`.
fn check_size(words: usize, unit: usize) -> Result<(), TrieError> {
    let bytes = words as u64 * 4;
    let limit = (unit as u64 * 4) << OFFSET_BITS;
    if bytes > limit {
        return Err(TrieError::TooLarge { bytes, limit });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_stay_within_a_line() {
        let mut area = Area::new(0, 4);
        area.reserve(10);
        assert_eq!(area.push(&[1u32; 6]), 10);
        area.reserve(10);
        assert_eq!(area.push(&[2u32; 7]), 32);
    }

    #[test]
    fn a_line_is_readable_from_the_last_word() {
        let mut area = Area::new(0, 4);
        area.reserve(17);
        assert_eq!(area.finish().map(|words| words.len()), Ok(32));
        let mut area = Area::new(0, 4);
        area.reserve(18);
        assert_eq!(area.finish().map(|words| words.len()), Ok(48));
    }

    #[test]
    fn what_offsets_cannot_reach_is_refused() {
        assert_eq!(check_size(1 << OFFSET_BITS, 1), Ok(()));
        assert_eq!(
            check_size((1 << OFFSET_BITS) + 16, 1),
            Err(TrieError::TooLarge {
                bytes: (4 << OFFSET_BITS) + 64,
                limit: 4 << OFFSET_BITS
            })
        );
        assert_eq!(check_size((1 << OFFSET_BITS) + 16, 2), Ok(()));
    }
}
