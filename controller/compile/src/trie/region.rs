//! A region of the address space and what lies in it.

use super::Boundary;

/// Something that begins at a place in the address space and holds until the next step.
pub(super) trait Step: Copy {
    /// What holds from here on.
    type Value: Copy;

    /// The place; in IPv6 within one half of the address.
    fn start(&self) -> u64;

    /// What holds from here on.
    fn value(&self) -> Self::Value;
}

impl Step for Boundary<u32> {
    type Value = u16;

    fn start(&self) -> u64 {
        u64::from(self.start)
    }

    fn value(&self) -> u16 {
        self.class
    }
}

/// The 2^`bits` places from `start` on, which is a multiple of their number.
#[derive(Clone, Copy)]
pub(super) struct Region<'a, S: Step> {
    /// First place.
    pub(super) start: u64,
    /// Address bits that tell its places apart, 0..=64.
    pub(super) bits: u32,
    /// What holds at `start`.
    pub(super) first: S::Value,
    /// The steps behind `start`, in ascending order.
    pub(super) steps: &'a [S],
}

impl<'a, S: Step> Region<'a, S> {
    /// Last place.
    pub(super) fn last(&self) -> u64 {
        self.start | low_mask(self.bits)
    }

    /// What is left of the address `place`, a place of this region, left-aligned.
    pub(super) fn align(&self, place: u64) -> u64 {
        (place & low_mask(self.bits))
            .checked_shl(u64::BITS - self.bits)
            .unwrap_or(0)
    }

    /// The 2^`table_bits` equal parts of this region. `table_bits` is at least 1 and at most
    /// `self.bits`.
    pub(super) fn split(self, table_bits: u32) -> impl Iterator<Item = Self> {
        let bits = self.bits - table_bits;
        let mut rest = self;
        (0..1u64 << table_bits).map(move |part| rest.take(self.start + (part << bits), bits))
    }

    /// The part of this region with 2^`bits` places around `place`.
    pub(super) fn around(mut self, place: u64, bits: u32) -> Self {
        let start = place & !low_mask(bits);
        let before = self.steps.partition_point(|step| step.start() < start);
        if let Some(last) = before.checked_sub(1) {
            self.first = self.steps[last].value();
        }
        self.steps = &self.steps[before..];
        self.take(start, bits)
    }

    /// Takes off the front the region at `start`, before which no step is left.
    fn take(&mut self, start: u64, bits: u32) -> Self {
        if let [step, behind @ ..] = self.steps
            && step.start() == start
        {
            self.first = step.value();
            self.steps = behind;
        }
        let first = self.first;
        let last = start | low_mask(bits);
        let inside = self.steps.iter().take_while(|step| step.start() <= last);
        let (steps, behind) = self.steps.split_at(inside.count());
        if let Some(step) = steps.last() {
            self.first = step.value();
        }
        self.steps = behind;
        Self {
            start,
            bits,
            first,
            steps,
        }
    }
}

/// The lowest `bits` bits set, of 0..=64.
fn low_mask(bits: u32) -> u64 {
    u64::MAX.checked_shr(u64::BITS - bits).unwrap_or(0)
}
