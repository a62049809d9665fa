//! Sums the results of test binaries from what they print.

/// The result of all tests read so far.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    passed: u64,
    failed: u64,
    skipped: u64,
    /// Tests that did not run, with the reason, to be named at the end.
    skips: Vec<String>,
    /// What failed besides tests.
    troubles: Vec<String>,
    binary: Option<Binary>,
}

/// A test binary that has begun and not yet given its result.
#[derive(Debug, Default)]
struct Binary {
    tests: u64,
    /// `SKIPPED` lines: tests that the harness counts as passed.
    skipped: u64,
    /// Inside the bare list of passed tests that --show-output adds.
    in_list: bool,
}

impl Summary {
    /// Takes one line of output; returns whether it is worth showing.
    pub(crate) fn read(&mut self, line: &str) -> bool {
        if let Some(tests) = parse_start(line) {
            self.close();
            self.binary = Some(Binary {
                tests,
                ..Binary::default()
            });
        } else if let Some(result) = parse_result(line) {
            self.add(result);
        } else if let Some(reason) = line.strip_prefix("SKIPPED ") {
            self.skips.push(reason.to_owned());
            if let Some(binary) = &mut self.binary {
                binary.skipped += 1;
            }
        } else if let Some(skip) = parse_ignored(line) {
            self.skips.push(skip);
        }
        !self.is_list(line)
    }

    fn is_list(&mut self, line: &str) -> bool {
        let Some(binary) = &mut self.binary else {
            return false;
        };
        binary.in_list =
            line == "successes:" || binary.in_list && (line.is_empty() || line.starts_with("    "));
        binary.in_list
    }

    fn add(&mut self, [passed, failed, ignored]: [u64; 3]) {
        let skipped = self.binary.take().unwrap_or_default().skipped.min(passed);
        self.passed += passed - skipped;
        self.failed += failed;
        self.skipped += ignored + skipped;
    }

    /// A binary that began and gave no result has crashed.
    fn close(&mut self) {
        if let Some(binary) = self.binary.take() {
            self.fail(&format!(
                "a test binary of {} tests ended without a result",
                binary.tests
            ));
        }
    }

    /// Counts a failure that is no test's.
    pub(crate) fn fail(&mut self, trouble: &str) {
        self.failed += 1;
        self.troubles.push(trouble.to_owned());
    }

    /// All output is read; `cargo_succeeded` is what cargo thinks of it.
    pub(crate) fn end(&mut self, cargo_succeeded: bool) {
        self.close();
        if !cargo_succeeded && self.failed == 0 {
            self.fail("cargo test failed outside of any test");
        }
    }

    /// Whether something ran and nothing failed.
    pub(crate) fn is_success(&self) -> bool {
        self.failed == 0 && self.passed > 0
    }

    /// Whether less ran than was skipped.
    pub(crate) fn is_mostly_skipped(&self) -> bool {
        self.skipped > self.passed + self.failed
    }

    /// What was skipped and what went wrong; the sums come last.
    pub(crate) fn report(&self) -> Vec<String> {
        let mut lines = Vec::new();
        lines.extend(self.skips.iter().map(|skip| format!("skipped: {skip}")));
        lines.extend(
            self.troubles
                .iter()
                .map(|trouble| format!("failed: {trouble}")),
        );
        if self.passed + self.failed == 0 {
            lines.push("failed: no test ran".to_owned());
        }
        lines.push(format!(
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        ));
        lines
    }
}

/// `running 3 tests`
fn parse_start(line: &str) -> Option<u64> {
    let rest = line.strip_prefix("running ")?;
    rest.strip_suffix(" tests")
        .or_else(|| rest.strip_suffix(" test"))?
        .parse()
        .ok()
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; ...`
fn parse_result(line: &str) -> Option<[u64; 3]> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut counts = counts.split("; ");
    let mut count =
        |what: &str| -> Option<u64> { counts.next()?.strip_suffix(what)?.trim_end().parse().ok() };
    Some([count("passed")?, count("failed")?, count("ignored")?])
}

/// `test name ... ignored, reason` of libtest, `test name ... ignored (reason)` of libtest-mimic.
fn parse_ignored(line: &str) -> Option<String> {
    let (name, outcome) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let reason = outcome.strip_prefix("ignored")?;
    let reason = reason
        .strip_prefix(", ")
        .or_else(|| reason.strip_prefix(" (")?.strip_suffix(')'))
        .unwrap_or("no reason given");
    Some(format!("{}: {reason}", name.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::Summary;

    fn summary(output: &str, cargo_succeeded: bool) -> Summary {
        let mut summary = Summary::default();
        for line in output.lines() {
            summary.read(line);
        }
        summary.end(cargo_succeeded);
        summary
    }

    fn last_line(summary: &Summary) -> String {
        summary.report().pop().unwrap()
    }

    #[test]
    fn sums_libtest_and_libtest_mimic() {
        let read = summary(
            "\nrunning 2 tests\ntest a ... ok\ntest b ... ignored, needs a lake\n\n\
             test result: ok. 1 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\
             \nrunning 3 tests\ntest c   ... ok\ntest dd  ... ignored (no CAP_BPF)\ntest e   ... ok\n\n\
             test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
            true,
        );
        assert_eq!(
            read.report(),
            [
                "skipped: b: needs a lake",
                "skipped: dd: no CAP_BPF",
                "3 passed, 0 failed, 2 skipped"
            ]
        );
        assert!(read.is_success());
    }

    #[test]
    fn a_test_that_says_skipped_has_not_passed() {
        let read = summary(
            "running 2 tests\ntest a ... ok\ntest b ... ok\n\nsuccesses:\n\n---- a stdout ----\n\
             SKIPPED a: HEADGATE_DATA is not set\n\n\nsuccesses:\n    a\n    b\n\n\
             test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n",
            true,
        );
        assert_eq!(last_line(&read), "1 passed, 0 failed, 1 skipped");
    }

    #[test]
    fn failures_are_failures() {
        let read = summary(
            "running 2 tests\n\ntest result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n",
            false,
        );
        assert_eq!(last_line(&read), "1 passed, 1 failed, 0 skipped");
        assert!(!read.is_success());
    }

    #[test]
    fn a_crashed_binary_is_a_failure() {
        let crash_then_more = "running 2 tests\ntest a ... ok\nrunning 1 test\n\
             test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n";
        let read = summary(crash_then_more, false);
        assert_eq!(last_line(&read), "1 passed, 1 failed, 0 skipped");
        let read = summary("running 2 tests\ntest a ... ok\n", false);
        assert_eq!(last_line(&read), "0 passed, 1 failed, 0 skipped");
    }

    #[test]
    fn a_build_that_fails_is_a_failure() {
        let read = summary("", false);
        assert_eq!(last_line(&read), "0 passed, 1 failed, 0 skipped");
        assert!(!read.is_success());
    }

    #[test]
    fn nothing_run_is_no_success() {
        let read = summary(
            "running 0 tests\n\ntest result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 7 filtered out\n",
            true,
        );
        assert!(!read.is_success());
        assert!(read.report().contains(&"failed: no test ran".to_owned()));
    }

    #[test]
    fn the_list_of_passed_tests_is_not_shown() {
        let mut summary = Summary::default();
        let shown: Vec<&str> = "running 1 test\ntest a ... ok\n\nsuccesses:\n\n---- a stdout ----\n\
             compared 7\n\n\nsuccesses:\n    a\n\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured"
            .lines()
            .filter(|line| summary.read(line) && !line.is_empty())
            .collect();
        assert_eq!(shown[..2], ["running 1 test", "test a ... ok"]);
        assert_eq!(shown[2..4], ["---- a stdout ----", "compared 7"]);
        assert_eq!(shown.len(), 5);
    }
}
