//! Names of what events tell by number.

use std::collections::BTreeMap;

use headgate_agent::{
    report::Report,
    store::{self, StoreError},
};
use headgate_compile::compilation::RuleSummary;
use headgate_datapath::{
    kernel::Kernel as _,
    state::{Digest, PortIndex},
    tunnel::DEVICE,
};
use headgate_kernel::{
    RunningKernel,
    monitor::{Event, EventCause},
};

use crate::{arguments::InstanceArguments, live::interface_names, outcome::CliError};

/// The rule of a service that drops what comes from outside of its ranges.
const SOURCE_RANGES: &str = "sourceRanges";

/// The beginning of a digest, as events tell it.
type Tables = [u8; 8];

/// What is known of an instance. Names that were known once stay: events may be older than the
/// latest change.
pub(super) struct Names {
    place: InstanceArguments,
    kernel: RunningKernel,
    report: Option<Report>,
    interfaces: BTreeMap<PortIndex, String>,
    rules: BTreeMap<u32, (String, String)>,
    /// Tables in full, and the latest revision in which this port enforced them.
    enforced: BTreeMap<(PortIndex, Tables), (Digest, Digest)>,
}

impl Names {
    pub(super) fn read(place: &InstanceArguments) -> Result<Self, CliError> {
        let kernel = RunningKernel::open_read_only(&place.kernel_instance(), &place.bpffs)?;
        let mut names = Self {
            place: place.clone(),
            kernel,
            report: None,
            interfaces: BTreeMap::new(),
            rules: BTreeMap::new(),
            enforced: BTreeMap::new(),
        };
        names.refresh()?;
        Ok(names)
    }

    pub(super) fn kernel(&self) -> &RunningKernel {
        &self.kernel
    }

    /// Reads report and kernel once more. Without a report there are numbers in the place of names.
    pub(super) fn refresh(&mut self) -> Result<(), CliError> {
        self.report = match store::report(&self.place.folder()) {
            Ok(report) => report,
            Err(StoreError::Damaged { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let observed = self.kernel.observe()?;
        let interfaces = interface_names()?;
        let revision = observed.revision();
        for (port, link) in &observed.links {
            if let Some(name) = link.ifindex.and_then(|ifindex| interfaces.get(&ifindex)) {
                self.interfaces.insert(*port, name.clone());
            }
            if let Some(tables) = observed.enforced(*port) {
                let key = (*port, prefix(tables));
                self.enforced.insert(key, (tables, revision));
            }
        }
        let report = self.report.iter();
        for policy in report.flat_map(|report| &report.policies) {
            for rule in &policy.rules {
                if let Some(counter) = rule.counter {
                    let name = (policy.name.clone(), rule.name.clone());
                    self.rules.insert(counter, name);
                }
            }
        }
        let report = self.report.iter();
        for service in report.flat_map(|report| &report.services) {
            if let Some(ranges) = &service.source_ranges {
                let name = (service.name.clone(), SOURCE_RANGES.to_owned());
                self.rules.insert(ranges.counter, name);
            }
        }
        Ok(())
    }

    /// Counter of a rule that is in effect.
    pub(super) fn counter(&self, policy: &str, rule: &str) -> Result<u32, CliError> {
        let report = self.report.as_ref().ok_or_else(|| CliError::NoReport {
            instance: self.place.state.instance.clone(),
            folder: self.place.folder(),
        })?;
        let mut services = report.services.iter().filter(|_| rule == SOURCE_RANGES);
        let service = services.find(|found| found.name == policy);
        if let Some(ranges) = service.and_then(|found| found.source_ranges.as_ref()) {
            return Ok(ranges.counter);
        }
        let named = report.policies.iter().find(|found| found.name == policy);
        let Some(found) = named else {
            let names = report.policies.iter().map(|policy| policy.name.clone());
            return Err(CliError::no_policy(policy, &names.collect::<Vec<_>>()));
        };
        let named = found.rules.iter().find(|found| found.name == rule);
        named
            .and_then(|rule| rule.counter)
            .ok_or_else(|| CliError::NoRule {
                name: format!("{policy}/{rule}"),
                known: match in_effect(&found.rules).as_str() {
                    "" => "none of this policy's is".to_owned(),
                    names => format!("those of this policy that are: {names}"),
                },
            })
    }

    /// Whether everything that this event tells by number has a name.
    pub(super) fn know(&self, event: &Event) -> bool {
        let rule = match event.cause {
            EventCause::Rule(counter) => self.rules.contains_key(&counter),
            EventCause::Reason(_) | EventCause::Tunnel(_) => true,
        };
        let Some(port) = event.port else {
            return rule;
        };
        let tables = event.tables.is_none_or(|tables| {
            let key = (port, tables);
            self.enforced.contains_key(&key)
        });
        rule && tables && self.interfaces.contains_key(&port)
    }

    pub(super) fn interface(&self, port: Option<PortIndex>) -> Option<&str> {
        match port {
            None => Some(DEVICE),
            Some(port) => self.interfaces.get(&port).map(String::as_str),
        }
    }

    pub(super) fn rule(&self, counter: u32) -> Option<&(String, String)> {
        self.rules.get(&counter)
    }

    /// Tables in full, and the revision.
    pub(super) fn tables(&self, port: PortIndex, tables: Tables) -> Option<(Digest, Digest)> {
        self.enforced.get(&(port, tables)).copied()
    }
}

fn in_effect(rules: &[RuleSummary]) -> String {
    let named = rules.iter().filter(|rule| rule.counter.is_some());
    let names: Vec<&str> = named.map(|rule| rule.name.as_str()).collect();
    names.join(", ")
}

fn prefix(tables: Digest) -> Tables {
    let mut prefix = Tables::default();
    prefix.copy_from_slice(&tables.bytes()[..8]);
    prefix
}
