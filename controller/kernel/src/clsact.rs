//! Classifiers of clsact, by netlink: where kernels without TCX have programs at an interface. A filter outlives whoever
//! made it, and goes with its interface.

use std::io;

use headgate_datapath::{kernel::KernelError, state::Ifindex};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
};

use crate::{
    bpf::{Program, raw},
    error::{Asked, absent, unusable},
    netlink::{Conversation, dump},
    pins::Side,
};

/// Name of the queueing discipline that only holds filters.
const QDISC: &str = "clsact";

/// Ours come before all others.
const PRIORITY: u16 = 1;

/// The number of ours among those of one priority: "hg".
const HANDLE: u32 = 0x6867;

/// `ETH_P_ALL` (include/uapi/linux/if_ether.h).
const EVERY_PROTOCOL: u16 = 3;

/// Puts `program` in our place at a side of an interface, also of one that is there: packets meet the former or this
/// one. `name` is what `tc` shows.
///
/// # Errors
/// Also where our place is taken by a program whose name `is_ours` does not take.
pub(crate) fn set(
    program: &Program,
    (interface, ifindex, side): (&str, Ifindex, Side),
    name: &str,
    is_ours: impl Fn(&str) -> bool,
) -> Result<(), KernelError> {
    let asked = || format!("attaching {name} to {interface} by clsact");
    if let Some(id) = program_id(ifindex, side).asked(asked)? {
        let found = Program::by_id(id).and_then(|program| program.name());
        let found = found.asked(asked)?;
        if !is_ours(&found) {
            let by = format!("the program {found:?} (id {id})");
            return Err(taken(interface, side, &by));
        }
    }
    let mut conversation = Conversation::open().asked(asked)?;
    prepare(&mut conversation, ifindex)?;
    let mut message = ours(ifindex, side);
    let options = [
        TcFilterBpfOption::ProgFd(raw(program)),
        TcFilterBpfOption::ProgName(name.to_owned()),
        // What the program returns is what becomes of the packet.
        TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
    ];
    let options = options.map(TcOption::Bpf).to_vec();
    message.attributes.push(TcAttribute::Options(options));
    let request = RouteNetlinkMessage::NewTrafficFilter(message);
    match conversation.ask(request, NLM_F_CREATE) {
        Ok(_) => match first_program_id(ifindex, side).asked(asked)? {
            Some(_) => Ok(()),
            None => Err(taken(interface, side, "another filter before ours")),
        },
        Err(error) if absent(&error) => Err(lacking("CONFIG_NET_CLS_BPF, module cls_bpf")),
        // Filters of one priority are of one kind and protocol.
        Err(error)
            if error.raw_os_error() == Some(libc::EINVAL) && is_priority_taken(ifindex, side) =>
        {
            Err(taken(interface, side, "another filter"))
        }
        Err(error) => Err(error).asked(asked),
    }
}

/// Takes what is in our place off.
pub(crate) fn remove(ifindex: Ifindex, side: Side) -> io::Result<()> {
    let request = RouteNetlinkMessage::DelTrafficFilter(ours(ifindex, side));
    match Conversation::open()?.ask(request, 0) {
        Err(error) if !is_nothing(&error) => Err(error),
        _ => Ok(()),
    }
}

/// The program in our place, where packets meet it before those of all other filters: what comes first may let them
/// pass. Filters of others that cannot be read are not looked at.
pub(crate) fn first_program_id(ifindex: Ifindex, side: Side) -> io::Result<Option<u32>> {
    let Some(id) = program_id(ifindex, side)? else {
        return Ok(None);
    };
    let Ok(filters) = filters(ifindex, side) else {
        return Ok(Some(id));
    };
    // In the order in which packets meet them, each kind's beginning apart, which has no handle.
    let mut filters = filters
        .iter()
        .filter(|filter| filter.header.handle != 0.into());
    let is_first = filters
        .next()
        .is_some_and(|first| program_of(first) == Some(id));
    Ok(is_first.then_some(id))
}

/// The program in our place.
pub(crate) fn program_id(ifindex: Ifindex, side: Side) -> io::Result<Option<u32>> {
    let request = RouteNetlinkMessage::GetTrafficFilter(ours(ifindex, side));
    match Conversation::open()?.ask(request, 0) {
        Ok(Some(RouteNetlinkMessage::NewTrafficFilter(filter))) => Ok(direct(&filter)),
        Ok(_) => Ok(None),
        Err(error) if is_nothing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Programs of all filters at a side of an interface, whosever they are.
pub(crate) fn programs(ifindex: Ifindex, side: Side) -> io::Result<Vec<u32>> {
    let filters = filters(ifindex, side)?;
    Ok(filters.iter().filter_map(program_of).collect())
}

/// Whether there are filters at a side of an interface, of whatever kind.
pub(crate) fn has_filters(ifindex: Ifindex, side: Side) -> io::Result<bool> {
    Ok(!filters(ifindex, side)?.is_empty())
}

fn filters(ifindex: Ifindex, side: Side) -> io::Result<Vec<TcMessage>> {
    let answers = dump(RouteNetlinkMessage::GetTrafficFilter(at(ifindex, side)))?;
    let filter = |answer| match answer {
        RouteNetlinkMessage::NewTrafficFilter(filter) => Some(filter),
        _ => None,
    };
    Ok(answers.into_iter().filter_map(filter).collect())
}

/// What filters hang from, made where it is missing.
fn prepare(conversation: &mut Conversation, ifindex: Ifindex) -> Result<(), KernelError> {
    let mut message = TcMessage::with_index(ifindex.0.cast_signed());
    message.header.parent = TcHandle::CLSACT;
    message.header.handle = TcHandle {
        major: u16::MAX,
        minor: 0,
    };
    message.attributes = vec![TcAttribute::Kind(QDISC.to_owned())];
    let request = RouteNetlinkMessage::NewQueueDiscipline(message);
    match conversation.ask(request, NLM_F_CREATE | NLM_F_EXCL) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        Err(error) if absent(&error) => Err(lacking("CONFIG_NET_SCH_INGRESS, module sch_ingress")),
        answer => answer.map(drop).asked(|| format!("making {QDISC}")),
    }
}

fn at(ifindex: Ifindex, side: Side) -> TcMessage {
    let mut message = TcMessage::with_index(ifindex.0.cast_signed());
    message.header.parent = TcHandle {
        major: u16::MAX,
        minor: match side {
            Side::In => TcHandle::MIN_INGRESS,
            Side::Out => TcHandle::MIN_EGRESS,
        },
    };
    message
}

/// Our place.
fn ours(ifindex: Ifindex, side: Side) -> TcMessage {
    let mut message = at(ifindex, side);
    message.header.handle = HANDLE.into();
    message.header.info = u32::from(PRIORITY) << 16 | u32::from(EVERY_PROTOCOL.to_be());
    message.attributes = vec![TcAttribute::Kind(TcFilterBpf::KIND.to_owned())];
    message
}

/// The program of a filter that does what it returns.
fn direct(filter: &TcMessage) -> Option<u32> {
    let is_direct = options(filter).any(|option| {
        matches!(option, TcFilterBpfOption::Flags(flags) if flags.contains(TcBpfFlags::DirectAction))
    });
    program_of(filter).filter(|_| is_direct)
}

fn program_of(filter: &TcMessage) -> Option<u32> {
    options(filter).find_map(|option| match option {
        TcFilterBpfOption::ProgId(id) => Some(*id),
        _ => None,
    })
}

fn options(filter: &TcMessage) -> impl Iterator<Item = &TcFilterBpfOption> {
    let attributes = filter.attributes.iter();
    let options = attributes.filter_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    options.flatten().filter_map(|option| match option {
        TcOption::Bpf(option) => Some(option),
        _ => None,
    })
}

fn is_priority_taken(ifindex: Ifindex, side: Side) -> bool {
    let is_first = |filter: &TcMessage| filter.header.info >> 16 == u32::from(PRIORITY);
    filters(ifindex, side).is_ok_and(|filters| filters.iter().any(is_first))
}

/// No such filter, nothing that filters could hang from, no such interface, or a kernel without filters.
fn is_nothing(error: &io::Error) -> bool {
    let nothing = [libc::ENOENT, libc::EINVAL, libc::ENODEV, libc::EOPNOTSUPP];
    error
        .raw_os_error()
        .is_some_and(|errno| nothing.contains(&errno))
}

fn taken(interface: &str, side: Side, by: &str) -> KernelError {
    let side = match side {
        Side::In => "ingress",
        Side::Out => "egress",
    };
    unusable(
        format!("the first place at the {side} of {interface} has {by}, which is somebody else's"),
        format!("remove it with `tc filter del dev {interface} {side} pref {PRIORITY}`"),
    )
}

fn lacking(option: &str) -> KernelError {
    unusable(
        format!("the kernel has neither TCX nor clsact with programs ({option})"),
        "load the module, or run a kernel that has it",
    )
}
