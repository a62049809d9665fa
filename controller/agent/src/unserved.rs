//! Services that lack something which the kernel refused, while policies go on without it.

use headgate_compile::{
    compilation::ServiceSummary,
    finding::{Finding, FindingReason, Severity},
    snapshot::ResourceName,
};
use headgate_crds::Kind;
use headgate_datapath::{observed::Observed, plan::Step};

/// A step that failed and that services alone need.
pub struct Lack {
    pub step: Step,
    /// Why, for people.
    pub failure: String,
}

/// What to say of the services that need what is lacking.
pub fn findings(
    services: &[ServiceSummary],
    lacks: &[Lack],
    observed: Option<&Observed>,
) -> Vec<Finding> {
    let finding = |service: &ServiceSummary| {
        let lack = lacks.iter().find(|lack| needs(service, &lack.step))?;
        let (severity, consequence) = match observed.is_some_and(|o| has_former(o, &lack.step)) {
            true => (Severity::Pending, "a former program does its work"),
            false => (
                Severity::Stalled,
                "it does not work here until that is mended",
            ),
        };
        Some(Finding {
            severity,
            reason: FindingReason::NotEnforced,
            resource: Some(ResourceName::new(
                Kind::LoadBalancerService,
                service.name.clone(),
            )),
            place: service.place.clone(),
            path: String::new(),
            message: format!("{}; {consequence}", lack.failure),
        })
    };
    services.iter().filter_map(finding).collect()
}

fn needs(service: &ServiceSummary, step: &Step) -> bool {
    let needs = &service.needs;
    match step {
        Step::MakeFlows => needs.flows,
        Step::AttachEgress { ifindex, .. } => needs.egress.contains(ifindex),
        Step::AttachOverlay { ifindex, .. } => needs.overlay.contains(ifindex),
        _ => false,
    }
}

/// Whether a program of ours is where the step was to put one.
fn has_former(observed: &Observed, step: &Step) -> bool {
    match step {
        Step::AttachEgress { port, ifindex, .. } => {
            let former = observed.egress.get(port);
            former.is_some_and(|f| f.ifindex == Some(*ifindex) && f.object.is_some())
        }
        Step::AttachOverlay { ifindex, .. } => {
            let former = observed.overlay.get(ifindex);
            former.is_some_and(|f| f.is_there && f.object.is_some())
        }
        _ => false,
    }
}
