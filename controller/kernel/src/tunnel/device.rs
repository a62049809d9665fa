//! The device, by netlink. It is ours by its alias, which names the instance.

use std::io;

use headgate_datapath::{
    kernel::KernelError,
    state::Ifindex,
    tunnel::{DEVICE, MacAddress, TunnelDevice},
};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVxlan, LinkAttribute,
        LinkFlags, LinkInfo, LinkMessage,
    },
};

use crate::{
    error::{Asked, unusable},
    netlink::{Conversation, links},
    pins::Pins,
};

/// A device of our name.
pub(super) struct Found {
    pub(super) ifindex: Ifindex,
    pub(super) device: TunnelDevice,
    pub(super) is_up: bool,
}

/// Our device, if there is one.
pub(super) fn find(pins: &Pins) -> Result<Option<Found>, KernelError> {
    Ok(named()?.as_ref().and_then(|link| ours(pins, link)))
}

/// Our device, which must be there.
pub(super) fn required(pins: &Pins) -> Result<Found, KernelError> {
    let missing = || unusable(format!("{DEVICE} is not there"), "it is made anew");
    find(pins)?.ok_or_else(missing)
}

/// Sets our device up: from here on it takes packets, which its programs judge.
pub(super) fn raise(pins: &Pins) -> Result<(), KernelError> {
    let found = required(pins)?;
    let answer = change(&mut open()?, flagged(found.ifindex, LinkFlags::Up));
    answer.map_err(|error| explain(error, &found.device))
}

/// Sets our device down.
pub(super) fn lower(pins: &Pins) -> Result<(), KernelError> {
    let found = required(pins)?;
    let answer = change(&mut open()?, flagged(found.ifindex, LinkFlags::empty()));
    answer.asked(|| format!("setting {DEVICE} down"))
}

fn flagged(ifindex: Ifindex, up: LinkFlags) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = ifindex.0;
    link.header.flags = up;
    link.header.change_mask = LinkFlags::Up;
    link
}

/// Makes the device, which is down, or changes one of ours and leaves it up or down as it is: without
/// programs it would take packets from anybody.
pub(super) fn make(pins: &Pins, wanted: &TunnelDevice) -> Result<(), KernelError> {
    let mut conversation = open()?;
    let present = named()?;
    let known = present.as_ref().map(|link| (link, ours(pins, link)));
    let ifindex = match known {
        Some((_, Some(found))) if found.device.port == wanted.port => found.ifindex,
        Some((_, Some(found))) => {
            delete(&mut conversation, found.ifindex)?;
            create(&mut conversation, wanted)?
        }
        Some((link, None)) if is_half_made(link) => {
            delete(&mut conversation, Ifindex(link.header.index))?;
            create(&mut conversation, wanted)?
        }
        Some((link, None)) => return Err(foreign(link)),
        None => create(&mut conversation, wanted)?,
    };
    shape(&mut conversation, pins, ifindex, wanted)
}

/// Removes our device; none is no error.
pub(super) fn remove(pins: &Pins) -> Result<(), KernelError> {
    match find(pins)? {
        Some(found) => delete(&mut open()?, found.ifindex),
        None => Ok(()),
    }
}

fn open() -> Result<Conversation, KernelError> {
    Conversation::open().asked(|| "opening netlink".to_owned())
}

fn alias(pins: &Pins) -> String {
    let instance = pins.instance().file_name().unwrap_or_default();
    format!("headgate/{}", instance.to_string_lossy())
}

/// The device of this name, whoever made it.
fn named() -> Result<Option<LinkMessage>, KernelError> {
    let is_named = |link: &LinkMessage| {
        let mut names = link.attributes.iter();
        names.any(|a| matches!(a, LinkAttribute::IfName(name) if name == DEVICE))
    };
    Ok(links()?.into_iter().find(is_named))
}

fn ours(pins: &Pins, link: &LinkMessage) -> Option<Found> {
    (alias_of(link)? == alias(pins)).then_some(())?;
    let (port, is_external) = vxlan(link)?;
    is_external.then_some(())?;
    let mut device = TunnelDevice {
        port,
        mtu: 0,
        mac: MacAddress([0; 6]),
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => device.mtu = *mtu,
            LinkAttribute::Address(bytes) => {
                device.mac = MacAddress(bytes.as_slice().try_into().ok()?);
            }
            _ => {}
        }
    }
    Some(Found {
        ifindex: Ifindex(link.header.index),
        device,
        is_up: link.header.flags.contains(LinkFlags::Up),
    })
}

fn alias_of(link: &LinkMessage) -> Option<&str> {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfAlias(alias) => Some(alias.as_str()),
            _ => None,
        })
}

/// UDP port of a VXLAN device, and whether programs say where its packets go.
pub(super) fn vxlan(link: &LinkMessage) -> Option<(u16, bool)> {
    let infos = link
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => Some(infos),
            _ => None,
        })?;
    let data = infos.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vxlan(data)) => Some(data),
        _ => None,
    })?;
    let port = data.iter().find_map(|info| match info {
        InfoVxlan::Port(port) => Some(*port),
        _ => None,
    })?;
    Some((port, data.contains(&InfoVxlan::CollectMetadata(true))))
}

/// What an agent left that ended before the device had its alias.
fn is_half_made(link: &LinkMessage) -> bool {
    let is_external = vxlan(link).is_some_and(|(_, is_external)| is_external);
    let is_up = link.header.flags.contains(LinkFlags::Up);
    is_external && !is_up && alias_of(link).is_none()
}

fn foreign(link: &LinkMessage) -> KernelError {
    let owner = match alias_of(link) {
        Some(alias) => format!("its alias is {alias:?}"),
        None => "it has no alias".to_owned(),
    };
    unusable(
        format!("there is a device {DEVICE} that is not this instance's ({owner})"),
        format!(
            "remove it with `ip link del {DEVICE}`, or take down the instance that it belongs to"
        ),
    )
}

fn create(conversation: &mut Conversation, wanted: &TunnelDevice) -> Result<Ifindex, KernelError> {
    let mut link = LinkMessage::default();
    let data = vec![
        InfoVxlan::CollectMetadata(true),
        InfoVxlan::Learning(false),
        InfoVxlan::Port(wanted.port),
    ];
    link.attributes = vec![
        LinkAttribute::IfName(DEVICE.to_owned()),
        LinkAttribute::Address(wanted.mac.0.to_vec()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Vxlan),
            LinkInfo::Data(InfoData::Vxlan(data)),
        ]),
    ];
    let request = RouteNetlinkMessage::NewLink(link);
    let answer = conversation.ask(request, NLM_F_CREATE | NLM_F_EXCL);
    answer.map_err(|error| explain(error, wanted))?;
    let made = named()?.map(|link| Ifindex(link.header.index));
    made.ok_or_else(|| unusable(format!("{DEVICE} went away"), "it is made anew"))
}

/// Everything that can be changed while the device is there, and its alias. It has no address of its own:
/// nobody asks for neighbours there.
fn shape(
    conversation: &mut Conversation,
    pins: &Pins,
    ifindex: Ifindex,
    wanted: &TunnelDevice,
) -> Result<(), KernelError> {
    let mut named = LinkMessage::default();
    named.header.index = ifindex.0;
    named.attributes = vec![LinkAttribute::IfAlias(alias(pins))];
    change(conversation, named).map_err(|error| explain(error, wanted))?;
    let mut quiet = LinkMessage::default();
    quiet.header.index = ifindex.0;
    let without_address = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    quiet.attributes = vec![LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(
        vec![without_address],
    )])];
    // Where IPv6 is off there is nothing to turn off.
    drop(change(conversation, quiet));
    let mut link = LinkMessage::default();
    link.header.index = ifindex.0;
    link.attributes = vec![
        LinkAttribute::Address(wanted.mac.0.to_vec()),
        LinkAttribute::Mtu(wanted.mtu),
    ];
    change(conversation, link).map_err(|error| explain(error, wanted))
}

fn change(conversation: &mut Conversation, link: LinkMessage) -> io::Result<()> {
    let request = RouteNetlinkMessage::SetLink(link);
    conversation.ask(request, 0).map(drop)
}

fn explain(error: io::Error, wanted: &TunnelDevice) -> KernelError {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE | libc::EEXIST) => unusable(
            format!(
                "UDP port {} is taken by another device or program",
                wanted.port
            ),
            "remove that, or give all peers another port",
        ),
        Some(libc::EOPNOTSUPP) => unusable(
            "the kernel makes no VXLAN devices",
            "load the module vxlan, or run a kernel that has it (CONFIG_VXLAN)",
        ),
        Some(libc::EPERM) => unusable(
            format!("making {DEVICE} is not permitted"),
            "run as root, or give the service or container CAP_NET_ADMIN",
        ),
        _ => KernelError::Call {
            what: format!("making {DEVICE}"),
            source: error,
        },
    }
}

fn delete(conversation: &mut Conversation, ifindex: Ifindex) -> Result<(), KernelError> {
    let mut link = LinkMessage::default();
    link.header.index = ifindex.0;
    match conversation.ask(RouteNetlinkMessage::DelLink(link), 0) {
        Err(error) if error.raw_os_error() != Some(libc::ENODEV) => {
            Err(error).asked(|| format!("removing {DEVICE}"))
        }
        _ => Ok(()),
    }
}
