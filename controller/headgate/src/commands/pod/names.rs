//! Whose addresses are whose, as the agent has it from the API.

use std::{collections::BTreeSet, net::IpAddr};

use headgate_agent::{lock, pods};
use headgate_datapath::pods::{self as places, Mapped, Neighbourhood};
use headgate_source::kubernetes::LocalPod;

use crate::arguments::StateArguments;

/// The Pods of this node.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// `None` where they are not known.
    pub(super) pods: Option<Vec<LocalPod>>,
    /// Why they are not known, or may be old.
    pub(super) note: Option<String>,
}

impl Names {
    /// What the agent heard last.
    pub(super) fn read(state: &StateArguments) -> Self {
        let folder = state.folder();
        let unknown = |why: String| Self {
            pods: None,
            note: Some(format!("names of Pods are not known: {why}")),
        };
        let known = match pods::known(&folder) {
            Ok(Some(known)) => known,
            Ok(None) => {
                return unknown(format!(
                    "no agent of instance {:?} that asks a cluster's API has left any in {}",
                    state.instance,
                    folder.display()
                ));
            }
            Err(error) => return unknown(error.to_string()),
        };
        let runs = lock::holder(&folder).is_some();
        let trouble = known
            .trouble
            .or_else(|| (!runs).then(|| "no agent runs that hears of them".to_owned()));
        if known.pods.is_none() {
            return unknown(trouble.unwrap_or_else(|| "the API has not answered yet".to_owned()));
        }
        Self {
            pods: known.pods,
            note: trouble.map(|why| format!("names of Pods may be out of date: {why}")),
        }
    }

    /// Says on standard error what these names are worth.
    pub(super) fn tell(&self) {
        if let Some(note) = &self.note {
            eprintln!("headgate: {note}");
        }
    }
}

/// Whose an address is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    /// This Pod's.
    Pod(LocalPod),
    /// Nobody's of whom the API knows.
    NotInApi,
    /// Names are not known.
    Unknown,
}

/// An address, whose it is, and where; the address is absent where a Pod has none yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) address: Option<IpAddr>,
    pub(super) owner: Owner,
    /// `None` without an address.
    pub(super) mapped: Option<Mapped>,
}

/// All that the kernel shows and all that the API tells, in the order of addresses; Pods that have none come last.
pub(super) fn all(facts: &Neighbourhood, pods: Option<&[LocalPod]>) -> Vec<Row> {
    let mut rows: Vec<Row> = pods
        .into_iter()
        .flatten()
        .flat_map(|p| of(facts, p))
        .collect();
    let told: BTreeSet<IpAddr> = rows.iter().filter_map(|row| row.address).collect();
    let seen = places::pods(facts).into_iter();
    let nameless = seen.filter(|(address, _)| !told.contains(address));
    rows.extend(nameless.map(|(address, mapped)| Row {
        address: Some(address),
        owner: nobody(pods),
        mapped: Some(mapped),
    }));
    rows.sort_by(|one, other| {
        let key = |row: &Row| (row.address.is_none(), row.address);
        (key(one), &one.owner).cmp(&(key(other), &other.owner))
    });
    rows
}

/// One address, whosever it is: a row for each Pod that has it, while one takes it over from another.
pub(super) fn at(facts: &Neighbourhood, pods: Option<&[LocalPod]>, address: IpAddr) -> Vec<Row> {
    let owners = pods.into_iter().flatten();
    let owners = owners.filter(|pod| pod.addresses.contains(&address));
    let mut owners: Vec<Owner> = owners.cloned().map(Owner::Pod).collect();
    if owners.is_empty() {
        owners.push(nobody(pods));
    }
    let row = |owner| Row {
        address: Some(address),
        owner,
        mapped: Some(places::place(facts, address)),
    };
    owners.into_iter().map(row).collect()
}

/// A row for each address of a Pod, or one without.
pub(super) fn of(facts: &Neighbourhood, pod: &LocalPod) -> Vec<Row> {
    let row = |address: Option<IpAddr>| Row {
        address,
        owner: Owner::Pod(pod.clone()),
        mapped: address.map(|address| places::place(facts, address)),
    };
    if pod.addresses.is_empty() {
        return vec![row(None)];
    }
    pod.addresses.iter().copied().map(Some).map(row).collect()
}

fn nobody(pods: Option<&[LocalPod]>) -> Owner {
    match pods {
        Some(_) => Owner::NotInApi,
        None => Owner::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use headgate_datapath::{
        failsafe::Prefix,
        pods::{Link, LinkKind, Unmapped},
        state::Ifindex,
    };

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// Two pods at veths of their own.
    fn facts() -> Neighbourhood {
        let veth = |name: &str| Link {
            name: name.to_owned(),
            kind: LinkKind::Veth {
                peer: Some(Ifindex(2)),
                is_elsewhere: true,
            },
            master: None,
            mtu: 1_500,
        };
        let route = |text: &str, link| {
            let address = address(text);
            (
                Prefix {
                    address,
                    length: 32,
                },
                Ifindex(link),
            )
        };
        Neighbourhood {
            links: [(Ifindex(7), veth("cali7")), (Ifindex(8), veth("cali8"))].into(),
            routes: [route("10.244.1.7", 7), route("10.244.1.8", 8)].into(),
            own: [address("192.0.2.1")].into(),
            ..Neighbourhood::default()
        }
    }

    fn pod(name: &str, addresses: &[&str]) -> LocalPod {
        LocalPod {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            uid: name.to_owned(),
            addresses: addresses.iter().map(|text| address(text)).collect(),
        }
    }

    /// Address, owner, and interface or why there is none.
    fn told(rows: &[Row]) -> Vec<[String; 3]> {
        let told = rows.iter().map(|row| {
            let owner = match &row.owner {
                Owner::Pod(pod) => pod.to_string(),
                other => format!("{other:?}"),
            };
            let place = match &row.mapped {
                Some(Ok(place)) => place.interface.clone(),
                Some(Err(Unmapped::Elsewhere)) => "elsewhere".to_owned(),
                Some(Err(Unmapped::Own)) => "own".to_owned(),
                Some(Err(other)) => other.to_string(),
                None => String::new(),
            };
            let address = row.address.map(|address| address.to_string());
            [address.unwrap_or_default(), owner, place]
        });
        told.collect()
    }

    #[test]
    fn what_the_kernel_shows_and_what_the_api_tells_are_joined() {
        let pods = [
            pod("web-0", &["10.244.1.7", "10.244.1.9"]),
            pod("new", &[]),
            pod("odd", &["192.0.2.1"]),
        ];
        let rows = all(&facts(), Some(&pods));
        let expected = [
            ["10.244.1.7", "shop/web-0", "cali7"],
            ["10.244.1.8", "NotInApi", "cali8"],
            ["10.244.1.9", "shop/web-0", "elsewhere"],
            ["192.0.2.1", "shop/odd", "own"],
            ["", "shop/new", ""],
        ];
        assert_eq!(told(&rows), expected.map(|row| row.map(str::to_owned)));
        let unnamed = told(&all(&facts(), None));
        let expected = [
            ["10.244.1.7", "Unknown", "cali7"],
            ["10.244.1.8", "Unknown", "cali8"],
        ];
        assert_eq!(unnamed, expected.map(|row| row.map(str::to_owned)));
    }

    #[test]
    fn an_address_that_changes_hands_is_both_pods() {
        let pods = [pod("old", &["10.244.1.7"]), pod("new", &["10.244.1.7"])];
        let at = |text| told(&at(&facts(), Some(&pods), address(text)));
        let both = ["shop/old", "shop/new"].map(|name| ["10.244.1.7", name, "cali7"]);
        assert_eq!(at("10.244.1.7"), both.map(|row| row.map(str::to_owned)));
        let none = [["10.244.1.8", "NotInApi", "cali8"]];
        assert_eq!(at("10.244.1.8"), none.map(|row| row.map(str::to_owned)));
    }
}
