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

    fn send(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
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
