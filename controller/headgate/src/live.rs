//! What one instance is at this moment: the kernel's word, and the agent's report beside it.

use std::{collections::BTreeMap, time::Duration};

use headgate_agent::{
    lock,
    report::Report,
    store::{self, StoreError},
};
use headgate_datapath::{
    kernel::{Kernel as _, KernelError},
    observed::Observed,
    state::Ifindex,
};
use headgate_kernel::{RunningKernel, interfaces};

use crate::{arguments::InstanceArguments, outcome::CliError};

/// How often and how far apart a reading is repeated that caught an agent at its work.
const READINGS: u32 = 5;
const BETWEEN_READINGS: Duration = Duration::from_millis(50);

/// One reading of an instance.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    /// Process id of the agent that runs, if one does.
    pub(crate) agent: Option<String>,
    /// What the agent said last.
    pub(crate) report: Option<Report>,
    /// Why the report cannot be read although it is there.
    pub(crate) report_damaged: Option<String>,
    /// What the kernel holds.
    pub(crate) observed: Observed,
    /// The node's interfaces by number.
    pub(crate) interfaces: BTreeMap<Ifindex, String>,
}

/// A reading, and the kernel for further questions.
pub(crate) struct Live {
    pub(crate) reading: Reading,
    pub(crate) kernel: RunningKernel,
}

impl Live {
    /// Reads the instance; once more where the agent changed something in between.
    pub(crate) fn read(place: &InstanceArguments) -> Result<Self, CliError> {
        let mut kernel = RunningKernel::open_read_only(&place.kernel_instance(), &place.bpffs)?;
        let mut reading = Reading::take(place, &mut kernel);
        for _ in 1..READINGS {
            let is_whole = match &reading {
                Ok(reading) => !reading.is_amid_a_change(),
                Err(error) => !is_of_something_gone(error),
            };
            if is_whole {
                break;
            }
            std::thread::sleep(BETWEEN_READINGS);
            reading = Reading::take(place, &mut kernel);
        }
        Ok(Self {
            reading: reading?,
            kernel,
        })
    }
}

impl Reading {
    fn take(place: &InstanceArguments, kernel: &mut RunningKernel) -> Result<Self, CliError> {
        let folder = place.folder();
        let (report, report_damaged) = match store::report(&folder) {
            Ok(report) => (report, None),
            Err(error @ StoreError::Damaged { .. }) => (None, Some(error.to_string())),
            Err(error) => return Err(error.into()),
        };
        Ok(Self {
            agent: lock::holder(&folder),
            report,
            report_damaged,
            observed: kernel.observe()?,
            interfaces: interface_names()?,
        })
    }

    /// Whether the agent's report and the kernel may be of two different moments.
    fn is_amid_a_change(&self) -> bool {
        let wanted = self
            .report
            .as_ref()
            .and_then(|report| report.wanted_revision);
        self.agent.is_some() && wanted != Some(self.observed.revision())
    }

    /// The report, for commands that have nothing to say without one.
    pub(crate) fn report(&self, place: &InstanceArguments) -> Result<&Report, CliError> {
        self.report.as_ref().ok_or_else(|| CliError::NoReport {
            instance: place.state.instance.clone(),
            folder: place.folder(),
        })
    }
}

/// Whether a reading failed on what was there a moment ago: the agent takes old tables away.
fn is_of_something_gone(error: &CliError) -> bool {
    matches!(
        error,
        CliError::Kernel(KernelError::Call { source, .. })
            if source.kind() == std::io::ErrorKind::NotFound
    )
}

/// Names of this node's interfaces.
pub(crate) fn interface_names() -> Result<BTreeMap<Ifindex, String>, KernelError> {
    let interfaces = interfaces::interfaces()?.into_iter();
    Ok(interfaces
        .map(|interface| (interface.ifindex, interface.name))
        .collect())
}
