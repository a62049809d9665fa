//! The words of a refusal: what is wrong, and what to write instead.

use std::fmt;

use serde_json::{Number, Value};

use crate::{
    CidrError,
    address::ADDRESS_REMEDY,
    check::Problem,
    cidr::CIDR_REMEDY,
    path::Path,
    structural::{INTERFACE, LABEL_KEY, LABEL_VALUE, MAC, OBJECT_NAME, RULE_NAME},
};

/// A problem from its three parts.
pub(crate) fn problem(
    path: impl fmt::Display,
    reason: impl Into<String>,
    remedy: impl Into<String>,
) -> Problem {
    Problem {
        path: path.to_string(),
        reason: reason.into(),
        remedy: remedy.into(),
        line: None,
    }
}

/// A problem from the message of a CEL rule: the reason, "; ", the remedy.
pub(crate) fn from_message(path: &Path<'_>, message: &str) -> Problem {
    let (reason, remedy) = message.split_once("; ").unwrap_or((message, ""));
    problem(path, reason, remedy)
}

pub(crate) fn unknown_field<'a>(
    path: &Path<'_>,
    name: &str,
    known: impl Iterator<Item = &'a str>,
) -> Problem {
    let known: Vec<&str> = known.collect();
    let remedy = match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("remove it; the fields here are {}", known.join(", ")),
    };
    problem(path.field(name), "is no known field", remedy)
}

pub(crate) fn missing(path: &Path<'_>, name: &str, choices: &[String]) -> Problem {
    let remedy = if choices.is_empty() {
        format!("add {name}")
    } else {
        format!("add {name}: {}", any_of(choices))
    };
    problem(path.field(name), "is required", remedy)
}

pub(crate) fn not_one(path: &Path<'_>, chosen: &[&String], all: &[String]) -> Problem {
    if chosen.is_empty() {
        problem(
            path,
            format!("holds none of {}", all.join(", ")),
            format!("give exactly one, such as {}: {{}}", all[0]),
        )
    } else {
        let chosen: Vec<&str> = chosen.iter().map(|s| s.as_str()).collect();
        problem(
            path,
            format!("holds {} at once", chosen.join(" and ")),
            "make each an item of its own in the list",
        )
    }
}

pub(crate) fn wrong_type(path: &Path<'_>, value: &Value, wanted: &str, remedy: String) -> Problem {
    match value {
        Value::Null => problem(
            path,
            format!("is blank (null), must be {wanted}"),
            "give it a value, or remove the field; {} is an object without fields",
        ),
        _ => problem(
            path,
            format!("is {}, must be {wanted}", type_of(value)),
            remedy,
        ),
    }
}

pub(crate) fn too_few(path: &Path<'_>, len: usize, min: usize) -> Problem {
    if len == 0 {
        problem(
            path,
            "is an empty list",
            "list at least one, or remove the field",
        )
    } else {
        problem(
            path,
            format!("has {len} entries, at least {min} are needed"),
            "add more",
        )
    }
}

pub(crate) fn too_many(path: &Path<'_>, len: usize, max: usize) -> Problem {
    let remedy = match path.last_field() {
        "cidrs" if path.to_string() == "spec.cidrs" => {
            "split it into several CidrGroups with a common label, and select them by it".into()
        }
        "cidrs" | "except" => "move them into a CidrGroup and name it in cidrGroups".into(),
        "rules" => "split the policy in two, ordered by priority".into(),
        _ => format!("keep at most {max}"),
    };
    problem(
        path,
        format!("has {len} entries, at most {max} are allowed"),
        remedy,
    )
}

pub(crate) fn out_of_range(path: &Path<'_>, number: &Number, min: i64, max: i64) -> Problem {
    problem(
        path,
        format!("{number} is out of range"),
        format!("write a number of {min} to {max}"),
    )
}

pub(crate) fn empty_text(path: &Path<'_>) -> Problem {
    problem(path, "is empty", "write something, or remove it")
}

pub(crate) fn too_long(path: &Path<'_>, len: usize, max: usize) -> Problem {
    problem(
        path,
        format!("has {len} characters, at most {max} are allowed"),
        "shorten it",
    )
}

pub(crate) fn no_choice(path: &Path<'_>, text: &str, choices: &[String]) -> Problem {
    let remedy = match nearest(text, choices.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("write {}", any_of(choices)),
    };
    problem(
        path,
        format!("\"{}\" is not {}", shown(text), any_of(choices)),
        remedy,
    )
}

pub(crate) fn mismatch(path: &Path<'_>, text: &str, pattern: &str) -> Problem {
    let (reason, remedy) = mismatch_words(text, pattern);
    problem(path, reason, remedy)
}

/// Reason and remedy of a mismatch, for whoever has no path of ours.
pub(crate) fn mismatch_words(text: &str, pattern: &str) -> (String, &'static str) {
    let (what, remedy) = match pattern {
        INTERFACE => (
            "an interface name or pattern",
            "write a name, a pattern with * and ?, or defaultRoute",
        ),
        RULE_NAME => (
            "a rule name",
            "use lower-case letters, digits and '-', with a letter or digit at both ends",
        ),
        OBJECT_NAME => (
            "an object's name",
            "use lower-case letters, digits, '-' and '.', with a letter or digit at both ends",
        ),
        LABEL_KEY => (
            "a label key",
            "write NAME or PREFIX/NAME, such as topology.kubernetes.io/zone",
        ),
        LABEL_VALUE => (
            "a label value",
            "use letters, digits, '-', '_' and '.', with a letter or digit at both ends",
        ),
        MAC => (
            "a link-layer address of one device",
            "write six bytes in hexadecimal, the first of them even, such as 02:68:c0:00:02:01",
        ),
        other => (other, "write what the field's description says"),
    };
    (format!("\"{}\" is not {what}", shown(text)), remedy)
}

pub(crate) fn no_cidr(path: &Path<'_>, text: &str, error: &CidrError) -> Problem {
    problem(
        path,
        format!("\"{}\" is no CIDR: {error}", shown(text)),
        CIDR_REMEDY,
    )
}

pub(crate) fn no_address(path: &Path<'_>, text: &str) -> Problem {
    problem(
        path,
        format!("\"{}\" is no address", shown(text)),
        ADDRESS_REMEDY,
    )
}

pub(crate) fn twice(path: impl fmt::Display, word: &str, first: &Path<'_>) -> Problem {
    problem(
        path,
        format!("\"{}\" is taken by {first}", shown(word)),
        "write each once: rename or remove one of the two",
    )
}

/// How to write a lone value where a list belongs.
pub(crate) fn as_list(value: &Value) -> String {
    match value {
        Value::String(_) | Value::Number(_) | Value::Bool(_) => {
            format!("write [{}]", shown(&value.to_string()))
        }
        _ => "write a list: one '- ' a line, or [a, b]".into(),
    }
}

/// `A, B or C`.
pub(crate) fn any_of(choices: &[String]) -> String {
    match choices {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// What a message quotes of the user's text: enough to recognise it, in one line.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 64;
    let mut quoted = String::new();
    for (index, c) in text.chars().enumerate() {
        if index == LONGEST {
            quoted.push_str("...");
            break;
        }
        if c.is_control() {
            quoted.extend(c.escape_default());
        } else {
            quoted.push(c);
        }
    }
    quoted
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(n) if n.is_f64() => "a fraction",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The known word that a misspelt one most likely stands for.
fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > 64 {
        return None;
    }
    let lower = word.to_lowercase();
    known
        .map(|k| (strsim::damerau_levenshtein(&lower, &k.to_lowercase()), k))
        .filter(|(distance, k)| *distance <= 2 && *distance < k.len() / 2 + 1)
        .min()
        .map(|(_, k)| k)
}
