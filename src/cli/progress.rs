//! Progress of runs, as text and as bars.
//!
//! Plain functions over [`RunView`]s make the text; [`Bars`] only draws. Bars go to standard error, and only to a
//! terminal; otherwise a plain line shows the totals from time to time.

use std::time::{Duration, Instant};

use console::{Term, measure_text_width, truncate_str};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use jiff::SignedDuration;
use jiff::tz::TimeZone;

use super::bars_stderr;
use super::output::print_stderr;
use super::table::{Mark, clean, wrap};
use crate::domain::document::RunView;
use crate::domain::{Run, RunState, Timestamp, Wait, counted, rough_duration};

/// More bars than this would scroll; the last line counts those not shown.
const BARS_MAX: usize = 12;
/// A shop's name shorter than this is left out.
const SHOP_MIN: usize = 4;
/// Most kinds of waits that one line names.
const WAITS_MAX: usize = 3;
/// Width of the counts of a bar; of one with a message narrower than [`WIDE`].
const COUNTS: usize = 11;
const COUNTS_MIN: usize = 7;
const WIDE: usize = 60;
/// Interval of the plain lines without a terminal.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// One line of progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The shop's name, which may be cut. Empty: all shops.
    pub(super) shop: String,
    /// The stream's name.
    pub(super) stream: String,
    pub(super) done: u64,
    pub(super) of: u64,
    pub(super) text: String,
    /// For a terminal on which the text does not fit.
    pub(super) short: String,
    pub(super) mark: Mark,
}

impl Line {
    /// Position and length of the bar: full only if there was work and all of it is done.
    fn bar(&self) -> (u64, u64) {
        match (self.of, self.mark) {
            (0, _) => (0, 1),
            (of, Mark::Bad | Mark::Unsure) => (self.done.min(of), of + 1),
            (of, _) => (self.done.min(of), of),
        }
    }

    /// Both names within a width: all of the stream, and as much of the shop as fits.
    fn label(&self, columns: usize) -> String {
        let room = columns.saturating_sub(measure_text_width(&self.stream) + 1);
        let shop = if room < SHOP_MIN { "" } else { &truncate_str(&self.shop, room, "…") };
        truncate_str(format!("{shop} {}", self.stream).trim_start(), columns, "…").into_owned()
    }

    /// The counts and the text within a width: all of the text, or the short one.
    fn message(&self, columns: usize) -> String {
        let counts = if self.of == 0 { String::new() } else { format!("{}/{}", self.done, self.of) };
        let room = if columns < WIDE { COUNTS_MIN } else { COUNTS };
        let counts = format!("{counts:>room$}  ");
        let left = columns.saturating_sub(counts.len());
        let text = if measure_text_width(&self.text) <= left { &self.text } else { &self.short };
        format!("{counts}{}", truncate_str(text, left, "…"))
    }
}

/// The progress line of one run. `shop` is the shop's name.
pub(super) fn line(shop: &str, view: &RunView, now: Timestamp) -> Line {
    let run = &view.run;
    let ended = |word: &str| format!("{word}: {}", clean(run.error.as_deref().unwrap_or("no reason given")));
    let mut short = match run.state {
        RunState::Walking => format!("page {}, {} listed", run.pages, run.listed),
        RunState::Done => format!("done: {} listed", run.listed),
        _ => String::new(),
    };
    let (mut text, mark) = match run.state {
        RunState::Walking => (walking(view, now), Mark::Plain),
        RunState::Fetching => (forecast(view.forecast_at, now), Mark::Plain),
        RunState::Done if run.parked_in_all() > 0 => (done(run), Mark::Unsure),
        RunState::Done => (done(run), Mark::Good),
        RunState::Failed => (ended("failed"), Mark::Bad),
        RunState::Canceled => ("canceled".to_owned(), Mark::Unsure),
        RunState::Unproved => (ended("unproved"), Mark::Unsure),
        RunState::Stopped => (ended("stopped"), Mark::Bad),
    };
    if run.parked_in_all() > 0 {
        let parked = format!(", {} parked", run.parked_in_all());
        text.push_str(&parked);
        if !short.is_empty() {
            short.push_str(&parked);
        }
    }
    if short.is_empty() {
        short.clone_from(&text);
    }
    if let Some(wait) = &view.waits_for {
        short = clean(&short_wait(wait, &TimeZone::system()));
        text = format!("waits for {}; {text}", clean(&waiting(wait)));
    }
    let combination = run.stream.combination.to_string();
    let stream = if combination.is_empty() { run.stream.resource.clone() } else { values(run) };
    Line {
        shop: clean(shop),
        stream: clean(&stream),
        done: run.fetched + run.gone + run.parked,
        of: run.to_fetch,
        text,
        short,
        mark,
    }
}

/// `to 14:05:09 UTC: the rate limit`: the time first, which a narrow terminal must not cut off.
fn short_wait(wait: &Wait, zone: &TimeZone) -> String {
    match wait.until.and_then(|at| wall_clock(at, zone)) {
        Some(at) => format!("to {at}: {}", wait.text),
        None => format!("waits for {}", wait.text),
    }
}

/// Hours, minutes and seconds with the time zone, rounded up to whole seconds.
fn wall_clock(at: Timestamp, zone: &TimeZone) -> Option<String> {
    let at = jiff::Timestamp::from_millisecond(at.as_millis()).ok()? + SignedDuration::from_millis(999);
    Some(at.to_zoned(zone.clone()).strftime("%H:%M:%S %Z").to_string())
}

/// `the rate limit until 14:05:09 CET`, in this machine's time zone.
fn waiting(wait: &Wait) -> String {
    waiting_in(wait, &TimeZone::system())
}

fn waiting_in(Wait { until, text, .. }: &Wait, zone: &TimeZone) -> String {
    match until.and_then(|at| wall_clock(at, zone)) {
        Some(at) => format!("{text} until {at}"),
        None => text.clone(),
    }
}

/// What open runs wait for, the shortest waits first, for the line below the bars and for logs; empty: nothing.
pub(super) fn waits(runs: &[RunView]) -> String {
    let mut waits: Vec<(&Wait, u64)> = Vec::new();
    for wait in runs.iter().filter_map(|view| view.waits_for.as_ref()) {
        match waits.iter_mut().find(|(known, _)| known.text == wait.text) {
            Some((known, count)) => {
                *count += 1;
                if wait.until.is_some() && (known.until.is_none() || wait.until < known.until) {
                    *known = wait;
                }
            }
            None => waits.push((wait, 1)),
        }
    }
    waits.sort_by_key(|(wait, _)| (wait.until.is_none(), wait.until));
    let parts: Vec<String> = waits
        .iter()
        .take(WAITS_MAX)
        .map(|(wait, runs)| format!("{runs} {} for {}", if *runs == 1 { "waits" } else { "wait" }, waiting(wait)))
        .collect();
    if parts.is_empty() { String::new() } else { clean(&format!("; {}", parts.join(", "))) }
}

fn done(run: &Run) -> String {
    format!("done: {} listed, {} fetched", run.listed, run.fetched)
}

fn walking(view: &RunView, now: Timestamp) -> String {
    let run = &view.run;
    let end = view.forecast_at.map(|at| format!(", {}", forecast(Some(at), now))).unwrap_or_default();
    let pages = view.pages_expected.map(|pages| format!(" of about {pages}")).unwrap_or_default();
    format!("page {}{pages}, {} listed, {} to fetch{end}", run.pages, run.listed, run.to_fetch)
}

/// `orders open`: the resource and the values of its list parameters.
fn values(run: &Run) -> String {
    let values: Vec<&str> = run.stream.combination.0.iter().map(|(_, value)| value.as_str()).collect();
    format!("{} {}", run.stream.resource, values.join(" "))
}

/// When a run will be done, in words.
pub(super) fn forecast(at: Option<Timestamp>, now: Timestamp) -> String {
    let Some(at) = at else { return "fetching".to_owned() };
    let left = at.since(now);
    if left < Duration::from_secs(2) {
        return "nearly done".to_owned();
    }
    format!("about {} to go", rough_duration(left))
}

/// The totals over runs, in one sentence.
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

/// Widths of a progress line's parts, so that it never wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LineLayout {
    label: usize,
    bar: usize,
}

impl LineLayout {
    fn of(width: usize) -> LineLayout {
        match width {
            120.. => LineLayout { label: 36, bar: 24 },
            80.. => LineLayout { label: 24, bar: 10 },
            50.. => LineLayout { label: 22, bar: 8 },
            _ => LineLayout { label: width / 3, bar: 3 },
        }
    }

    /// What is left for the message: names and bar have five columns of spaces and brackets.
    fn message(self, width: usize) -> usize {
        width.saturating_sub(self.label + self.bar + 5)
    }

    fn style(self, mark: Mark) -> ProgressStyle {
        let LineLayout { label, bar } = self;
        let color = match mark {
            Mark::Plain => "",
            Mark::Good => ".green",
            Mark::Unsure => ".yellow",
            Mark::Bad => ".red",
        };
        style(&format!("{{prefix:{label}{color}}} [{{bar:{bar}{color}}}] {{wide_msg}}"))
    }
}

/// Bars on the terminal, one per run, and a line with the totals below.
pub(super) struct Bars {
    group: MultiProgress,
    bars: Vec<ProgressBar>,
    foot: ProgressBar,
    printed_at: Option<Instant>,
    /// Without a terminal: a line that was not printed yet, as one was just before.
    unprinted: Option<String>,
    /// Without a terminal: the error that was printed last, which need not be repeated in each line.
    said: Option<String>,
    quiet: bool,
    /// Width of the terminal at the last draw.
    width: usize,
}

impl Bars {
    /// `quiet`: draws and prints nothing.
    pub(super) fn new(quiet: bool) -> Bars {
        let group = MultiProgress::new();
        let foot = group.add(ProgressBar::new_spinner().with_style(style("{spinner} {msg}")));
        let (printed_at, unprinted, said) = (None, None, None);
        Bars { group, bars: Vec::new(), foot, printed_at, unprinted, said, quiet, width: 0 }
    }

    /// Shows the current state; open runs come first. `error` is what the end of `sums` is about.
    pub(super) fn show(&mut self, lines: &[Line], sums: &str, error: Option<&str>) {
        if self.quiet {
            return;
        }
        let full = error.map_or_else(|| sums.to_owned(), |error| format!("{sums}: {}", clean(error)));
        if self.group.is_hidden() {
            let text = if error.is_some() && self.said.as_deref() == error { sums.to_owned() } else { full };
            if text.is_empty() || self.printed_at.is_some_and(|at| at.elapsed() < PLAIN_EVERY) {
                self.unprinted = Some(text).filter(|text| !text.is_empty());
                return;
            }
            (self.printed_at, self.unprinted) = (Some(Instant::now()), None);
            self.said = error.map(str::to_owned);
            print_stderr(text);
            return;
        }
        let sums = full;
        bars_stderr::set(Some(self.group.clone()));
        let (rows, columns) = Term::stderr().size();
        self.resized(usize::from(columns));
        let layout = LineLayout::of(self.width);
        let wrapped = |more: &str| wrap(&format!("{sums}{more}"), self.width.saturating_sub(3), 0);
        let room = usize::from(rows).saturating_sub(1 + wrapped("").len());
        let shown = lines.len().min(BARS_MAX).min(room);
        while self.bars.len() < shown {
            self.bars.push(self.group.insert_before(&self.foot, ProgressBar::new(1)));
        }
        for (bar, line) in self.bars.iter().zip(lines) {
            let (position, length) = line.bar();
            bar.set_style(layout.style(line.mark));
            bar.set_prefix(line.label(layout.label));
            bar.set_length(length);
            bar.set_position(position);
            bar.set_message(line.message(layout.message(self.width)));
        }
        let rest = lines.len() - shown;
        let more = match rest {
            0 => String::new(),
            rest => format!(" ({} not shown)", counted(rest, "run", "runs")),
        };
        let foot = wrapped(&more).join("\n  ");
        self.foot.set_message(foot);
        self.foot.tick();
    }

    /// Clears the screen if the terminal became narrower: it may have wrapped the bars into more lines than will be
    /// erased.
    fn resized(&mut self, width: usize) {
        if width < self.width {
            Term::stderr().clear_screen().ok();
        }
        self.width = width;
    }

    /// Leaves the last state on the screen, or prints it.
    pub(super) fn finish(self) {
        if let Some(text) = &self.unprinted {
            print_stderr(text);
        }
        bars_stderr::set(None);
        self.bars.iter().for_each(ProgressBar::abandon);
        self.foot.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants; an invalid one falls back to the default bar instead of a panic.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::{Line, LineLayout, forecast, line, sums, waiting_in, waits};
    use crate::cli::table::Mark;
    use crate::domain::document::RunView;
    use crate::domain::{ListParams, Mode, Run, RunId, RunState, StreamId, Timestamp, Trigger, Wait, WaitReason};

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn view(state: RunState) -> RunView {
        let combination = ListParams(vec![("status".into(), "open".into())]);
        let stream = StreamId { shop: "s".into(), resource: "orders".into(), combination };
        RunView {
            run: Run {
                state,
                pages: 3,
                listed: 150,
                new: 120,
                to_fetch: 120,
                fetched: 40,
                gone: 1,
                parked: 2,
                written: 30,
                ..Run::new(RunId::from_number(7), stream, Mode::Full, Trigger::Schedule, Timestamp::EPOCH)
            },
            forecast_at: Some(at(61_000)),
            pages_expected: None,
            waits_for: None,
        }
    }

    #[test]
    fn a_run_is_described_by_state_counts_and_forecast() {
        let text = |state| line("Winkel", &view(state), at(1_000)).text;
        assert_eq!(text(RunState::Walking), "page 3, 150 listed, 120 to fetch, about 60 s to go, 2 parked");
        assert_eq!(text(RunState::Fetching), "about 60 s to go, 2 parked");
        assert_eq!(text(RunState::Failed), "failed: no reason given, 2 parked");
        let shown = line("Win\u{1b}kel", &view(RunState::Done), Timestamp::EPOCH);
        assert_eq!((shown.label(40).as_str(), shown.done, shown.of), ("Win·kel orders open", 43, 120));
        assert_eq!(
            sums(&[view(RunState::Walking), view(RunState::Done)]),
            "1 of 2 runs open, 6 pages, 300 listed, 80 of 240 fetched, 60 written, 4 parked"
        );
    }

    #[test]
    fn a_run_says_what_it_waits_for_and_until_when() {
        let wait = |reason, until, text: &str| Wait { reason, until, text: text.to_owned() };
        let limit = wait(WaitReason::RateLimit, Some(at(1_700_000_000_001)), "the rate limit");
        assert_eq!(waiting_in(&limit, &TimeZone::UTC), "the rate limit until 22:13:21 UTC");
        let api = wait(WaitReason::Api, None, "the API: 503");
        let run = |wait: &Wait| RunView { waits_for: Some(wait.clone()), ..view(RunState::Walking) };
        assert!(line("Winkel", &run(&api), at(1_000)).text.starts_with("waits for the API: 503; page 3, 150 listed"));
        let said = waits(&[run(&api), run(&limit), run(&limit), view(RunState::Done)]);
        assert!(
            said.starts_with("; 2 wait for the rate limit until ") && said.ends_with(", 1 waits for the API: 503"),
            "{said}"
        );
        assert_eq!(waits(&[view(RunState::Walking)]), "");
    }

    #[test]
    fn a_walk_says_how_many_pages_there_are_about() {
        let walking = RunView { pages_expected: Some(20), forecast_at: None, ..view(RunState::Walking) };
        assert_eq!(
            line("Winkel", &walking, Timestamp::EPOCH).text,
            "page 3 of about 20, 150 listed, 120 to fetch, 2 parked"
        );
    }

    #[test]
    fn a_bar_is_full_only_when_something_was_there_and_all_is_done() {
        let bar = |done, of, mark| {
            let line = Line {
                shop: String::new(),
                stream: "s".into(),
                done,
                of,
                text: String::new(),
                short: String::new(),
                mark,
            };
            let (position, length) = line.bar();
            position == length
        };
        assert!(bar(5, 5, Mark::Good) && !bar(4, 5, Mark::Plain));
        assert!(!bar(0, 0, Mark::Plain) && !bar(0, 0, Mark::Good) && !bar(0, 0, Mark::Bad));
        assert!(!bar(5, 5, Mark::Bad) && !bar(5, 5, Mark::Unsure));
    }

    #[test]
    fn a_label_fits_and_keeps_the_stream() {
        let mut shown = line("A shop with quite a long name", &view(RunState::Walking), Timestamp::EPOCH);
        for width in [10, 40, 60, 80, 160] {
            let LineLayout { label, bar } = LineLayout::of(width);
            let text = shown.label(label);
            assert!(console::measure_text_width(&text) <= label && label + bar + 4 <= width, "{width}: {text}");
        }
        assert_eq!(shown.label(LineLayout::of(80).label), "A shop with… orders open");
        shown.shop = String::new();
        assert_eq!(shown.label(20), "orders open");
    }

    #[test]
    fn at_80_columns_a_message_is_short_and_not_cut() {
        let room = LineLayout::of(80).message(80);
        let wait = Wait {
            reason: WaitReason::RateLimit,
            until: Some(at(1_700_000_000_001)),
            text: "the rate limit".to_owned(),
        };
        let waiting = RunView { waits_for: Some(wait), ..view(RunState::Walking) };
        let mut failed = view(RunState::Failed);
        failed.run.error = Some("the API is not available (503), and says much about it".to_owned());
        let cut = line("Winkel", &failed, at(1_000)).message(room);
        assert!(console::measure_text_width(&cut) <= room && cut.ends_with('…'), "{cut}");
        for (shown, part) in [
            (view(RunState::Walking), "page 3, 150 listed, 2 parked"),
            (view(RunState::Done), "done: 150 listed, 2 parked"),
            (waiting, ": the rate limit"),
        ] {
            let message = line("Winkel", &shown, at(1_000)).message(room);
            assert!(console::measure_text_width(&message) <= room && message.contains(part), "{message}");
        }
    }

    #[test]
    fn a_forecast_is_a_rough_duration() {
        for (seconds, want) in [
            (-5, "nearly done"),
            (1, "nearly done"),
            (45, "about 45 s to go"),
            (119, "about 119 s to go"),
            (5_400, "about 90 min to go"),
            (200_000, "about 2 days to go"),
        ] {
            assert_eq!(forecast(Some(at(seconds * 1000)), Timestamp::EPOCH), want);
        }
        assert_eq!(forecast(None, Timestamp::EPOCH), "fetching");
    }
}
