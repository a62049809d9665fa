//! Bit sets and the classes that are known by them.

use std::collections::HashMap;

use super::TooLarge;

/// Classes are `u16` in the tables.
pub const MAX_CLASSES: usize = 1 << 16;

/// A set of small numbers, all below a size that is the same for all sets it is used with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BitSet(Box<[u64]>);

impl BitSet {
    pub fn empty(size: usize) -> Self {
        Self(vec![0; size.div_ceil(64)].into())
    }

    pub fn full(size: usize) -> Self {
        let mut set = Self::empty(size);
        (0..size).for_each(|number| set.insert(number));
        set
    }

    pub fn insert(&mut self, number: usize) {
        self.0[number / 64] |= 1 << (number % 64);
    }

    pub fn toggle(&mut self, number: usize) {
        self.0[number / 64] ^= 1 << (number % 64);
    }

    pub fn add_all(&mut self, other: &Self) {
        for (word, more) in self.0.iter_mut().zip(&other.0) {
            *word |= more;
        }
    }

    /// Makes this the intersection of `a` and `b`.
    pub fn set_to_both(&mut self, a: &Self, b: &Self) {
        for (word, (a, b)) in self.0.iter_mut().zip(a.0.iter().zip(&b.0)) {
            *word = a & b;
        }
    }

    /// The smallest number in both.
    pub fn first_in_both(&self, other: &Self) -> Option<usize> {
        let mut words = self.0.iter().zip(&other.0).enumerate();
        words.find_map(|(index, (a, b))| {
            let both = a & b;
            (both != 0).then(|| index * 64 + both.trailing_zeros() as usize)
        })
    }

    /// Removes all numbers behind the first one that is in `last` too.
    pub fn end_with_first_of(&mut self, last: &Self) {
        let Some(first) = self.first_in_both(last) else {
            return;
        };
        let (word, bit) = (first / 64, first % 64);
        self.0[word] &= u64::MAX >> (63 - bit);
        self.0[word + 1..].fill(0);
    }

    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(index, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros() as usize)?;
                rest &= rest - 1;
                Some(index * 64 + bit)
            })
        })
    }
}

/// Classes of one field or crossing: the class is the index, in order of first appearance.
#[derive(Clone, Debug)]
pub struct Classes {
    /// What these are classes of, for people.
    pub of: &'static str,
    /// The set that each class is known by.
    pub sets: Vec<BitSet>,
    known: HashMap<BitSet, u16>,
}

impl Classes {
    pub fn new(of: &'static str) -> Self {
        Self {
            of,
            sets: Vec::new(),
            known: HashMap::new(),
        }
    }

    /// The class that is known by `set`.
    pub fn class_of(&mut self, set: &BitSet) -> Result<u16, TooLarge> {
        if let Some(class) = self.known.get(set) {
            return Ok(*class);
        }
        if self.sets.len() == MAX_CLASSES {
            return Err(TooLarge::Classes {
                of: self.of,
                limit: MAX_CLASSES,
            });
        }
        let class = self.sets.len() as u16;
        self.sets.push(set.clone());
        self.known.insert(set.clone(), class);
        Ok(class)
    }

    /// The same classes, each known by the image of its set; images may coincide.
    pub fn map(&self, image: impl Fn(&BitSet) -> BitSet) -> Self {
        Self {
            of: self.of,
            sets: self.sets.iter().map(image).collect(),
            known: HashMap::new(),
        }
    }

    /// Whether the field tells nothing apart.
    pub fn is_trivial(&self) -> bool {
        self.sets.len() == 1
    }
}
