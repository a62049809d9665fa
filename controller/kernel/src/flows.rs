//! The table of flows that go through Nat.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use headgate_datapath::kernel::KernelError;
use headgate_layout::{
    flows::{FLOWS, Flow, Guard, Keep, SECOND, Shared, State},
    maps::FLOW_TABLE,
};
use zerocopy::FromBytes;

use crate::{
    bpf::Map,
    error::{Asked, absent, unusable},
    monitor::now,
};

/// A flow as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundFlow {
    /// IP protocol number.
    pub protocol: u8,
    /// How far it has come.
    pub state: State,
    /// Where the client sends from.
    pub client: SocketAddr,
    /// Where it sends to.
    pub service: SocketAddr,
    /// What the backend sees of it: an address and a port of this node.
    pub local: SocketAddr,
    /// Where the backend listens.
    pub backend: SocketAddr,
    /// How long it is kept if nothing more is heard.
    pub left: Duration,
}

impl FoundFlow {
    /// `now` is in [`SECOND`]s.
    fn of(flow: &Flow, now: u32) -> Option<Self> {
        let state = Guard(flow.guard.get()).state();
        if matches!(state, State::Free | State::Taken) {
            return None;
        }
        let left = Keep(flow.keep.get()).time().saturating_sub(now);
        let end = |address: &Shared<[u64; 2]>, port: &Shared<u16>| {
            SocketAddr::new(address_of(address.get()), port.get())
        };
        Some(Self {
            protocol: flow.protocol.get() as u8,
            state,
            client: end(&flow.client, &flow.client_port),
            service: end(&flow.service, &flow.service_port),
            local: end(&flow.local, &flow.local_port),
            backend: end(&flow.backend, &flow.backend_port),
            left: Duration::from_nanos(u64::from(left) << SECOND),
        })
    }
}

fn address_of(words: [u64; 2]) -> IpAddr {
    let address = Ipv6Addr::from_bits(u128::from(words[0]) << 64 | u128::from(words[1]));
    address.to_canonical()
}

/// An empty table, also the template of the outer map.
pub(crate) fn create(name: &str) -> Result<Map, KernelError> {
    let made = Map::create(&FLOW_TABLE, name, None);
    if let Err(error) = &made
        && error.raw_os_error() == Some(libc::ENOMEM)
    {
        return Err(unusable(
            format!(
                "there is no memory for the table of flows, {} MiB",
                FLOW_TABLE.value_size >> 20
            ),
            "free memory, or raise the memory limit of this process",
        ));
    }
    made.asked(|| "making the table of flows".to_owned())
}

/// The table, where there is one.
pub(crate) fn table(outer: &Map) -> Result<Option<Map>, KernelError> {
    let asked = || "reading the table of flows".to_owned();
    match outer.lookup(&0_u32.to_ne_bytes()) {
        Ok(value) => {
            let value = value
                .try_into()
                .expect("the map was checked to be of its shape");
            Map::by_id(u32::from_ne_bytes(value)).map(Some).asked(asked)
        }
        Err(error) if absent(&error) => Ok(None),
        Err(error) => Err(error).asked(asked),
    }
}

/// The table must be there: programs beside XDP go by nothing else.
pub(crate) fn required(outer: &Map) -> Result<(), KernelError> {
    let missing = || unusable("there is no table of flows", "it is made anew");
    table(outer)?.map(drop).ok_or_else(missing)
}

/// Makes the table, if there is none.
pub(crate) fn make(outer: &Map) -> Result<(), KernelError> {
    if table(outer)?.is_some() {
        return Ok(());
    }
    let made = create("hg_flows")?;
    outer
        .update_map(0, &made)
        .asked(|| "putting the table of flows in its place".to_owned())
}

/// Forgets the table.
pub(crate) fn remove(outer: &Map) -> Result<(), KernelError> {
    match outer.delete(&0_u32.to_ne_bytes()) {
        Err(error) if !absent(&error) => {
            Err(error).asked(|| "removing the table of flows".to_owned())
        }
        _ => Ok(()),
    }
}

/// All flows of this moment.
pub(crate) fn read(outer: &Map) -> Result<Vec<FoundFlow>, KernelError> {
    let Some(table) = table(outer)? else {
        return Ok(Vec::new());
    };
    let asked = || "reading the table of flows".to_owned();
    let bytes = table.lookup(&0_u32.to_ne_bytes()).asked(asked)?;
    // The clock counts from the start of the machine: 2^32 units are a hundred years.
    let now = (now().as_nanos() >> SECOND) as u32;
    let records = bytes.chunks_exact(size_of::<Flow>()).take(FLOWS as usize);
    let flows = records.filter_map(|r| FoundFlow::of(&Flow::read_from_bytes(r).ok()?, now));
    Ok(flows.collect())
}
