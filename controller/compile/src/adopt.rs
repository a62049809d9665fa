//! Which content of each resource stands: the one that was read, or the last good one.

use std::collections::{BTreeMap, BTreeSet};

use headgate_crds::Problem;

use crate::{
    finding::{Finding, FindingReason, Severity},
    memory::{Generation, LastGood, Memory},
    snapshot::{Content, ResourceName, Snapshot, Submitted, Uid},
};

/// One content of a resource.
#[derive(Clone, Debug)]
pub struct Version {
    /// Kind and name.
    pub name: ResourceName,
    /// Number of the content.
    pub generation: u64,
    /// The file or list that it was read from.
    pub list: String,
    /// `file:line`, as far as known.
    pub place: String,
    /// The content.
    pub content: Content,
}

/// A resource with what may stand of it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Number of the content that was read last, good or bad.
    pub generation: u64,
    /// The content that was read, where it is good.
    pub present: Option<Version>,
    /// The last content that was in effect.
    pub last_good: Option<Version>,
}

impl Candidate {
    /// Whether the present content is another than the one in effect. An API counts no generation
    /// for a change of labels, which select groups.
    pub fn is_changed(&self) -> bool {
        let said = |version: &Option<Version>| {
            let version = version.as_ref()?;
            Some((version.generation, version.content.clone()))
        };
        self.present.is_some() && said(&self.present) != said(&self.last_good)
    }
}

/// The outcome.
pub struct Adopted {
    /// Every resource that exists or stays.
    pub candidates: BTreeMap<Uid, Candidate>,
    /// Numbers of the contents that were read.
    pub generations: BTreeMap<Uid, Generation>,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Bad resources and files of which nothing good is known.
    pub unknown: Vec<String>,
}

/// Decides for each resource of `snapshot` what may stand.
pub fn adopt(snapshot: &Snapshot, memory: &Memory) -> Adopted {
    let mut adopted = Adopted {
        candidates: BTreeMap::new(),
        generations: BTreeMap::new(),
        findings: Vec::new(),
        unknown: Vec::new(),
    };
    for submitted in &snapshot.submitted {
        adopted.add(submitted, memory);
    }
    adopted.keep_unreadable(snapshot, memory);
    adopted
}

impl Adopted {
    fn add(&mut self, submitted: &Submitted, memory: &Memory) {
        let uid = &submitted.uid;
        let generation = next_generation(memory.generations.get(uid), submitted);
        let place = place(&submitted.list, submitted.line);
        // Wherever it was good: this is the file that it was last read from.
        let last_good = memory
            .last_good
            .get(uid)
            .map(|good| version_of(good, &submitted.list, &place));
        self.generations.insert(uid.clone(), generation);
        self.warn(submitted);
        let present = match &submitted.content {
            Ok(content) => Some(Version {
                name: submitted.name.clone(),
                generation: generation.number,
                list: submitted.list.clone(),
                place,
                content: content.clone(),
            }),
            Err(problems) => {
                self.refuse(submitted, problems, last_good.as_ref(), memory);
                None
            }
        };
        let duplicate = self.candidates.contains_key(uid);
        // Of two of one name neither is taken; what stays belongs to the file that it was good in.
        let first = self.candidates.get(uid).and_then(|c| c.last_good.as_ref());
        let good = memory.last_good.get(uid);
        let is_there = first
            .zip(good)
            .is_some_and(|(first, good)| first.list == good.list);
        if present.is_none() && is_there {
            return;
        }
        if present.is_some() || last_good.is_some() {
            let candidate = Candidate {
                generation: generation.number,
                present,
                last_good,
            };
            self.candidates.insert(uid.clone(), candidate);
        }
        debug_assert!(
            !duplicate || submitted.content.is_err(),
            "the source refuses two of one name"
        );
    }

    fn warn(&mut self, submitted: &Submitted) {
        for warning in &submitted.warnings {
            self.findings.push(Finding {
                severity: Severity::Warning,
                reason: FindingReason::Suspicious,
                resource: Some(submitted.name.clone()),
                place: place_of(submitted, warning),
                path: warning.path.clone(),
                message: message_of(warning),
            });
        }
    }

    fn refuse(
        &mut self,
        submitted: &Submitted,
        problems: &[Problem],
        last_good: Option<&Version>,
        memory: &Memory,
    ) {
        let outcome = outcome(last_good, memory);
        if last_good.is_none() {
            self.unknown.push(submitted.name.to_string());
        }
        for problem in problems {
            self.findings.push(Finding {
                severity: Severity::Stalled,
                reason: FindingReason::Invalid,
                resource: Some(submitted.name.clone()),
                place: place_of(submitted, problem),
                path: problem.path.clone(),
                message: format!("{}; {outcome}", message_of(problem)),
            });
        }
    }

    /// Resources last read from a file that cannot be read now stay.
    fn keep_unreadable(&mut self, snapshot: &Snapshot, memory: &Memory) {
        for unreadable in &snapshot.unreadable {
            let place = place(&unreadable.list, unreadable.line);
            let mut kept = BTreeSet::new();
            for (uid, good) in &memory.last_good {
                if good.list == unreadable.list && !self.candidates.contains_key(uid) {
                    kept.insert(good.name.to_string());
                    let known = memory.generations.get(uid);
                    self.generations.extend(known.map(|g| (uid.clone(), *g)));
                    let candidate = Candidate {
                        generation: known.map_or(good.generation, |known| known.number),
                        present: None,
                        last_good: Some(version_of(good, &good.list, &place)),
                    };
                    self.candidates.insert(uid.clone(), candidate);
                }
            }
            let outcome = if kept.is_empty() {
                self.unknown.push(place.clone());
                "nothing was read from it before".to_owned()
            } else {
                let kept: Vec<_> = kept.into_iter().collect();
                format!(
                    "what was last read from it stays in effect: {}",
                    kept.join(", ")
                )
            };
            self.findings.push(Finding {
                severity: Severity::Stalled,
                reason: FindingReason::Unreadable,
                resource: None,
                place,
                path: String::new(),
                message: format!("{}; {outcome}", unreadable.reason),
            });
        }
    }
}

/// What becomes of a resource whose present content does not stand, for people.
pub fn outcome(last_good: Option<&Version>, memory: &Memory) -> String {
    match last_good {
        Some(good) => format!("generation {} stays in effect", good.generation),
        None if memory.lost => "what is enforced stays as it is until then".to_owned(),
        None => "it is left out".to_owned(),
    }
}

/// The API's generation, or without one a kept counter: one up per change of content.
fn next_generation(known: Option<&Generation>, submitted: &Submitted) -> Generation {
    let written = submitted.written;
    if let Some(number) = submitted.generation {
        return Generation { number, written };
    }
    match known {
        Some(known) if known.written == written => *known,
        Some(known) => Generation {
            number: known.number + 1,
            written,
        },
        None => Generation { number: 1, written },
    }
}

fn version_of(good: &LastGood, list: &str, place: &str) -> Version {
    Version {
        name: good.name.clone(),
        generation: good.generation,
        list: list.to_owned(),
        place: place.to_owned(),
        content: good.content.clone(),
    }
}

fn message_of(problem: &Problem) -> String {
    if problem.remedy.is_empty() {
        problem.reason.clone()
    } else {
        format!("{}; {}", problem.reason, problem.remedy)
    }
}

fn place(list: &str, line: Option<u32>) -> String {
    match line {
        Some(line) => format!("{list}:{line}"),
        None => list.to_owned(),
    }
}

/// The field's own line where the source knows it, else the resource's.
fn place_of(submitted: &Submitted, problem: &Problem) -> String {
    place(&submitted.list, problem.line.or(submitted.line))
}
