//! Places in an object, written out only where there is something to say.

use std::fmt;

use crate::remedy::shown;

/// A place, as links on the stack up to the object itself.
#[derive(Clone, Copy)]
pub(crate) struct Path<'a> {
    above: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Field(&'a str),
    Key(&'a str),
    Item(usize),
}

impl Path<'static> {
    /// The object itself.
    pub(crate) const ROOT: Self = Self {
        above: None,
        step: Step::Root,
    };
}

impl<'a> Path<'a> {
    /// A field of the object here.
    pub(crate) fn field(&'a self, name: &'a str) -> Self {
        self.then(Step::Field(name))
    }

    /// An entry of the map here.
    pub(crate) fn key(&'a self, key: &'a str) -> Self {
        self.then(Step::Key(key))
    }

    /// An item of the list here.
    pub(crate) fn item(&'a self, index: usize) -> Self {
        self.then(Step::Item(index))
    }

    /// The name of the field that this is, or an empty word.
    pub(crate) fn last_field(&self) -> &'a str {
        match self.step {
            Step::Field(name) => name,
            _ => "",
        }
    }

    fn then(&'a self, step: Step<'a>) -> Self {
        Self {
            above: Some(self),
            step,
        }
    }
}

impl fmt::Display for Path<'_> {
    /// `spec.rules[2].from`, `metadata.labels[example.org/team]`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(above) = self.above {
            above.fmt(f)?;
            if matches!(self.step, Step::Field(_)) && above.above.is_some() {
                f.write_str(".")?;
            }
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Field(name) => f.write_str(&shown(name)),
            Step::Key(key) => write!(f, "[{}]", shown(key)),
            Step::Item(index) => write!(f, "[{index}]"),
        }
    }
}
