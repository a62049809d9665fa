//! The name that somebody meant who wrote another.

/// The one of `names` that a slip turns into `written`: a letter that is missing, too much or wrong, or two that
/// changed places; in a long name two slips. The first of those that are as near.
pub(super) fn nearest<'a>(written: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let bound = match written.len() {
        0..=2 => return None,
        3..=7 => 1,
        _ => 2,
    };
    let distances = names.map(|name| (distance(written, name), name));
    let near = distances.filter(|(distance, _)| *distance <= bound);
    near.min().map(|(_, name)| name)
}

/// How many slips lie between two names, each of another letter.
fn distance(one: &str, other: &str) -> usize {
    let one: Vec<char> = one.chars().collect();
    let other: Vec<char> = other.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let replaced = last[j] + usize::from(a != b);
            let mut least = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == other[j - 1] && one[i - 1] == *b {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_one_step() {
        for (one, other, steps) in [
            ("eth0", "eth0", 0),
            ("eht0", "eth0", 1),
            ("eth", "eth0", 1),
            ("etth0", "eth0", 1),
            ("ath0", "eth0", 1),
            ("", "eth0", 4),
            ("wlan0", "eth0", 4),
        ] {
            assert_eq!(distance(one, other), steps, "{one} {other}");
            assert_eq!(distance(other, one), steps, "{other} {one}");
        }
    }

    #[test]
    fn only_what_is_near_is_meant() {
        let names = ["lo", "eth0", "eth1", "enp134s0f0"];
        let meant = |written| nearest(written, names.into_iter());
        assert_eq!(meant("eht0"), Some("eth0"));
        assert_eq!(meant("eth9"), Some("eth0"), "the first of two");
        assert_eq!(meant("enp143s0f1"), Some("enp134s0f0"));
        for strange in ["l0", "wlan0", "bond0", ""] {
            assert_eq!(meant(strange), None, "{strange}");
        }
    }
}
