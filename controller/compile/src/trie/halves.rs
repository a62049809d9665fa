//! IPv6 addresses as two halves of 64 bits.
//!
//! The trie looks up the upper half; only where one /64 holds several ranges does it go on
//! in the lower. Such a /64 is *deep*.

use super::{Boundary, region::Step};

/// A step in one half of the address.
#[derive(Clone, Copy, Debug)]
pub(super) struct HalfStep<'a> {
    pub(super) start: u64,
    pub(super) value: Value<'a>,
}

/// What holds in the upper half from a step on; in the lower half always a class.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Class(u16),
    Deep(Deep<'a>),
}

/// A /64 that holds several ranges; it is one place of the upper half, so a step follows at
/// the next place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deep<'a> {
    /// Class of the /64's first address.
    pub(super) first: u16,
    /// The boundaries behind its first address; at least one.
    pub(super) boundaries: &'a [Boundary<u128>],
}

impl<'a> Step for HalfStep<'a> {
    type Value = Value<'a>;

    fn start(&self) -> u64 {
        self.start
    }

    fn value(&self) -> Value<'a> {
        self.value
    }
}

impl Value<'_> {
    pub(super) fn is_deep(&self) -> bool {
        matches!(self, Self::Deep(_))
    }

    /// The class of its first address.
    pub(super) fn class(&self) -> u16 {
        match self {
            Self::Class(class) => *class,
            Self::Deep(deep) => deep.first,
        }
    }

    /// Whether this is `class` throughout.
    pub(super) fn is_class(&self, class: u16) -> bool {
        matches!(self, Self::Class(own) if *own == class)
    }
}

impl Deep<'_> {
    /// Class of the /64's last address.
    pub(super) fn last(&self) -> u16 {
        self.boundaries.last().map_or(self.first, |last| last.class)
    }

    /// The steps in the lower half.
    pub(super) fn lower_steps(&self) -> Vec<HalfStep<'_>> {
        self.boundaries
            .iter()
            .map(|boundary| HalfStep {
                start: boundary.start as u64,
                value: Value::Class(boundary.class),
            })
            .collect()
    }
}

/// The steps of the upper half. The first boundary starts at 0.
pub(super) fn upper_steps(boundaries: &[Boundary<u128>]) -> Vec<HalfStep<'_>> {
    let mut steps = Vec::with_capacity(boundaries.len());
    let mut before = boundaries[0].class;
    for group in boundaries.chunk_by(|a, b| upper(a) == upper(b)) {
        let start = upper(&group[0]);
        // A deep /64 ended here, unless something else begins.
        if let Some(end) = deep_end(&steps)
            && end != start
        {
            steps.push(HalfStep {
                start: end,
                value: Value::Class(before),
            });
        }
        let (first, inside) = if group[0].start as u64 == 0 {
            (group[0].class, &group[1..])
        } else {
            (before, group)
        };
        let value = match inside {
            [] => Value::Class(first),
            _ => Value::Deep(Deep {
                first,
                boundaries: inside,
            }),
        };
        steps.push(HalfStep { start, value });
        before = group[group.len() - 1].class;
    }
    if let Some(end) = deep_end(&steps) {
        steps.push(HalfStep {
            start: end,
            value: Value::Class(before),
        });
    }
    steps
}

fn upper(boundary: &Boundary<u128>) -> u64 {
    (boundary.start >> 64) as u64
}

/// The place behind the last step, if that is deep and not the last place of all.
fn deep_end(steps: &[HalfStep<'_>]) -> Option<u64> {
    let last = steps.last().filter(|step| step.value.is_deep())?;
    last.start.checked_add(1)
}
