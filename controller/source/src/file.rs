//! The documents of one file.

use std::{fs::File, io::Read as _, path::Path, sync::Arc};

use headgate_crds::{GROUP, Kind, Problem, Resource, check};
use serde_json::{Value, json};

use crate::{
    document::{Document, Origin, UnreadableFile, Warning},
    scan::Stamp,
    yaml::{self, Lines, Located, YamlError},
};

/// Larger files are not taken for resources; a CidrGroup of 5,000 has 0.3 MiB.
const LARGEST_FILE: usize = 16 << 20;

/// What a file holds.
#[derive(Debug)]
pub(crate) struct Contents<T> {
    pub(crate) documents: Vec<Arc<Document<T>>>,
    pub(crate) warnings: Vec<Warning>,
    has_lists: bool,
}

/// Reads the file at `path`, which is known as `file`; with the stamp of what was opened.
pub(crate) fn read_bytes(path: &Path, file: &str) -> Result<(Vec<u8>, Stamp), UnreadableFile> {
    let whole = |reason: String| unreadable(file, None, reason);
    let failed = |error| whole(format!("cannot be read: {error}"));
    let mut opened = File::open(path).map_err(failed)?;
    let metadata = opened.metadata().map_err(failed)?;
    if metadata.len() > LARGEST_FILE as u64 {
        let reason = format!(
            "has {} bytes, at most {LARGEST_FILE} are read; split it",
            metadata.len()
        );
        return Err(whole(reason));
    }
    let mut bytes = Vec::new();
    opened.read_to_end(&mut bytes).map_err(failed)?;
    if bytes.is_empty() {
        // Saving in place empties a file first; to take that for "no resources" would
        // open a gap in what is enforced.
        let reason = "is empty; delete the file, or leave a comment in it".into();
        return Err(whole(reason));
    }
    Ok((bytes, Stamp::from(&metadata)))
}

fn unreadable(file: &str, line: Option<u32>, reason: impl Into<String>) -> UnreadableFile {
    UnreadableFile {
        file: file.into(),
        line,
        reason: reason.into(),
    }
}

/// Parses and checks the documents in `bytes`.
pub(crate) fn parse<T>(
    file: &str,
    bytes: &[u8],
    convert: &dyn Fn(Resource) -> T,
) -> Result<Contents<T>, UnreadableFile> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let valid = &bytes[..error.valid_up_to()];
        let line = 1 + valid.iter().filter(|b| **b == b'\n').count();
        let line = u32::try_from(line).ok();
        unreadable(file, line, "is not UTF-8; save it in that encoding")
    })?;
    let well_formed = |documents: Result<Vec<Located>, YamlError>| {
        documents.map_err(|error| {
            let reason = format!("is not well-formed: {error}");
            unreadable(file, error.line, reason)
        })
    };
    let parser = Parser { file, convert };
    match parser.documents(&well_formed(yaml::parse(text))?) {
        Ok(contents) if contents.is_clean() => Ok(contents),
        _ => parser.documents(&well_formed(yaml::parse_with_lines(text))?),
    }
}

impl<T> Contents<T> {
    /// Whether no line matters but those of the documents.
    fn is_clean(&self) -> bool {
        !self.has_lists
            && self
                .documents
                .iter()
                .all(|document| document.content.is_ok() && document.warnings.is_empty())
    }
}

struct Parser<'a, T> {
    file: &'a str,
    convert: &'a dyn Fn(Resource) -> T,
}

impl<T> Parser<'_, T> {
    fn documents(&self, documents: &[Located]) -> Result<Contents<T>, UnreadableFile> {
        let mut contents = Contents {
            documents: Vec::new(),
            warnings: Vec::new(),
            has_lists: false,
        };
        for Located { value, lines } in documents {
            self.object(value, lines, &mut contents)?;
        }
        Ok(contents)
    }

    fn object(
        &self,
        value: &Value,
        lines: &Lines,
        contents: &mut Contents<T>,
    ) -> Result<(), UnreadableFile> {
        let at = |reason: &str| unreadable(self.file, Some(lines.line), reason);
        if !value.is_object() {
            return Err(at(
                "is no object; write apiVersion, kind, metadata and spec",
            ));
        }
        let (Some(version), Some(kind)) = (value["apiVersion"].as_str(), value["kind"].as_str())
        else {
            return Err(at("has no apiVersion or no kind; add both"));
        };
        let group = version.split_once('/').map_or("", |(group, _)| group);
        if let Some(items) = items_of_list(group, kind, value) {
            contents.has_lists = true;
            for (index, item) in items.iter().enumerate() {
                self.object(item, lines.item_of("items", index), contents)?;
            }
            return Ok(());
        }
        if group != GROUP {
            contents.warnings.push(Warning {
                origin: self.origin(lines),
                message: format!("{kind} of {version} is left aside: it is no {GROUP} resource"),
            });
            return Ok(());
        }
        let Some(kind) = Kind::from_name(kind) else {
            let known = Kind::ALL.map(Kind::as_str).join(", ");
            let reason = format!("\"{kind}\" is no kind of {GROUP}; there are {known}");
            return Err(unreadable(self.file, Some(lines.of("kind")), reason));
        };
        let Some(name) = value["metadata"]["name"].as_str().filter(|n| !n.is_empty()) else {
            return Err(unreadable(
                self.file,
                Some(lines.of("metadata")),
                format!("a {kind} has no name; add metadata.name"),
            ));
        };
        let name = kind.full_name(value["metadata"]["namespace"].as_str(), name);
        let document = self.document(kind, &name, value, lines);
        contents.documents.push(Arc::new(document));
        Ok(())
    }

    fn document(&self, kind: Kind, name: &str, value: &Value, lines: &Lines) -> Document<T> {
        let (content, warnings) = match check(value) {
            Ok(checked) => (Ok((self.convert)(checked.resource)), checked.warnings),
            Err(problems) => (Err(with_lines(problems, lines)), Vec::new()),
        };
        Document {
            origin: self.origin(lines),
            kind,
            name: name.into(),
            uid: uid(kind, name),
            generation: None,
            written: written(value),
            content,
            warnings: with_lines(warnings, lines),
        }
    }

    fn origin(&self, lines: &Lines) -> Origin {
        Origin {
            list: self.file.into(),
            line: Some(lines.line),
        }
    }
}

/// The items of a `List` of anything, or of a list of one of our kinds.
fn items_of_list<'v>(group: &str, kind: &str, value: &'v Value) -> Option<&'v Vec<Value>> {
    let ours = |kind: &str| group == GROUP && Kind::from_name(kind).is_some();
    let is_list =
        (group.is_empty() && kind == "List") || kind.strip_suffix("List").is_some_and(ours);
    if is_list {
        value["items"].as_array()
    } else {
        None
    }
}

fn with_lines(mut problems: Vec<Problem>, lines: &Lines) -> Vec<Problem> {
    for problem in &mut problems {
        problem.line = Some(lines.of(&problem.path));
    }
    problems
}

/// The identity of a resource where no API server gives it one. The namespace of a kind that belongs
/// to the whole cluster is empty.
fn uid(kind: Kind, name: &str) -> String {
    let (namespace, name) = Kind::split_name(name);
    let namespace = namespace.unwrap_or_default();
    let digest = blake3::hash(format!("{kind}\0{namespace}\0{name}").as_bytes());
    digest.to_hex()[..32].to_owned()
}

/// What `Document::written` says of an object.
pub(crate) fn written(value: &Value) -> [u8; 32] {
    let meaning = json!({"labels": value["metadata"]["labels"], "spec": value["spec"]});
    *blake3::hash(meaning.to_string().as_bytes()).as_bytes()
}
