//! YAML to JSON values, with the line of everything.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::{Options, Spanned, budget, options};

/// A YAML text that is not well-formed, or does not stay within bounds.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct YamlError {
    /// Line, from 1, where known.
    pub(crate) line: Option<u32>,
    message: String,
    #[source]
    source: Box<serde_saphyr::Error>,
}

/// A value and the lines it was written on.
#[derive(Debug)]
pub(crate) struct Located {
    pub(crate) value: Value,
    pub(crate) lines: Lines,
}

/// The lines of a value, in the value's shape.
#[derive(Debug)]
pub(crate) struct Lines {
    /// Line of the value; of its key, where it has one.
    pub(crate) line: u32,
    below: Below,
}

#[derive(Debug)]
enum Below {
    Nothing,
    Items(Vec<Lines>),
    Fields(Vec<(String, Lines)>),
}

/// The documents of a text, empty ones left out, each with its own line only: that of
/// everything in it costs as much again.
pub(crate) fn parse(text: &str) -> Result<Vec<Located>, YamlError> {
    let documents = documents::<Spanned<Value>>(text)?;
    let located = documents.into_iter().map(|document| Located {
        lines: Lines {
            line: line_number(document.referenced.line()),
            below: Below::Nothing,
        },
        value: document.value,
    });
    Ok(located.collect())
}

/// The documents of a text, empty ones left out, with all lines.
pub(crate) fn parse_with_lines(text: &str) -> Result<Vec<Located>, YamlError> {
    documents(text)
}

fn documents<'de, T: Deserialize<'de>>(text: &'de str) -> Result<Vec<T>, YamlError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    serde_saphyr::from_multiple_with_options(text, bounds()).map_err(|source| YamlError {
        line: source.location().map(|place| line_number(place.line())),
        message: first_line(&source),
        source: Box::new(source),
    })
}

/// A file of 16 MiB holds a million short lines; what aliases unfold to counts like
/// text, and no resource has use for many. The parser is recursive and takes up to 36 KiB
/// of stack a level; resources are 14 levels deep at most, CRDs beside them some 26.
fn bounds() -> Options {
    options! {
        budget: budget! {
            max_documents: 10_000,
            max_events: 8_000_000,
            max_nodes: 4_000_000,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_depth: 32,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 100_000,
            max_replay_stack_depth: 16,
        },
        emit_comments: false,
    }
}

/// The parser's words without the place, which is told apart, and without the excerpt
/// that it draws below them.
fn first_line(error: &serde_saphyr::Error) -> String {
    let bare = error.without_snippet();
    if let serde_saphyr::Error::DuplicateMappingKey { key, .. } = bare {
        let key = match key {
            Some(key) => format!("the key {key:?}"),
            None => "a key".to_owned(),
        };
        return format!(
            "{key} is written a second time in one mapping; delete one of the two, or indent it to where it belongs"
        );
    }
    let rendered = bare.to_string();
    let line = rendered.lines().next().unwrap_or_default();
    let words = line.split(" at line ").next().unwrap_or(line);
    words.trim_start_matches("error: ").to_owned()
}

fn line_number(line: u64) -> u32 {
    u32::try_from(line).unwrap_or(u32::MAX)
}

impl Lines {
    /// The line of the deepest part of `path` that exists, such as
    /// `spec.rules[2].from`.
    pub(crate) fn of(&self, path: &str) -> u32 {
        self.step(path)
            .map_or(self.line, |(below, rest)| below.of(rest))
    }

    /// The lines of an item of the list in a field; the whole's, where there is none.
    pub(crate) fn item_of(&self, field: &str, index: usize) -> &Self {
        let Below::Fields(fields) = &self.below else {
            return self;
        };
        match fields.iter().find(|(name, _)| name == field) {
            Some((_, list)) => match &list.below {
                Below::Items(items) => items.get(index).unwrap_or(self),
                _ => self,
            },
            None => self,
        }
    }

    fn step<'p>(&self, path: &'p str) -> Option<(&Self, &'p str)> {
        match &self.below {
            Below::Nothing => None,
            Below::Items(items) => {
                let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
                Some((items.get(index.parse::<usize>().ok()?)?, rest))
            }
            // A key may hold dots and brackets itself, so the keys are tried on the path.
            Below::Fields(fields) => fields.iter().find_map(|(name, lines)| {
                let rest = match path.strip_prefix('[') {
                    Some(key) => key.strip_prefix(name.as_str())?.strip_prefix(']')?,
                    None => {
                        let path = path.strip_prefix('.').unwrap_or(path);
                        let rest = path.strip_prefix(name.as_str())?;
                        let ends = rest.is_empty() || rest.starts_with(['.', '[']);
                        ends.then_some(rest)?
                    }
                };
                Some((lines, rest))
            }),
        }
    }
}

impl<'de> Deserialize<'de> for Located {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned {
            value: Content(value, below),
            referenced,
            ..
        } = Spanned::<Content>::deserialize(deserializer)?;
        let line = line_number(referenced.line());
        Ok(Self {
            value,
            lines: Lines { line, below },
        })
    }
}

struct Content(Value, Below);

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl ContentVisitor {
    fn leaf<E>(value: impl Into<Value>) -> Result<Content, E> {
        Ok(Content(value.into(), Below::Nothing))
    }
}

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Self::leaf(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Content, E> {
        Self::leaf(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Content, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Content, E> {
        Self::leaf(value)
    }

    fn visit_i64<E>(self, value: i64) -> Result<Content, E> {
        Self::leaf(value)
    }

    fn visit_u64<E>(self, value: u64) -> Result<Content, E> {
        Self::leaf(value)
    }

    // JSON of Kubernetes has no wider integers; as floats they are out of range anywhere.
    fn visit_i128<E>(self, value: i128) -> Result<Content, E> {
        Self::leaf(Number::from_f64(value as f64).map_or(Value::Null, Value::Number))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Content, E> {
        Self::leaf(Number::from_f64(value as f64).map_or(Value::Null, Value::Number))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Content, E> {
        Self::leaf(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Content, E> {
        Self::leaf(value)
    }

    fn visit_string<E>(self, value: String) -> Result<Content, E> {
        Self::leaf(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Content, A::Error> {
        let mut values = Vec::new();
        let mut lines = Vec::new();
        while let Some(item) = list.next_element::<Located>()? {
            values.push(item.value);
            lines.push(item.lines);
        }
        Ok(Content(Value::Array(values), Below::Items(lines)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Content, A::Error> {
        let mut fields = Map::new();
        let mut lines = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let mut item: Located = map.next_value()?;
            item.lines.line = line_number(key.referenced.line());
            lines.push((key.value.clone(), item.lines));
            fields.insert(key.value, item.value);
        }
        Ok(Content(Value::Object(fields), Below::Fields(lines)))
    }
}
