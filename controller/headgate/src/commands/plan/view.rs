//! A plan, for people and for programs.

use headgate_compile::{
    Compilation,
    compilation::TablesSummary,
    finding::{Finding, Severity},
};
use headgate_datapath::diff::diff;
use headgate_kernel::object_digest;
use serde::Serialize;

use super::{
    against::Before,
    interfaces::{self, InterfaceChange},
    resources::{self, Change, ResourceChange},
};
use crate::{
    outcome::CliError,
    output::{columns, count, section, size},
};

/// Everything that a plan says.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PlanView {
    /// What it starts from.
    against: String,
    /// Whether a finding is Stalled.
    pub(super) refused: bool,
    /// Whether nothing can go live, so that all that is enforced stays.
    held: bool,
    would_change: bool,
    findings: Vec<Finding>,
    tables: Vec<TablesSummary>,
    /// Absent where nobody knows which resources are in effect.
    resources: Option<Vec<ResourceChange>>,
    interfaces: Vec<InterfaceChange>,
    steps: Vec<String>,
}

impl PlanView {
    pub(super) fn new(before: &Before, compilation: &Compilation) -> Result<Self, CliError> {
        let (interfaces, steps) = match &compilation.state {
            None => (Vec::new(), Vec::new()),
            Some(state) => {
                let plan = diff(&before.observed, state, object_digest())?;
                let steps = plan.steps.iter().map(ToString::to_string).collect();
                (interfaces::changes(before, state), steps)
            }
        };
        let after = &compilation.memory.last_good;
        let resources = before.resources.as_ref();
        let is_stalled = |finding: &Finding| finding.severity == Severity::Stalled;
        Ok(Self {
            against: before.name.clone(),
            refused: compilation.findings.iter().any(is_stalled),
            held: compilation.state.is_none(),
            would_change: !steps.is_empty(),
            findings: compilation.findings.clone(),
            tables: compilation.tables.clone(),
            resources: resources.map(|before| resources::changes(before, after)),
            interfaces,
            steps,
        })
    }
}

pub(super) fn table(plan: &PlanView) -> String {
    let mut text = String::new();
    if !plan.tables.is_empty() {
        text.push_str(&tables_table(&plan.tables));
    }
    let findings = plan.findings.iter().map(ToString::to_string);
    text.push_str(&section("Findings", findings));
    let resources = plan
        .resources
        .iter()
        .flatten()
        .flat_map(|change| lines(change.change, &change.resource, &change.details));
    text.push_str(&section("Resources", resources));
    let interfaces = plan.interfaces.iter();
    let interfaces =
        interfaces.flat_map(|change| lines(change.change, &change.interface, &change.details));
    text.push_str(&section("Interfaces", interfaces));
    let steps = plan.steps.iter().zip(1..);
    let steps = steps.map(|(step, number)| format!("{number:>2}. {step}"));
    text.push_str(&section("Steps", steps));
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(&conclusion(plan));
    text.trim_start_matches('\n').to_owned()
}

/// What changes, and under it how.
fn lines(change: Change, what: &str, details: &[String]) -> Vec<String> {
    let first = format!("{} {what}", change.sign());
    let details = details.iter().map(|detail| format!("    {detail}"));
    std::iter::once(first).chain(details).collect()
}

fn tables_table(tables: &[TablesSummary]) -> String {
    let rows = tables.iter().map(|summary| {
        let [sources, destinations, transports] = summary.classes;
        [
            summary.tables.short(),
            summary.interfaces.join(","),
            summary.policies.join(","),
            summary.rules.to_string(),
            format!("{sources}/{destinations}/{transports}"),
            size(summary.crossings),
            size(summary.bytes.into()),
        ]
    });
    columns(
        [
            "TABLES",
            "INTERFACES",
            "POLICIES",
            "RULES",
            "CLASSES",
            "CROSSINGS",
            "SIZE",
        ],
        rows,
    )
}

fn conclusion(plan: &PlanView) -> String {
    let against = &plan.against;
    if plan.held {
        return format!(
            "Nothing would go live, and all that is enforced stays: see the findings (against {against}).\n"
        );
    }
    let unknown = match plan.resources {
        Some(_) => "",
        None => " The agent's memory is lost, so resources could not be compared.",
    };
    match plan.steps.len() {
        0 => format!("Nothing would change against {against}.{unknown}\n"),
        steps => format!(
            "{} would change {against}.{unknown}\n",
            count(steps, "step")
        ),
    }
}
