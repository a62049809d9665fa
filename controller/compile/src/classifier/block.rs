//! Puts all tables into one block.

use std::collections::HashMap;

use headgate_datapath::state::Block;
use headgate_layout::{
    LAYOUT_VERSION,
    maps::{self, LINE},
    tables::{
        ADDRESSES_V4, ADDRESSES_V6, AddressTables4, AddressTables6, Decision, FIXED_LENGTH, Header,
        PORT_BLOCKS,
    },
    trie::{Trie4, Trie6},
};
use zerocopy::IntoBytes;

use super::{
    TooLarge,
    addresses::AddressField,
    cross::{Crossing, Matches, Table},
    transport::Transport,
};
use crate::trie::{self, Boundary};

/// A block in the making.
pub struct BlockWriter {
    header: Header,
    v4: AddressTables4,
    v6: AddressTables6,
    bytes: Vec<u8>,
    ring_blocks: Vec<Block>,
}

impl Default for BlockWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl BlockWriter {
    /// An empty block.
    #[must_use]
    pub fn new() -> Self {
        Self {
            header: Header {
                version: LAYOUT_VERSION,
                ..Header::default()
            },
            v4: AddressTables4::default(),
            v6: AddressTables6::default(),
            bytes: vec![0; FIXED_LENGTH as usize],
            ring_blocks: Vec::new(),
        }
    }

    pub(super) fn source_tries(&mut self, field: &AddressField) -> Result<(), TooLarge> {
        (self.v4.source, self.v4.source_class) = self.trie4(&field.v4)?;
        (self.v6.source, self.v6.source_class) = self.trie6(&field.v6)?;
        Ok(())
    }

    pub(super) fn destination_tries(&mut self, field: &AddressField) -> Result<(), TooLarge> {
        (self.v4.destination, self.v4.destination_class) = self.trie4(&field.v4)?;
        (self.v6.destination, self.v6.destination_class) = self.trie6(&field.v6)?;
        Ok(())
    }

    /// Classes of sources and of destinations that no rule knows of, of IPv4 and IPv6.
    pub(crate) fn address_classes(
        &mut self,
        sources: (&[Boundary<u32>], &[Boundary<u128>]),
        destinations: (&[Boundary<u32>], &[Boundary<u128>]),
    ) -> Result<(), TooLarge> {
        (self.v4.source, self.v4.source_class) = self.trie4(sources.0)?;
        (self.v6.source, self.v6.source_class) = self.trie6(sources.1)?;
        (self.v4.destination, self.v4.destination_class) = self.trie4(destinations.0)?;
        (self.v6.destination, self.v6.destination_class) = self.trie6(destinations.1)?;
        Ok(())
    }

    fn trie4(&mut self, ranges: &[Boundary<u32>]) -> Result<(Trie4, u32), TooLarge> {
        if let [only] = ranges {
            return Ok((Trie4::default(), u32::from(only.class)));
        }
        let built = trie::build_v4(ranges)?;
        let base = self.append(built.words.as_bytes());
        let shift = built.shift;
        Ok((Trie4 { base, shift }, 0))
    }

    fn trie6(&mut self, ranges: &[Boundary<u128>]) -> Result<(Trie6, u32), TooLarge> {
        if let [only] = ranges {
            return Ok((Trie6::default(), u32::from(only.class)));
        }
        let built = trie::build_v6(ranges)?;
        let base = self.append(built.words.as_bytes());
        let shift = built.shift;
        Ok((Trie6 { base, shift }, 0))
    }

    pub(super) fn addresses(&mut self, crossing: &Crossing) {
        (self.header.addresses, self.header.addresses_row) = self.table(crossing.table.as_ref());
    }

    pub(super) fn transport(&mut self, transport: &Transport) {
        if let Some(kinds) = &transport.kinds {
            self.header.kinds = self.append(kinds.as_bytes());
        }
        self.header.details = u32::from(transport.details);
        self.header.destination_ports = self.ports(transport.destination_ports.as_deref());
        self.header.source_ports = self.ports(transport.source_ports.as_deref());
        (self.header.ports, self.header.ports_row) = self.table(transport.ports.as_ref());
        (self.header.transport, self.header.transport_row) = self.table(transport.table.as_ref());
    }

    pub(super) fn matches(&mut self, matches: &Matches) {
        (self.header.matches, self.header.matches_row) = self.table(matches.table.as_ref());
    }

    pub(super) fn decisions(&mut self, decisions: &[Decision]) {
        self.header.decision_count = decisions.len() as u32;
        self.header.decisions = self.append(decisions.as_bytes());
    }

    fn table(&mut self, table: Option<&Table>) -> (u32, u32) {
        table.map_or((0, 0), |table| {
            (self.append(table.cells.as_bytes()), table.row)
        })
    }

    /// A port table: the blocks' numbers, then the blocks, equal ones once.
    fn ports(&mut self, classes: Option<&[u16]>) -> u32 {
        let Some(classes) = classes else { return 0 };
        let mut numbers = Vec::with_capacity(PORT_BLOCKS as usize);
        let mut known: HashMap<&[u16], u16> = HashMap::new();
        let mut blocks: Vec<u16> = Vec::new();
        for block in classes.chunks(256) {
            let next = known.len() as u16;
            let number = *known.entry(block).or_insert_with(|| {
                blocks.extend_from_slice(block);
                next
            });
            numbers.push(number);
        }
        numbers.extend(blocks);
        self.append(numbers.as_bytes())
    }

    /// Appends a table at the start of a line and returns its offset.
    pub fn append(&mut self, table: &[u8]) -> u32 {
        let offset = self.bytes.len().next_multiple_of(LINE as usize);
        self.bytes.resize(offset, 0);
        self.bytes.extend_from_slice(table);
        // What does not fit into 32 bits is refused by `finish`, before anyone follows an offset.
        offset as u32
    }

    /// Adds a ring block, numbered behind those that there are.
    pub fn add_ring_block(&mut self, block: Block) {
        self.ring_blocks.push(block);
    }

    /// Ring blocks, by number.
    #[must_use]
    pub fn ring_blocks(&self) -> &[Block] {
        &self.ring_blocks
    }

    /// Writes to the fixed part.
    pub fn put(&mut self, offset: u32, value: &[u8]) {
        put(&mut self.bytes, offset, value);
    }

    /// Whether a program can read what there is so far.
    ///
    /// # Errors
    /// It cannot.
    pub fn fits(&self) -> Result<(), TooLarge> {
        let bytes = self.bytes.len().next_multiple_of(LINE as usize) as u64;
        let limit = u64::from(maps::MAX_CAPACITY - LINE);
        if bytes > limit {
            return Err(TooLarge::Block { bytes, limit });
        }
        Ok(())
    }

    /// The whole block.
    ///
    /// # Errors
    /// It is too large.
    pub fn finish(mut self) -> Result<Block, TooLarge> {
        self.fits()?;
        let length = self.bytes.len().next_multiple_of(LINE as usize);
        self.bytes.resize(length, 0);
        self.header.length = length as u32;
        put(&mut self.bytes, 0, self.header.as_bytes());
        put(&mut self.bytes, ADDRESSES_V4, self.v4.as_bytes());
        put(&mut self.bytes, ADDRESSES_V6, self.v6.as_bytes());
        Ok(Block::new(self.bytes).with_ring_blocks(self.ring_blocks))
    }
}

fn put(bytes: &mut [u8], offset: u32, value: &[u8]) {
    let start = offset as usize;
    bytes[start..start + value.len()].copy_from_slice(value);
}
