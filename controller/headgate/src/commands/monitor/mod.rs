//! `headgate monitor`.

mod names;
mod packet;
mod view;

use std::{
    io::{self, Write as _},
    num::NonZeroU32,
    str::FromStr,
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use headgate_kernel::monitor::{Filter, Losses, Monitor, Verdicts};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::signal::unix::{SignalKind, signal};

use self::{
    names::Names,
    view::{EventView, LossView},
};
use crate::{
    arguments::InstanceArguments,
    outcome::{CliError, Outcome},
    output::{Format, OutputArguments},
};

/// How often events are fetched, and how often programs are told that somebody is still there.
const FETCH: Duration = Duration::from_millis(50);
const RENEW: Duration = Duration::from_secs(1);

/// Show packets of this node as they are judged: when, where, verdict, who decided, headers.
///
/// Packets are told by the programs in the kernel, of the revision that judged them, with the agent
/// dead as well. They are a sample: of each CPU at most --rate packets a second are told, and how
/// many were left out is said on standard error. While nobody monitors, packets pay for reading one
/// word; a monitor that is killed is forgotten within three seconds. One monitor runs at a time.
#[derive(Args, Debug)]
#[command(after_help = "\
A line is: time (UTC), interface, verdict, policy/rule or reason, headers, length, revision.
With -o json, a line is an object; {\"notShown\": ...} tells what was left out since the last such.

Exit codes:
  0  ended by SIGINT or SIGTERM, or since nobody reads any more
  1  it could not begin or go on
  2  bad usage")]
pub(crate) struct MonitorArguments {
    /// Which packets [default: dropped and allowed ones].
    #[arg(long = "type", value_name = "TYPE", value_enum)]
    kind: Option<Kind>,

    /// Only packets that this rule decided; those from outside of a service's source ranges are
    /// NAMESPACE/NAME/sourceRanges.
    #[arg(long, value_name = "POLICY/RULE")]
    rule: Option<RuleName>,

    /// Packets told a second and CPU, at most.
    #[arg(long, value_name = "NUMBER", default_value = "1000", value_parser = rate)]
    rate: NonZeroU32,

    #[command(flatten)]
    output: OutputArguments,

    #[command(flatten)]
    place: InstanceArguments,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Packets that are dropped.
    Drop,
    /// IP packets that pass.
    Allow,
    /// Every frame, also those that policies do not concern: ARP, LLDP and all else that is not IP.
    Trace,
}

impl Kind {
    fn verdicts(kind: Option<Self>) -> Verdicts {
        Verdicts {
            dropped: kind != Some(Self::Allow),
            allowed: kind != Some(Self::Drop),
            not_ip: kind == Some(Self::Trace),
        }
    }
}

/// A rule by its policy's name and its own.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RuleName {
    policy: String,
    rule: String,
}

impl FromStr for RuleName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // A service's name has a slash itself.
        match text.rsplit_once('/') {
            Some((policy, rule)) if !policy.is_empty() && !rule.is_empty() => Ok(Self {
                policy: policy.to_owned(),
                rule: rule.to_owned(),
            }),
            _ => Err("write the policy's name, a slash and the rule's name"),
        }
    }
}

fn rate(text: &str) -> Result<NonZeroU32, &'static str> {
    let number = text.parse().ok().and_then(NonZeroU32::new);
    number
        .filter(|number| number.get() <= 1_000_000)
        .ok_or("write a number from 1 to 1000000")
}

pub(crate) fn run(arguments: &MonitorArguments) -> Result<Outcome, CliError> {
    let session = Session::begin(arguments)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?;
    runtime.block_on(watch(session))?;
    Ok(Outcome::Fine)
}

async fn watch(mut session: Session<'_>) -> Result<(), CliError> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::Runtime)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(CliError::Runtime)?;
    loop {
        let ended = tokio::select! {
            _ = interrupt.recv() => true,
            _ = terminate.recv() => true,
            () = tokio::time::sleep(FETCH) => false,
        };
        match session.turn() {
            Ok(()) if !ended => {}
            Ok(()) => return Ok(()),
            Err(CliError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
}

/// A monitor at work; sampling ends with it.
struct Session<'a> {
    arguments: &'a MonitorArguments,
    names: Names,
    filter: Filter,
    monitor: Monitor,
    renewed: Instant,
    losses: Losses,
}

impl<'a> Session<'a> {
    fn begin(arguments: &'a MonitorArguments) -> Result<Self, CliError> {
        let names = Names::read(&arguments.place)?;
        let filter = Filter {
            verdicts: Kind::verdicts(arguments.kind),
            counter: match &arguments.rule {
                Some(rule) => Some(names.counter(&rule.policy, &rule.rule)?),
                None => None,
            },
            rate: arguments.rate,
        };
        Ok(Self {
            monitor: names.kernel().monitor(&filter)?,
            arguments,
            names,
            filter,
            renewed: Instant::now(),
            losses: Losses::default(),
        })
    }

    /// Shows what has come since the last turn.
    fn turn(&mut self) -> Result<(), CliError> {
        let events: Vec<_> = std::iter::from_fn(|| self.monitor.next_event()).collect();
        let due = self.renewed.elapsed() >= RENEW;
        if due {
            self.monitor.renew(&self.filter)?;
            self.renewed = Instant::now();
            fail_if_nobody_reads()?;
        }
        if due || !events.iter().all(|event| self.names.know(event)) {
            self.names.refresh()?;
        }
        for event in &events {
            let view = EventView::new(event, &self.names);
            write_line(&match self.arguments.output.output {
                Format::Table => view.line(),
                Format::Json => json(&view),
            })?;
        }
        if due {
            self.tell_losses()?;
        }
        Ok(())
    }

    fn tell_losses(&mut self) -> Result<(), CliError> {
        let losses = self.monitor.losses()?;
        let view = LossView::between(self.losses, losses);
        self.losses = losses;
        if view.is_empty() {
            return Ok(());
        }
        match self.arguments.output.output {
            Format::Table => eprintln!("headgate: {view}"),
            Format::Json => write_line(&json(&view))?,
        }
        Ok(())
    }
}

fn json(view: &impl serde::Serialize) -> String {
    serde_json::to_string(view).expect("views have string keys and no fallible parts")
}

fn write_line(line: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")
        .and_then(|()| stdout.flush())
        .map_err(CliError::Output)
}

/// While no packet comes, nothing is written that would tell that the reader is gone.
fn fail_if_nobody_reads() -> Result<(), CliError> {
    let stdout = io::stdout();
    let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
    let now = Timespec::default();
    match poll(&mut polled, Some(&now)) {
        Ok(_) if polled[0].revents().contains(PollFlags::ERR) => {
            Err(CliError::Output(io::ErrorKind::BrokenPipe.into()))
        }
        // Where it cannot be asked, the next line will tell.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_all_there_is() {
        let verdicts = |dropped, allowed, not_ip| Verdicts {
            dropped,
            allowed,
            not_ip,
        };
        assert_eq!(Kind::verdicts(None), verdicts(true, true, false));
        assert_eq!(
            Kind::verdicts(Some(Kind::Drop)),
            verdicts(true, false, false)
        );
        assert_eq!(
            Kind::verdicts(Some(Kind::Allow)),
            verdicts(false, true, false)
        );
        assert_eq!(
            Kind::verdicts(Some(Kind::Trace)),
            verdicts(true, true, true)
        );
    }

    #[test]
    fn a_rule_is_named_with_its_policy() {
        let name: RuleName = "web/from-ten".parse().expect("a rule");
        assert_eq!(
            (name.policy.as_str(), name.rule.as_str()),
            ("web", "from-ten")
        );
        for bad in ["web", "/rule", "web/", ""] {
            assert!(bad.parse::<RuleName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_rate_is_a_number_that_can_be_kept() {
        assert_eq!(rate("1000"), Ok(NonZeroU32::new(1000).expect("not 0")));
        for bad in ["0", "-1", "1000001", "x", ""] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }
}
