//! Every wrong field and every broken rule: where it is, and what is said.

#[path = "../common/mod.rs"]
mod common;

mod addresses;
mod never_matching;
mod object;
mod peers;
mod policy;
mod protocols;
mod services;

use common::bad;
use serde_json::Value;

/// One bad object: its only problem's path, and part of the reason and the remedy.
type Case = (Value, &'static str, &'static str, &'static str);

fn assert_each(cases: Vec<Case>) {
    for (object, path, reason, remedy) in cases {
        let problems = bad(&object);
        let [problem] = problems.as_slice() else {
            panic!("{object:#}\nhas not one problem: {problems:#?}");
        };
        assert_eq!(problem.path, path, "{object:#}\n{problem}");
        assert!(
            problem.reason.contains(reason),
            "{reason:?} is not in: {problem}"
        );
        assert!(
            problem.remedy.contains(remedy),
            "{remedy:?} is not in: {problem}"
        );
        assert!(!problem.remedy.is_empty(), "no remedy: {problem}");
    }
}

fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    *object.pointer_mut(pointer).expect("the pointer fits") = value;
    object
}

fn numbered(n: usize, item: impl Fn(usize) -> Value) -> Value {
    (0..n).map(item).collect()
}
