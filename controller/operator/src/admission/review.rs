//! From an AdmissionReview to its answer.

use headgate_crds::{Checked, GROUP, Kind, Problem, check};
use headgate_source::kubernetes::as_written;
use kube::core::{
    DynamicObject, Status,
    response::{StatusCause, StatusDetails, StatusSummary},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{fleet_index::FleetIndex, warnings};

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// Why a request gets no answer to a review. Outcome: 400 with these words.
#[derive(Debug, thiserror::Error)]
pub enum NoReview {
    /// Not JSON, or not in the form of a review.
    #[error("the body is no AdmissionReview: {0}; this address is for the API server alone")]
    Unreadable(#[from] serde_json::Error),
    /// Something else, or another version.
    #[error("the body is a {kind:?} of {api_version:?}; send an {KIND} of {API_VERSION}")]
    Other {
        /// What it calls itself.
        kind: String,
        /// Of which API.
        api_version: String,
    },
    /// Nothing is asked.
    #[error("the {KIND} has no request; send one")]
    NoRequest,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    request: Option<Request>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    uid: String,
    #[serde(default)]
    kind: OfKind,
    #[serde(default)]
    sub_resource: Option<String>,
    #[serde(default)]
    operation: String,
    #[serde(default)]
    object: Value,
    #[serde(default)]
    old_object: Value,
}

#[derive(Deserialize, Default)]
struct OfKind {
    #[serde(default)]
    group: String,
    #[serde(default)]
    kind: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answered {
    api_version: &'static str,
    kind: &'static str,
    response: Response,
}

#[derive(Serialize)]
struct Response {
    uid: String,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// Answers a review: the body of the answer.
///
/// # Errors
/// The body is no review.
pub fn review(body: &[u8], known: &FleetIndex) -> Result<Vec<u8>, NoReview> {
    let asked: Asked = serde_json::from_slice(body)?;
    if asked.api_version != API_VERSION || asked.kind != KIND {
        return Err(NoReview::Other {
            kind: asked.kind,
            api_version: asked.api_version,
        });
    }
    let request = asked.request.ok_or(NoReview::NoRequest)?;
    let uid = request.uid.clone();
    let response = match judge(request) {
        Judgement::NotConcerned => Response {
            uid,
            allowed: true,
            status: None,
            warnings: Vec::new(),
        },
        Judgement::Accepted(checked) => Response {
            uid,
            allowed: true,
            status: None,
            warnings: warnings::of(&checked, known),
        },
        Judgement::Refused(refusal) => Response {
            uid,
            allowed: false,
            status: Some(refusal.status()),
            warnings: Vec::new(),
        },
    };
    let answered = Answered {
        api_version: API_VERSION,
        kind: KIND,
        response,
    };
    Ok(serde_json::to_vec(&answered).expect("an answer is plain data"))
}

enum Judgement {
    /// Always let through: another kind, a deletion, an object on its way out, its status, or a spec
    /// that stays as it is, whatever it says. What is stored already must not stand in the way of a
    /// finalizer or a label.
    NotConcerned,
    Accepted(Box<Checked>),
    Refused(Refusal),
}

fn judge(request: Request) -> Judgement {
    let kind = Kind::from_name(&request.kind.kind).filter(|_| request.kind.group == GROUP);
    let Some(kind) = kind else {
        return Judgement::NotConcerned;
    };
    let is_write = matches!(request.operation.as_str(), "CREATE" | "UPDATE");
    let is_whole = request.sub_resource.unwrap_or_default().is_empty();
    let (object, old) = (request.object, request.old_object);
    let is_leaving = !object["metadata"]["deletionTimestamp"].is_null();
    let is_unchanged = old.is_object() && old.get("spec") == object.get("spec");
    if !is_write || !is_whole || is_leaving || is_unchanged {
        return Judgement::NotConcerned;
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let name = name.to_owned();
    let checked = match serde_json::from_value::<DynamicObject>(object) {
        Ok(object) => check(&as_written(kind, object)),
        Err(error) => Err(vec![Problem {
            path: "metadata".to_owned(),
            reason: error.to_string(),
            remedy: "write the fields of Kubernetes' ObjectMeta in their types".to_owned(),
            line: None,
        }]),
    };
    match checked {
        Ok(checked) => Judgement::Accepted(Box::new(checked)),
        Err(problems) => Judgement::Refused(Refusal {
            kind,
            name,
            problems,
        }),
    }
}

struct Refusal {
    kind: Kind,
    name: String,
    problems: Vec<Problem>,
}

impl Refusal {
    /// As the API server itself refuses what the schema does not allow.
    fn status(&self) -> Status {
        let causes = self.problems.iter().map(|problem| StatusCause {
            reason: "FieldValueInvalid".to_owned(),
            message: without_path(problem).to_string(),
            field: match problem.path.as_str() {
                "" => "spec".to_owned(),
                path => path.to_owned(),
            },
        });
        let details = StatusDetails {
            name: self.name.clone(),
            group: GROUP.to_owned(),
            kind: self.kind.to_string(),
            uid: String::new(),
            causes: causes.collect(),
            retry_after_seconds: 0,
        };
        Status {
            status: Some(StatusSummary::Failure),
            code: 422,
            message: self.message(),
            metadata: None,
            reason: "Invalid".to_owned(),
            details: Some(details),
        }
    }

    fn message(&self) -> String {
        match self.problems.as_slice() {
            [problem] => problem.to_string(),
            problems => {
                let lines = problems.iter().map(|problem| format!("\n* {problem}"));
                format!("{} problems:{}", problems.len(), lines.collect::<String>())
            }
        }
    }
}

fn without_path(problem: &Problem) -> Problem {
    Problem {
        path: String::new(),
        ..problem.clone()
    }
}
