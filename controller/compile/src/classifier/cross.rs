//! Crossing two fields' classes.

use std::collections::HashMap;

use super::{
    TooLarge,
    classes::{BitSet, Classes, MAX_CLASSES},
};

/// Bytes that crossings may still take.
pub struct Budget {
    limit: u64,
    used: u64,
}

impl Budget {
    pub fn new(limit: u64) -> Self {
        Self { limit, used: 0 }
    }

    pub fn used(&self) -> u64 {
        self.used
    }

    fn take(&mut self, rows: &Classes, columns: &Classes) -> Result<(), TooLarge> {
        let bytes = self.used + (rows.sets.len() * columns.sets.len() * 2) as u64;
        if bytes > self.limit {
            return Err(TooLarge::Crossing {
                of_rows: rows.of,
                rows: rows.sets.len(),
                of_columns: columns.of,
                columns: columns.sets.len(),
                bytes,
                budget: self.limit,
            });
        }
        self.used = bytes;
        Ok(())
    }
}

/// A table over two classes; none where one of the fields has a single class, so that the sum of
/// both is the result.
pub struct Table {
    pub cells: Vec<u16>,
    pub row: u32,
}

/// A crossing that keeps the whole sets, for a further crossing.
pub struct Crossing {
    pub table: Option<Table>,
    pub classes: Classes,
}

/// Crosses `rows` with `columns`, whose sets are over the same numbers, into classes of `of`. What
/// stands behind the first of `last` in a set is of no consequence, and is left out.
pub fn intersect(
    rows: &Classes,
    columns: &Classes,
    of: &'static str,
    last: &BitSet,
    budget: &mut Budget,
) -> Result<Crossing, TooLarge> {
    if rows.is_trivial() || columns.is_trivial() {
        let (wide, narrow) = if columns.is_trivial() {
            (rows, columns)
        } else {
            (columns, rows)
        };
        let both = |set: &BitSet| {
            let mut both = set.clone();
            both.set_to_both(set, &narrow.sets[0]);
            both.end_with_first_of(last);
            both
        };
        return Ok(Crossing {
            table: None,
            classes: wide.map(both),
        });
    }
    budget.take(rows, columns)?;
    let mut classes = Classes::new(of);
    let mut cells = Vec::with_capacity(rows.sets.len() * columns.sets.len());
    let mut both = rows.sets[0].clone();
    for row in &rows.sets {
        for column in &columns.sets {
            both.set_to_both(row, column);
            both.end_with_first_of(last);
            cells.push(classes.class_of(&both)?);
        }
    }
    let row = columns.sets.len() as u32;
    Ok(Crossing {
        table: Some(Table { cells, row }),
        classes,
    })
}

/// The last crossing: only the first rule that both satisfy counts.
pub struct Matches {
    pub table: Option<Table>,
    /// The first rule of each result, `None` for the default.
    pub firsts: Vec<Option<usize>>,
}

/// Crosses `rows` with `columns` down to the first match.
pub fn first_match(
    rows: &Classes,
    columns: &Classes,
    budget: &mut Budget,
) -> Result<Matches, TooLarge> {
    let first = |row: &BitSet, column: &BitSet| row.first_in_both(column);
    if rows.is_trivial() || columns.is_trivial() {
        let pairs = rows
            .sets
            .iter()
            .flat_map(|row| columns.sets.iter().map(move |column| (row, column)));
        return Ok(Matches {
            table: None,
            firsts: pairs.map(|(row, column)| first(row, column)).collect(),
        });
    }
    budget.take(rows, columns)?;
    let mut known: HashMap<Option<usize>, u16> = HashMap::new();
    let mut firsts = Vec::new();
    let mut cells = Vec::with_capacity(rows.sets.len() * columns.sets.len());
    for row in &rows.sets {
        for column in &columns.sets {
            let first = first(row, column);
            let next = firsts.len();
            let result = *known.entry(first).or_insert_with(|| {
                firsts.push(first);
                next as u16
            });
            cells.push(result);
        }
    }
    if firsts.len() > MAX_CLASSES {
        return Err(TooLarge::Classes {
            of: "rules that decide",
            limit: MAX_CLASSES,
        });
    }
    let row = columns.sets.len() as u32;
    Ok(Matches {
        table: Some(Table { cells, row }),
        firsts,
    })
}
