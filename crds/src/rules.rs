//! The CRD's CEL rules, run without an API server.
//!
//! kube's evaluator runs them, but for four expressions. The uniqueness of 256 rules
//! takes it 0.3 to 5 s, for it copies list items, and each `isCIDR` 6 us, and it takes
//! 10.00.0.0/8 for a CIDR, as the API server does not. Those are answered here, and a
//! test holds the answers against kube's.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use kube::core::cel::{CompiledSchema, Validator, compile_schema};
use serde_json::{Value, json};

use crate::{address, check::Problem, cidr, path::Path, remedy};

/// Every item of a list once.
pub(crate) const UNIQUE_ITEMS: &str = "self.all(a, self.exists_one(b, a == b))";
/// Every name in a list of objects once.
pub(crate) const UNIQUE_NAMES: &str = "self.all(a, self.exists_one(b, a.name == b.name))";
/// A CIDR as the API server reads it.
pub(crate) const IS_CIDR: &str = "isCIDR(self)";

/// An address as the API server reads it.
pub(crate) const IS_ADDRESS: &str = "isIP(self)";

/// One way to answer the rules of a place.
pub(crate) enum Evaluator {
    Address,
    Cidr,
    UniqueItems,
    UniqueNames,
    Cel(Arc<CompiledSchema>),
}

/// Compiles rules, equal ones once: a CRD repeats its types at every place.
#[derive(Default)]
pub(crate) struct Compiler {
    compiled: BTreeMap<String, Arc<CompiledSchema>>,
}

impl Compiler {
    /// The evaluators of a place's own rules, not of what is below it.
    pub(crate) fn compile(&mut self, schema: &Value) -> Vec<Evaluator> {
        let rules = schema["x-kubernetes-validations"].as_array();
        rules
            .into_iter()
            .flatten()
            .map(|rule| match rule["rule"].as_str().unwrap_or_default() {
                IS_ADDRESS => Evaluator::Address,
                IS_CIDR => Evaluator::Cidr,
                UNIQUE_ITEMS => Evaluator::UniqueItems,
                UNIQUE_NAMES => Evaluator::UniqueNames,
                expression => Evaluator::Cel(self.cel(expression, rule)),
            })
            .collect()
    }

    fn cel(&mut self, expression: &str, rule: &Value) -> Arc<CompiledSchema> {
        if let Some(known) = self.compiled.get(expression) {
            return Arc::clone(known);
        }
        let compiled = Arc::new(compile_schema(&json!({"x-kubernetes-validations": [rule]})));
        self.compiled
            .insert(expression.into(), Arc::clone(&compiled));
        compiled
    }
}

impl Evaluator {
    /// Adds what the rule has against `value`, which stands at `path`.
    pub(crate) fn run(
        &self,
        validator: &Validator,
        value: &Value,
        path: &Path<'_>,
        problems: &mut Vec<Problem>,
    ) {
        match self {
            Self::Address => {
                let text = value.as_str().unwrap_or_default();
                if address::parse(text).is_none() {
                    problems.push(remedy::no_address(path, text));
                }
            }
            Self::Cidr => {
                let text = value.as_str().unwrap_or_default();
                if let Err(error) = cidr::parse_cidr(text) {
                    problems.push(remedy::no_cidr(path, text, &error));
                }
            }
            Self::UniqueItems => unique(value, path, None, problems),
            Self::UniqueNames => unique(value, path, Some("name"), problems),
            Self::Cel(rules) => {
                if let Err(errors) = validator.validate_compiled(rules, value, None) {
                    for error in errors {
                        problems.push(remedy::from_message(path, &error.message));
                    }
                }
            }
        }
    }
}

/// Refuses the second of two strings that are equal: items, or a field of theirs.
fn unique(list: &Value, path: &Path<'_>, field: Option<&str>, problems: &mut Vec<Problem>) {
    let mut seen = HashMap::new();
    for (index, item) in list.as_array().into_iter().flatten().enumerate() {
        let word = field.map_or(item, |field| &item[field]);
        let word = word.as_str().unwrap_or_default();
        if let Some(first) = seen.insert(word, index) {
            let (item, first) = (path.item(index), path.item(first));
            problems.push(match field {
                Some(field) => remedy::twice(item.field(field), word, &first),
                None => remedy::twice(item, word, &first),
            });
        }
    }
}
