//! Tables by hand: every packet meets the same decision.

use headgate_datapath::state::Block;
use headgate_layout::{
    LAYOUT_VERSION,
    tables::{Decision, FIXED_LENGTH, Header, NO_RULE},
    verdict::Action,
};
use zerocopy::IntoBytes;

/// Tables in which the policies' default decides every packet.
#[must_use]
pub fn default_of(action: Action) -> Block {
    deciding(action, NO_RULE, 0)
}

/// Tables in which a rule with this counter decides every packet.
#[must_use]
pub fn rule_of(action: Action, counter: u32) -> Block {
    deciding(action, counter, 0)
}

/// As [`rule_of`], of at least `length` bytes.
#[must_use]
pub fn large_rule_of(action: Action, counter: u32, length: usize) -> Block {
    deciding(action, counter, length)
}

fn deciding(action: Action, counter: u32, length: usize) -> Block {
    let decision = Decision {
        action: action as u32,
        counter,
    };
    let mut bytes = vec![0; FIXED_LENGTH as usize];
    bytes.extend_from_slice(decision.as_bytes());
    bytes.resize(bytes.len().max(length), 0);
    let header = Header {
        version: LAYOUT_VERSION,
        length: u32::try_from(bytes.len()).expect("a small block"),
        decisions: FIXED_LENGTH,
        decision_count: 1,
        ..Header::default()
    };
    bytes[..size_of::<Header>()].copy_from_slice(header.as_bytes());
    Block::new(bytes)
}
