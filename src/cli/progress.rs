//! Progress of runs: the words, and the bars that show them.
//!
//! What is shown is worked out by plain functions over [`RunView`]s; [`Bars`] only draws. Bars go to
//! standard error, and only to a terminal; else a plain line tells the sums now and then.

use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::out::tell;
use super::table::clean;
use crate::domain::clock::Millis;
use crate::domain::document::RunView;
use crate::domain::{Run, RunState};

/// More bars than this would scroll; the last line tells how many are not shown.
const BARS_MAX: usize = 12;
/// Without a terminal a line this often is enough for a log.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// One line of progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) label: String,
    pub(super) done: u64,
    pub(super) of: u64,
    pub(super) text: String,
}

/// What one run shows. `label` names its shop, as people know it.
pub(super) fn line(label: &str, view: &RunView, now: Millis) -> Line {
    let run = &view.run;
    let mut text = match run.state {
        RunState::Walking => format!("page {}, {} listed, {} to fetch", run.pages, run.listed, run.to_fetch),
        RunState::Fetching => forecast(view.forecast_at, now),
        RunState::Done => format!("done: {} listed, {} fetched", run.listed, run.fetched),
        RunState::Failed => format!("failed: {}", clean(run.error.as_deref().unwrap_or("no reason given"))),
        RunState::Canceled => "canceled".to_owned(),
        RunState::Unproved => format!("unproved: {}", clean(run.error.as_deref().unwrap_or("no reason given"))),
        RunState::Stopped => format!("stopped: {}", clean(run.error.as_deref().unwrap_or("no reason given"))),
    };
    if run.parked_in_all() > 0 {
        text.push_str(&format!(", {} parked", run.parked_in_all()));
    }
    let combination = run.stream.combination.to_string();
    let stream = if combination.is_empty() { run.stream.resource.clone() } else { values(run) };
    Line {
        label: clean(&format!("{label} {stream}")),
        done: run.fetched + run.gone + run.parked,
        of: run.to_fetch,
        text,
    }
}

/// `orders open`: the resource and the values of its list parameters.
fn values(run: &Run) -> String {
    let values: Vec<&str> = run.stream.combination.0.iter().map(|(_, value)| value.as_str()).collect();
    format!("{} {}", run.stream.resource, values.join(" "))
}

/// When a run will be done, for people.
pub(super) fn forecast(at: Option<Millis>, now: Millis) -> String {
    let Some(at) = at else { return "fetching".to_owned() };
    match (at - now).max(0) / 1000 {
        0..=1 => "nearly done".to_owned(),
        seconds @ 2..=89 => format!("about {seconds} s to go"),
        seconds @ 90..=5_399 => format!("about {} min to go", (seconds + 30) / 60),
        seconds @ 5_400..=172_799 => format!("about {} h to go", (seconds + 1_800) / 3_600),
        seconds => format!("about {} days to go", (seconds + 43_200) / 86_400),
    }
}

/// The sums over runs, in one sentence.
pub(super) fn sums(runs: &[RunView]) -> String {
    let sum = |part: fn(&Run) -> u64| runs.iter().map(|view| part(&view.run)).sum::<u64>();
    let open = runs.iter().filter(|view| view.run.is_open()).count();
    format!(
        "{open} of {} runs open, {} pages, {} listed, {} of {} fetched, {} written, {} parked",
        runs.len(),
        sum(|run| run.pages),
        sum(|run| run.listed),
        sum(|run| run.fetched),
        sum(|run| run.to_fetch),
        sum(|run| run.written),
        sum(Run::parked_in_all),
    )
}

/// Bars on the terminal, one a run, and a line with the sums below.
pub(super) struct Bars {
    group: MultiProgress,
    bars: Vec<ProgressBar>,
    foot: ProgressBar,
    told: Option<Instant>,
    quiet: bool,
}

impl Bars {
    /// `quiet`: draw and tell nothing.
    pub(super) fn new(quiet: bool) -> Bars {
        let group = MultiProgress::new();
        let foot = group.add(ProgressBar::new_spinner().with_style(style("{spinner} {msg}")));
        Bars { group, bars: Vec::new(), foot, told: None, quiet }
    }

    /// Shows the present state; open runs first.
    pub(super) fn show(&mut self, lines: &[Line], sums: &str) {
        if self.quiet {
            return;
        }
        if self.group.is_hidden() {
            if self.told.is_none_or(|at| at.elapsed() >= PLAIN_EVERY) {
                self.told = Some(Instant::now());
                tell(sums);
            }
            return;
        }
        let shown = lines.len().min(BARS_MAX);
        while self.bars.len() < shown {
            let bar = ProgressBar::new(0).with_style(style("{prefix:32!} [{bar:24}] {pos:>6}/{len:<6} {msg}"));
            self.bars.push(self.group.insert_before(&self.foot, bar));
        }
        for (bar, line) in self.bars.iter().zip(lines) {
            bar.set_prefix(line.label.clone());
            bar.set_length(line.of);
            bar.set_position(line.done);
            bar.set_message(line.text.clone());
        }
        let rest = lines.len() - shown;
        let more = if rest > 0 { format!(" ({rest} runs not shown)") } else { String::new() };
        self.foot.set_message(format!("{sums}{more}"));
        self.foot.tick();
    }

    /// Leaves the last state standing.
    pub(super) fn finish(self) {
        self.bars.iter().for_each(ProgressBar::abandon);
        self.foot.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants; a broken one falls back to the plain bar rather than to a panic.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::{forecast, line, sums};
    use crate::domain::document::RunView;
    use crate::domain::{Combination, Mode, Pass, Run, RunState, StreamId, Trigger};

    fn view(state: RunState) -> RunView {
        let combination = Combination(vec![("status".into(), "open".into())]);
        RunView {
            run: Run {
                id: 7,
                stream: StreamId { shop: "s".into(), resource: "orders".into(), combination },
                mode: Mode::Full,
                trigger: Trigger::Schedule,
                state,
                started_at: 0,
                ended_at: None,
                pages: 3,
                listed: 150,
                new: 120,
                changed: 0,
                to_fetch: 120,
                fetched: 40,
                gone: 1,
                parked: 2,
                refused: 0,
                written: 30,
                error: None,
                newest: None,
                pass: Pass::default(),
                drift: false,
                followers: Vec::new(),
                alarmed: false,
                next: None,
            },
            forecast_at: Some(61_000),
            pages_expected: None,
        }
    }

    #[test]
    fn a_run_is_told_in_words() {
        let text = |state| line("Winkel", &view(state), 1_000).text;
        assert_eq!(text(RunState::Walking), "page 3, 150 listed, 120 to fetch, 2 parked");
        assert_eq!(text(RunState::Fetching), "about 60 s to go, 2 parked");
        assert_eq!(text(RunState::Failed), "failed: no reason given, 2 parked");
        let shown = line("Win\u{1b}kel", &view(RunState::Done), 0);
        assert_eq!((shown.label.as_str(), shown.done, shown.of), ("Win·kel orders open", 43, 120));
        assert_eq!(
            sums(&[view(RunState::Walking), view(RunState::Done)]),
            "1 of 2 runs open, 6 pages, 300 listed, 80 of 240 fetched, 60 written, 4 parked"
        );
    }

    #[test]
    fn forecasts_round_to_what_people_say() {
        for (seconds, want) in [
            (-5, "nearly done"),
            (1, "nearly done"),
            (45, "about 45 s to go"),
            (90, "about 2 min to go"),
            (5_400, "about 2 h to go"),
            (200_000, "about 2 days to go"),
        ] {
            assert_eq!(forecast(Some(seconds * 1000), 0), want);
        }
        assert_eq!(forecast(None, 0), "fetching");
    }
}
