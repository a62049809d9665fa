//! Questions to the kernel's routing netlink.

use std::{collections::BTreeMap, io};

use headgate_datapath::{
    kernel::KernelError,
    state::{AttachedMode, Ifindex},
};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkExtentMask, LinkMessage, LinkXdp},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::error::Asked;

/// Sends a dump request and gathers the answers.
pub(crate) fn dump(request: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
    let mut conversation = Conversation::open()?;
    conversation.send(request, NLM_F_DUMP)?;
    conversation.answers()
}

/// The same of what the request's header and attributes name alone: the kernel leaves the rest out. One that is
/// older than 4.20 leaves nothing out.
pub(crate) fn dump_filtered(request: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
    let mut conversation = Conversation::open()?;
    drop(conversation.0.set_netlink_get_strict_chk(true));
    conversation.send(request, NLM_F_DUMP)?;
    conversation.answers()
}

/// A socket for one question after the other.
pub(crate) struct Conversation(Socket);

impl Conversation {
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self(socket))
    }

    /// The answer to a request for one thing, if there is more to it than that it was done.
    pub(crate) fn ask(
        &mut self,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Option<RouteNetlinkMessage>> {
        self.send(request, NLM_F_ACK | flags)?;
        Ok(self.answers()?.pop())
    }

    /// Has the kernel carry out many requests, as many in one datagram as it reads at once. What comes behind
    /// one that is refused is carried out all the same.
    ///
    /// # Errors
    /// The first refusal that `is_fine` does not take, with the place of its request.
    pub(crate) fn ask_all(
        &mut self,
        requests: impl IntoIterator<Item = RouteNetlinkMessage>,
        flags: u16,
        is_fine: impl Fn(&io::Error) -> bool,
    ) -> Result<(), (usize, io::Error)> {
        let mut requests = requests.into_iter().enumerate().peekable();
        while let Some((first, _)) = requests.peek() {
            let first = *first;
            let mut bytes = Vec::with_capacity(DATAGRAM);
            let mut last = first;
            while let Some((place, request)) = requests.next() {
                let ends = requests.peek().is_none() || bytes.len() > DATAGRAM / 2;
                // The kernel tells of refusals without being asked to; of the rest, that it came to the end.
                let asks = if ends { NLM_F_ACK } else { 0 };
                append(&mut bytes, request, place as u32, flags | asks);
                last = place;
                if ends {
                    break;
                }
            }
            let failed = |error| (first, error);
            self.0.send(&bytes, 0).map_err(failed)?;
            self.await_answer(last as u32, &is_fine)?;
        }
        Ok(())
    }

    /// Reads up to the answer to the request of this number.
    fn await_answer(
        &mut self,
        last: u32,
        is_fine: impl Fn(&io::Error) -> bool,
    ) -> Result<(), (usize, io::Error)> {
        let mut refused = None;
        loop {
            let failed = |error| (last as usize, error);
            let (datagram, _) = self.0.recv_from_full().map_err(failed)?;
            for message in messages(&datagram) {
                let message = message.map_err(failed)?;
                let NetlinkPayload::Error(answer) = message.payload else {
                    continue;
                };
                let number = message.header.sequence_number;
                let error = answer.code.is_some().then(|| answer.to_io());
                if let Some(error) = error.filter(|error| !is_fine(error)) {
                    refused = refused.or(Some((number as usize, error)));
                }
                if number == last {
                    return refused.map_or(Ok(()), Err);
                }
            }
        }
    }

    fn send(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let mut bytes = Vec::new();
        append(&mut bytes, request, 0, flags);
        self.0.send(&bytes, 0)?;
        Ok(())
    }

    /// All answers up to the end of a dump or the acknowledgement.
    fn answers(&mut self) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.0.recv_from_full()?;
            for message in messages(&datagram) {
                match message?.payload {
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(answers),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    _ => {}
                }
            }
        }
    }
}

/// Bytes of a datagram of many requests at most.
const DATAGRAM: usize = 32 << 10;

/// Appends a request of this number to a datagram.
fn append(datagram: &mut Vec<u8>, request: RouteNetlinkMessage, number: u32, flags: u16) {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = number;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
    message.finalize();
    let start = datagram.len();
    // Each message begins at a multiple of four bytes.
    datagram.resize((start + message.buffer_len()).next_multiple_of(4), 0);
    message.serialize(&mut datagram[start..]);
}

/// The messages of one datagram.
pub(crate) fn messages(
    mut datagram: &[u8],
) -> impl Iterator<Item = io::Result<NetlinkMessage<RouteNetlinkMessage>>> {
    std::iter::from_fn(move || {
        if datagram.is_empty() {
            return None;
        }
        let message = NetlinkMessage::deserialize(datagram).map_err(io::Error::other);
        // Each message begins at a multiple of four bytes; behind an unreadable one nothing is.
        let length = message.as_ref().map_or(datagram.len(), |message| {
            (message.header.length as usize).next_multiple_of(4)
        });
        datagram = datagram.get(length..).unwrap_or_default();
        Some(message)
    })
}

/// All links, without their statistics.
pub(crate) fn links() -> Result<Vec<LinkMessage>, KernelError> {
    let mut request = LinkMessage::default();
    let slim = LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]);
    request.attributes.push(slim);
    let answers = dump(RouteNetlinkMessage::GetLink(request))
        .asked(|| "reading the interfaces by netlink".to_owned())?;
    let link = |answer| match answer {
        RouteNetlinkMessage::NewLink(link) => Some(link),
        _ => None,
    };
    Ok(answers.into_iter().filter_map(link).collect())
}

/// XDP programs on the interfaces of this network namespace: ids and modes.
pub(crate) fn xdp_programs() -> Result<BTreeMap<Ifindex, Vec<(u32, AttachedMode)>>, KernelError> {
    let mut found = BTreeMap::new();
    for link in links()? {
        let programs: Vec<_> = link
            .attributes
            .iter()
            .filter_map(|attribute| match attribute {
                LinkAttribute::Xdp(xdp) => Some(xdp),
                _ => None,
            })
            .flatten()
            .filter_map(|xdp| match xdp {
                LinkXdp::DrvProgId(id) | LinkXdp::HwProgId(id) => Some((*id, AttachedMode::Native)),
                LinkXdp::SkbProgId(id) => Some((*id, AttachedMode::Generic)),
                _ => None,
            })
            .collect();
        if !programs.is_empty() {
            found.insert(Ifindex(link.header.index), programs);
        }
    }
    Ok(found)
}
