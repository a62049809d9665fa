//! Whether each interface enforces what it should, by what is observed now.

use std::collections::BTreeMap;

use headgate_agent::report::{PortReport, PortStatus, Report};
use headgate_datapath::{
    observed::Attached,
    state::{AttachedMode, Digest, Ifindex, PortIndex},
};
use serde::Serialize;

use crate::live::Reading;

/// A link tells whether it is attached only where its interface can be seen.
const DANGLING: &str = "our link is on no interface of this network namespace: it was detached by somebody else, or belongs to another namespace";

/// How an interface stands, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) enum State {
    /// What is wanted.
    Enforced,
    /// Something, and nobody left a word of what is wanted.
    Unknown,
    /// Something else than is wanted.
    Outdated,
    /// Nothing.
    NotEnforced,
}

/// One interface that has a program of ours, or should have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Enforcement {
    pub(crate) interface: String,
    pub(crate) port: PortIndex,
    /// Absent where the program is on no interface.
    pub(crate) ifindex: Option<Ifindex>,
    /// How the program is attached; absent where it is not.
    pub(crate) mode: Option<AttachedMode>,
    /// Why not natively, where policies leave the choice.
    pub(crate) native_refusal: Option<String>,
    pub(crate) wanted_tables: Option<Digest>,
    pub(crate) live_tables: Option<Digest>,
    pub(crate) state: State,
    /// Why the state is not Enforced.
    pub(crate) reason: Option<String>,
}

/// All interfaces, by port.
pub(crate) fn of(reading: &Reading) -> Vec<Enforcement> {
    let reported = reading.report.as_ref().map(|report| &report.ports);
    let wanted = reported.into_iter().flatten();
    let mut all: BTreeMap<PortIndex, Enforcement> = wanted
        .map(|(port, report)| (*port, of_wanted(*port, report, reading)))
        .collect();
    for (port, link) in &reading.observed.links {
        all.entry(*port)
            .or_insert_with(|| of_unwanted(*port, link, reading));
    }
    all.into_values().collect()
}

fn of_wanted(port: PortIndex, report: &PortReport, reading: &Reading) -> Enforcement {
    let link = reading.observed.links.get(&port);
    let attached = link.filter(|link| link.ifindex == Some(Ifindex(report.ifindex)));
    let (state, reason) = match attached {
        Some(link) => judge(port, report, link, reading),
        None => (State::NotEnforced, Some(absence(report, link, reading))),
    };
    Enforcement {
        interface: report.interface.clone(),
        port,
        ifindex: link.and_then(|link| link.ifindex),
        mode: attached.map(|link| link.mode),
        native_refusal: report
            .native_refusal
            .clone()
            .filter(|_| attached.is_some_and(|link| link.mode == AttachedMode::Generic)),
        wanted_tables: Some(report.tables),
        live_tables: reading.observed.enforced(port),
        state,
        reason,
    }
}

/// What an attached program enforces. The agent's reason is told where it still holds: it knows
/// what it tried.
fn judge(
    port: PortIndex,
    report: &PortReport,
    link: &Attached,
    reading: &Reading,
) -> (State, Option<String>) {
    let outdated = |own: &str| {
        let reason = match &report.status {
            PortStatus::Outdated(reason) => reason.clone(),
            _ => own.to_owned(),
        };
        (State::Outdated, Some(reason))
    };
    match reading.observed.enforced(port) {
        None => {
            let reason = "there are no tables in the active slot, so every packet passes";
            (State::NotEnforced, Some(reason.to_owned()))
        }
        Some(_) if link.object.is_none() => {
            outdated("the attached program is not the one that the agent pinned")
        }
        Some(live) if live != report.tables => {
            outdated("other tables than the wanted ones are live")
        }
        Some(_) => match &report.status {
            // The tables are right, but not all that was asked for is so: the mode, say.
            PortStatus::Outdated(reason) => (State::Outdated, Some(reason.clone())),
            _ => (State::Enforced, None),
        },
    }
}

/// Why nothing of ours is where it should be.
fn absence(report: &PortReport, link: Option<&Attached>, reading: &Reading) -> String {
    let (name, ifindex) = (&report.interface, Ifindex(report.ifindex));
    let now = reading.interfaces.iter().find(|(_, now)| *now == name);
    match (now, &report.status) {
        (None, _) if !reading.interfaces.contains_key(&ifindex) => {
            "there is no such interface in this network namespace; the agent attaches as soon as it is back".to_owned()
        }
        (Some((now, _)), _) if *now != ifindex => {
            "the interface was made anew, and the agent has not attached to it yet".to_owned()
        }
        (_, PortStatus::NotEnforced(reason)) => reason.clone(),
        _ if link.is_some() => DANGLING.to_owned(),
        _ => "no program of ours is attached".to_owned(),
    }
}

/// A program that the report does not speak of.
fn of_unwanted(port: PortIndex, link: &Attached, reading: &Reading) -> Enforcement {
    let interface = match link.ifindex {
        None => port.to_string(),
        Some(ifindex) => match reading.interfaces.get(&ifindex) {
            Some(name) => name.clone(),
            None => format!("#{}", ifindex.0),
        },
    };
    let live = reading.observed.enforced(port);
    let is_known = |report: &Report| report.wanted_revision.is_some();
    let (state, reason) = if link.ifindex.is_none() {
        (State::NotEnforced, DANGLING)
    } else if live.is_none() {
        (
            State::NotEnforced,
            "a program is left here that finds no tables, so every packet passes",
        )
    } else if reading.report.as_ref().is_some_and(is_known) {
        (
            State::Outdated,
            "no policy selects it any more, and the agent has not detached it",
        )
    } else {
        (
            State::Unknown,
            "what is wanted here is not known: the agent has not said",
        )
    };
    Enforcement {
        interface,
        port,
        ifindex: link.ifindex,
        mode: link.ifindex.map(|_| link.mode),
        native_refusal: None,
        wanted_tables: None,
        live_tables: live,
        state,
        reason: Some(reason.to_owned()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use headgate_datapath::{observed::Slot, state::Capacity};

    use super::*;

    const CAPACITY: Capacity = Capacity(1 << 16);

    fn tables(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    fn port(number: u32) -> PortIndex {
        PortIndex::new(number).expect("below MAX_PORTS")
    }

    /// A node with eth0 (ifindex 2), which enforces tables "a" as is wanted.
    pub(crate) fn healthy() -> Reading {
        let mut reading = Reading {
            agent: Some("4711".into()),
            interfaces: BTreeMap::from([(Ifindex(2), "eth0".into())]),
            ..Reading::default()
        };
        let report = PortReport {
            interface: "eth0".into(),
            ifindex: 2,
            mode: Some(AttachedMode::Native),
            native_refusal: None,
            tables: tables("a"),
            status: PortStatus::Enforced,
        };
        let link = Attached {
            ifindex: Some(Ifindex(2)),
            mode: AttachedMode::Native,
            object: Some(tables("object")),
            capacity: CAPACITY,
            link_id: 1,
            program_id: 1,
        };
        reading.observed.prepared = true;
        reading.observed.links.insert(port(0), link);
        let slots = BTreeMap::from([((Slot(0), port(0)), tables("a"))]);
        reading.observed.slots.insert(CAPACITY, slots);
        reading.report = Some(Report {
            wanted_revision: Some(reading.observed.revision()),
            ports: BTreeMap::from([(port(0), report)]),
            ..Report::default()
        });
        reading
    }

    fn reported(reading: &mut Reading) -> &mut PortReport {
        let report = reading.report.as_mut().expect("there is a report");
        report.ports.get_mut(&port(0)).expect("eth0 is in it")
    }

    fn link(reading: &mut Reading) -> &mut Attached {
        let links = &mut reading.observed.links;
        links.get_mut(&port(0)).expect("eth0 has a link")
    }

    /// State and reason of the only interface.
    fn only(reading: &Reading) -> (State, String) {
        let [enforcement] = of(reading).try_into().expect("one interface");
        (enforcement.state, enforcement.reason.unwrap_or_default())
    }

    #[test]
    fn what_is_wanted_and_observed_is_enforced() {
        assert_eq!(only(&healthy()), (State::Enforced, String::new()));
    }

    #[test]
    fn the_kernel_is_believed_and_not_the_report() {
        let mut reading = healthy();
        link(&mut reading).ifindex = None;
        let (state, reason) = only(&reading);
        assert_eq!(state, State::NotEnforced);
        assert_eq!(reason, DANGLING);

        let mut reading = healthy();
        reported(&mut reading).status = PortStatus::NotEnforced("could not attach".into());
        assert_eq!(only(&reading).0, State::Enforced);
    }

    #[test]
    fn other_tables_are_outdated() {
        let mut reading = healthy();
        reported(&mut reading).tables = tables("b");
        let own = "other tables than the wanted ones are live".to_owned();
        assert_eq!(only(&reading), (State::Outdated, own));

        let reason = "building tables: out of memory".to_owned();
        reported(&mut reading).status = PortStatus::Outdated(reason.clone());
        assert_eq!(only(&reading), (State::Outdated, reason));
    }

    #[test]
    fn a_program_of_somebody_else_behind_our_link_is_outdated() {
        let mut reading = healthy();
        link(&mut reading).object = None;
        assert_eq!(only(&reading).0, State::Outdated);
    }

    #[test]
    fn an_attached_program_without_tables_enforces_nothing() {
        let mut reading = healthy();
        reading.observed.slots.clear();
        assert_eq!(only(&reading).0, State::NotEnforced);
    }

    #[test]
    fn the_agent_knows_why_it_could_not_attach() {
        let mut reading = healthy();
        reading.observed.links.clear();
        reported(&mut reading).status = PortStatus::NotEnforced("somebody else's program".into());
        let reason = "somebody else's program".to_owned();
        assert_eq!(only(&reading), (State::NotEnforced, reason));
    }

    #[test]
    fn an_interface_that_is_gone_or_new_is_said_to_be_so() {
        let mut gone = healthy();
        gone.observed.links.clear();
        gone.interfaces.clear();
        assert!(
            only(&gone).1.contains("no such interface"),
            "{:?}",
            only(&gone)
        );

        let mut anew = healthy();
        anew.observed.links.clear();
        anew.interfaces = BTreeMap::from([(Ifindex(9), "eth0".into())]);
        assert!(only(&anew).1.contains("made anew"), "{:?}", only(&anew));
    }

    #[test]
    fn with_the_state_folder_lost_the_pins_still_tell_what_is_live() {
        let mut reading = healthy();
        reading.report = None;
        let [enforcement] = of(&reading).try_into().expect("one interface");
        assert_eq!(enforcement.state, State::Unknown);
        assert_eq!(enforcement.interface, "eth0");
        assert_eq!(enforcement.live_tables, Some(tables("a")));
    }

    #[test]
    fn a_program_that_no_policy_wants_is_outdated() {
        let mut reading = healthy();
        reading.report.as_mut().expect("a report").ports.clear();
        assert_eq!(only(&reading).0, State::Outdated);
    }
}
