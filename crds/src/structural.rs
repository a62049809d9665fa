//! The CRD's structural schema, enforced without an API server.
//!
//! A CRD schema is a small tree of objects, lists and scalars, so it is compiled
//! to just that; a general JSON Schema engine would say less about what is wrong.

use std::collections::BTreeMap;

use kube::core::cel::Validator;
use regex::Regex;
use serde_json::{Map, Value};

use crate::{
    check::Problem,
    path::Path,
    remedy,
    rules::{Compiler, Evaluator},
};

/// The value of a label, for schemas.
pub(crate) const LABEL_VALUE: &str = "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$";
/// The key of a label, for schemas: an optional DNS prefix, then a name.
pub(crate) const LABEL_KEY: &str =
    "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$";
/// The name of a cluster-scoped object, for schemas.
pub(crate) const OBJECT_NAME: &str = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$";
/// The name of a rule, for schemas.
pub(crate) const RULE_NAME: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// The name of an interface, or a pattern of them, for schemas.
pub(crate) const INTERFACE: &str = "^[A-Za-z0-9_.:@*?-]+$";

/// A link-layer address of one device, for schemas: its first byte is even.
pub(crate) const MAC: &str = "^[0-9a-fA-F][02468aceACE](:[0-9a-fA-F]{2}){5}$";

/// One place of a compiled schema.
pub(crate) struct Node {
    default: Option<Value>,
    shape: Shape,
    rules: Vec<Evaluator>,
    /// Whether there are rules here or anywhere below.
    has_rules: bool,
}

enum Shape {
    Object(Object),
    List {
        items: Box<Node>,
        min: usize,
        max: usize,
    },
    Text(Text),
    Integer {
        min: i64,
        max: i64,
    },
    Boolean,
    /// Whatever it is, another room checks it.
    Any,
}

struct Object {
    fields: BTreeMap<String, Node>,
    required: Vec<String>,
    /// Fields of which exactly one is given; empty where there is no such choice.
    one_of: Vec<String>,
    /// The values of a map, which has no fields of its own.
    values: Option<Box<Node>>,
    max_entries: usize,
}

struct Text {
    min: usize,
    max: usize,
    pattern: Option<Regex>,
    choices: Vec<String>,
}

impl Node {
    /// Compiles a schema as the CRDs hold it.
    pub(crate) fn compile(schema: &Value, compiler: &mut Compiler) -> Self {
        let rules = compiler.compile(schema);
        let shape = match schema["type"].as_str() {
            Some("object") => Shape::Object(Object::compile(schema, compiler)),
            Some("array") => Shape::List {
                items: Box::new(Self::compile(&schema["items"], compiler)),
                min: limit(schema, "minItems", 0),
                max: limit(schema, "maxItems", usize::MAX),
            },
            Some("string") => Shape::Text(Text::compile(schema)),
            Some("integer") => Shape::Integer {
                min: bound(schema, "minimum", i64::MIN),
                max: bound(schema, "maximum", i64::MAX),
            },
            Some("boolean") => Shape::Boolean,
            None if schema == &Value::Bool(true) => Shape::Any,
            other => unreachable!("no resource has a field of type {other:?}"),
        };
        let below = match &shape {
            Shape::Object(object) => object.fields.values().any(|field| field.has_rules),
            Shape::List { items, .. } => items.has_rules,
            _ => false,
        };
        Self {
            default: schema.get("default").cloned(),
            has_rules: below || !rules.is_empty(),
            shape,
            rules,
        }
    }

    /// Runs the rules on `value`, which has passed [`Self::walk`].
    pub(crate) fn run_rules(
        &self,
        validator: &Validator,
        value: &Value,
        path: &Path<'_>,
        problems: &mut Vec<Problem>,
    ) {
        if !self.has_rules {
            return;
        }
        for rule in &self.rules {
            rule.run(validator, value, path, problems);
        }
        match (&self.shape, value) {
            (Shape::Object(object), Value::Object(given)) => {
                for (name, field) in &object.fields {
                    if let Some(value) = given.get(name) {
                        field.run_rules(validator, value, &path.field(name), problems);
                    }
                }
            }
            (Shape::List { items, .. }, Value::Array(list)) if items.has_rules => {
                for (index, item) in list.iter().enumerate() {
                    items.run_rules(validator, item, &path.item(index), problems);
                }
            }
            _ => {}
        }
    }

    /// Checks `value`, which stands at `path`, and fills in defaults.
    pub(crate) fn walk(&self, value: &mut Value, path: &Path<'_>, problems: &mut Vec<Problem>) {
        match (&self.shape, &mut *value) {
            (Shape::Object(object), Value::Object(fields)) => object.walk(fields, path, problems),
            (Shape::List { items, min, max }, Value::Array(list)) => {
                if list.len() < *min {
                    problems.push(remedy::too_few(path, list.len(), *min));
                } else if list.len() > *max {
                    problems.push(remedy::too_many(path, list.len(), *max));
                    return;
                }
                for (index, item) in list.iter_mut().enumerate() {
                    items.walk(item, &path.item(index), problems);
                }
            }
            (Shape::Text(text), Value::String(string)) => text.walk(string, path, problems),
            (Shape::Integer { min, max }, Value::Number(number)) => match number.as_i64() {
                Some(n) if (*min..=*max).contains(&n) => {}
                Some(_) => problems.push(remedy::out_of_range(path, number, *min, *max)),
                None if number.is_u64() => {
                    problems.push(remedy::out_of_range(path, number, *min, *max));
                }
                None => problems.push(self.wrong_type(path, value)),
            },
            (Shape::Boolean, Value::Bool(_)) | (Shape::Any, _) => {}
            _ => problems.push(self.wrong_type(path, value)),
        }
    }

    fn wrong_type(&self, path: &Path<'_>, value: &Value) -> Problem {
        let (wanted, remedy) = match &self.shape {
            Shape::Object(object) => ("an object", object.how_to_write(value)),
            Shape::List { .. } => ("a list", remedy::as_list(value)),
            Shape::Text(text) => ("a string", text.how_to_write(value)),
            Shape::Integer { min, max } => (
                "a whole number",
                format!("write a whole number of {min} to {max}, without quotes"),
            ),
            Shape::Boolean => ("a boolean", "write true or false, without quotes".into()),
            Shape::Any => ("anything", String::new()),
        };
        remedy::wrong_type(path, value, wanted, remedy)
    }
}

impl Object {
    fn compile(schema: &Value, compiler: &mut Compiler) -> Self {
        let fields = schema["properties"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, field)| (name.clone(), Node::compile(field, compiler)))
            .collect();
        let one_of = schema["oneOf"]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|branch| names(&branch["required"]))
            .collect();
        let values = schema
            .get("additionalProperties")
            .map(|values| Box::new(Node::compile(values, compiler)));
        Self {
            fields,
            required: names(&schema["required"]),
            one_of,
            values,
            max_entries: limit(schema, "maxProperties", usize::MAX),
        }
    }

    fn walk(&self, given: &mut Map<String, Value>, path: &Path<'_>, problems: &mut Vec<Problem>) {
        if let Some(values) = &self.values {
            if given.len() > self.max_entries {
                problems.push(remedy::too_many(path, given.len(), self.max_entries));
            }
            for (key, value) in given.iter_mut() {
                values.walk(value, &path.key(key), problems);
            }
            return;
        }
        for name in given.keys().filter(|n| !self.fields.contains_key(*n)) {
            let known = self.fields.keys().map(String::as_str);
            problems.push(remedy::unknown_field(path, name, known));
        }
        for name in self.required.iter().filter(|n| !given.contains_key(*n)) {
            problems.push(remedy::missing(path, name, self.choices_of(name)));
        }
        if !self.one_of.is_empty() {
            let chosen: Vec<&String> = self
                .one_of
                .iter()
                .filter(|n| given.contains_key(*n))
                .collect();
            if chosen.len() != 1 {
                problems.push(remedy::not_one(path, &chosen, &self.one_of));
            }
        }
        for (name, node) in &self.fields {
            match given.get_mut(name) {
                Some(value) => node.walk(value, &path.field(name), problems),
                None => {
                    if let Some(default) = &node.default {
                        given.insert(name.clone(), default.clone());
                    }
                }
            }
        }
    }

    fn choices_of(&self, field: &str) -> &[String] {
        match self.fields.get(field).map(|node| &node.shape) {
            Some(Shape::Text(text)) => &text.choices,
            _ => &[],
        }
    }

    /// The usual slips: `- tcp` for `- tcp: {}`, `- 80` for `- port: 80`.
    fn how_to_write(&self, value: &Value) -> String {
        if let Value::String(word) = value
            && let Some(name) = self.one_of.iter().find(|n| n.eq_ignore_ascii_case(word))
        {
            return format!("write {name}: {{}}");
        }
        match (self.required.as_slice(), value) {
            ([only], Value::String(_) | Value::Number(_)) => {
                format!("write {only}: {}", remedy::shown(&value.to_string()))
            }
            _ => {
                let known: Vec<&str> = self.fields.keys().map(String::as_str).collect();
                if known.is_empty() {
                    "write KEY: VALUE pairs".into()
                } else {
                    format!("write it with its fields: {}", known.join(", "))
                }
            }
        }
    }
}

impl Text {
    fn compile(schema: &Value) -> Self {
        Self {
            min: limit(schema, "minLength", 0),
            max: limit(schema, "maxLength", usize::MAX),
            pattern: schema["pattern"]
                .as_str()
                .map(|p| Regex::new(p).expect("the patterns are constants of this crate")),
            choices: names(&schema["enum"]),
        }
    }

    fn walk(&self, text: &str, path: &Path<'_>, problems: &mut Vec<Problem>) {
        let length = text.chars().count();
        if !self.choices.is_empty() {
            if !self.choices.iter().any(|choice| choice == text) {
                problems.push(remedy::no_choice(path, text, &self.choices));
            }
        } else if length < self.min {
            problems.push(remedy::empty_text(path));
        } else if length > self.max {
            problems.push(remedy::too_long(path, length, self.max));
        } else if let Some(pattern) = &self.pattern
            && !pattern.is_match(text)
        {
            problems.push(remedy::mismatch(path, text, pattern.as_str()));
        }
    }

    fn how_to_write(&self, value: &Value) -> String {
        match (self.choices.is_empty(), value) {
            (false, _) => format!("write {}", remedy::any_of(&self.choices)),
            (true, Value::Number(_) | Value::Bool(_)) => {
                format!("put it in quotes: \"{value}\"")
            }
            (true, _) => "write text".into(),
        }
    }
}

fn names(list: &Value) -> Vec<String> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(|name| name.as_str().map(String::from))
        .collect()
}

fn limit(schema: &Value, key: &str, absent: usize) -> usize {
    schema[key]
        .as_u64()
        .and_then(|n| usize::try_from(n).ok())
        .unwrap_or(absent)
}

/// A CRD spells its bounds as floating point numbers.
fn bound(schema: &Value, key: &str, absent: i64) -> i64 {
    schema[key].as_f64().map_or(absent, |n| n as i64)
}
