//! Where a frame goes that may pass: to a backend, to the client of a flow, or to the stack.

use headgate_layout::{
    services::{Backend, NAT, Way},
    verdict::Reason,
};

use crate::{
    balance::rewrite,
    flows::{FlowTable, Known},
    frame::FrameMut,
    nat::{Passage, pass_on},
    tables::Tables,
};

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departure {
    /// The way.
    pub way: Way,
    /// Index of the counter of the service's port, if it goes to a backend.
    pub counter: Option<u32>,
}

/// What is known of a frame that may pass.
#[derive(Clone, Copy, Debug)]
pub struct Passing {
    /// As [`crate::judge::Verdict::backend`].
    pub backend: u32,
    /// The flow that it belongs to.
    pub flow: Known,
    /// Bytes of link-layer header and IP packet.
    pub length: u32,
    /// The interface that it came by.
    pub ifindex: u32,
}

/// Makes `frame` one for where it goes. `Ok(None)`: it goes to the stack as it is.
///
/// # Errors
/// Why it must be dropped instead.
#[inline(always)]
pub fn depart<F: FrameMut + ?Sized, S: Tables, T: FlowTable>(
    frame: &mut F,
    passing: &Passing,
    tables: &S,
    flows: impl FnOnce() -> Option<T>,
) -> Result<Option<Departure>, Reason> {
    let backend = match passing.backend {
        0 if passing.flow.is_some() => None,
        0 => return Ok(None),
        offset => tables.at::<Backend>(offset),
    };
    match backend {
        Some(backend) if backend.forwarding != NAT => {
            let is_rewritten = rewrite(frame, &backend.way, passing.length)?;
            Ok(is_rewritten.then_some(Departure {
                way: backend.way,
                counter: Some(backend.counter),
            }))
        }
        backend => {
            let flows = flows().ok_or(Reason::FlowsExhausted)?;
            let passage = Passage {
                flows: &flows,
                known: passing.flow,
                backend,
                ifindex: passing.ifindex,
                length: passing.length,
            };
            pass_on(frame, &passage)
        }
    }
}
