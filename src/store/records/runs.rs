//! Runs: started, counted, ended; and the checkpoints that they leave.

use std::collections::BTreeMap;

use crate::domain::{Cause, Checkpoint, Class, JobKind, Mode, Pass, Run, RunState, StreamId, Trigger};
use crate::store::keyspace;
use crate::store::ops::invariants;
use crate::store::ops::parse_alert;
use crate::store::ops::settle::new_job;
use crate::store::ops::unproved;
use crate::store::records::ready_queue::enqueue;
use crate::store::records::run_index;
use crate::store::records::shops;
use crate::store::records::stream_status;
use crate::store::tx::counters::Counter;
use crate::store::tx::notify::Signal;
use crate::store::{Store, StoreError, Tx, decode, encode};

/// Runs kept of all streams together; older ones go when new ones start, unless they are open. See `run_index` for
/// those of one stream.
const RUNS_KEPT: u64 = 100_000;

/// A walk to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    pub stream: StreamId,
    /// To be walked after it, and after all others of its resource that are being walked.
    pub followers: Vec<StreamId>,
}

impl From<StreamId> for Start {
    fn from(stream: StreamId) -> Start {
        Start { stream, followers: Vec::new() }
    }
}

/// What a request to walk a stream came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    Run(u64),
    /// The stream has a run that still walks, or will when that one is done; this is it.
    Already(u64),
}

impl Started {
    /// The run that walks the stream now.
    pub fn run(self) -> u64 {
        match self {
            Started::Run(id) | Started::Already(id) => id,
        }
    }
}

pub(crate) fn read(tx: &Tx<'_>, id: u64) -> Result<Option<Run>, StoreError> {
    tx.get(&keyspace::numbered(b'u', id))?.map(|bytes| decode("a run", &bytes)).transpose()
}

/// Changes a run's record, and closes it when nothing is left to do. A run that is not kept any more
/// is no error.
pub(crate) fn update(
    tx: &mut Tx<'_>,
    id: Option<u64>,
    now: i64,
    change: impl FnOnce(&mut Run),
) -> Result<(), StoreError> {
    let Some(id) = id else { return Ok(()) };
    let Some(mut run) = read(tx, id)? else { return Ok(()) };
    let before = run.clone();
    change(&mut run);
    if run.fetched + run.gone + run.parked > run.to_fetch {
        let what = format!(
            "run {id} asked for {} details and has {} fetched, {} gone and {} parked",
            run.to_fetch, run.fetched, run.gone, run.parked
        );
        invariants::pause_shop(tx, &run.stream.shop, &what, now)?;
    }
    if run.state == RunState::Fetching && run.pending() == 0 {
        run.state = RunState::Done;
    }
    if before.is_open() && !run.is_open() {
        run.alarmed = parse_alert::tell_details(&run);
        run.ended_at = Some(now);
        tx.count(Counter::OpenRuns, -1);
        tx.raise(Signal::Ended(id));
        stream_status::run_ended(tx, &run, now)?;
        count_end(&run);
    } else if !before.is_open() && run.is_open() {
        run.ended_at = None;
        tx.count(Counter::OpenRuns, 1);
    }
    run_index::put(tx, Some(&before), &run)
}

/// Counts a run that ended, for the metrics.
fn count_end(run: &Run) {
    let result = match run.state {
        RunState::Walking | RunState::Fetching => return,
        RunState::Done => "done",
        RunState::Failed => "failed",
        RunState::Canceled => "canceled",
        RunState::Unproved => "unproved",
        RunState::Stopped => "stopped",
    };
    metrics::counter!("waybill_runs_total", "resource" => run.stream.resource.clone(), "result" => result).increment(1);
}

/// What the jobs of one transaction did to the counters of their runs.
#[derive(Default)]
pub(crate) struct RunCounts(BTreeMap<u64, Counts>);

#[derive(Default)]
struct Counts {
    fetched: u64,
    gone: u64,
    written: u64,
}

impl RunCounts {
    pub(crate) fn fetched(&mut self, run: Option<u64>) {
        self.of(run, |counts| counts.fetched += 1);
    }

    pub(crate) fn gone(&mut self, run: Option<u64>) {
        self.of(run, |counts| counts.gone += 1);
    }

    pub(crate) fn written(&mut self, run: Option<u64>) {
        self.of(run, |counts| counts.written += 1);
    }

    fn of(&mut self, run: Option<u64>, change: impl FnOnce(&mut Counts)) {
        if let Some(run) = run {
            change(self.0.entry(run).or_default());
        }
    }

    /// Writes them down, one record a run; part of the same transaction.
    pub(crate) fn apply(self, tx: &mut Tx<'_>, now: i64) -> Result<(), StoreError> {
        for (id, counts) in self.0 {
            update(tx, Some(id), now, |run| {
                run.fetched += counts.fetched;
                run.gone += counts.gone;
                run.written += counts.written;
            })?;
        }
        Ok(())
    }
}

/// Ends a run's walk without success; what it found stays.
pub(crate) fn fail(
    tx: &mut Tx<'_>,
    id: u64,
    stream: &StreamId,
    error: impl Into<Cause>,
    now: i64,
) -> Result<(), StoreError> {
    leave(tx, stream);
    let Cause { class, text } = error.into();
    update(tx, Some(id), now, |run| {
        run.state = RunState::Failed;
        (run.error, run.error_class) = (Some(text), Some(class));
    })?;
    match read(tx, id)? {
        Some(run) => follow(tx, &run, now),
        None => Ok(()),
    }
}

/// The run that walks a stream; none where its record says that it does not, or is gone.
pub(crate) fn walking(tx: &Tx<'_>, stream: &StreamId) -> Result<Option<Run>, StoreError> {
    let Some(bytes) = tx.get(&keyspace::stream(b'v', stream))? else { return Ok(None) };
    Ok(read(tx, decode("a walk", &bytes)?)?.filter(|run| run.state == RunState::Walking))
}

/// Whether some stream of this one's resource is being walked.
fn is_walked(tx: &Tx<'_>, stream: &StreamId) -> Result<bool, StoreError> {
    let prefix = keyspace::texts(b'v', &[&stream.shop, &stream.resource]);
    for pair in tx.pairs(&prefix, &prefix) {
        let run = read(tx, decode("a walk", &pair?.1)?)?;
        if run.is_some_and(|run| run.state == RunState::Walking) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Nothing walks the stream any more.
pub(crate) fn leave(tx: &mut Tx<'_>, stream: &StreamId) {
    tx.delete(keyspace::stream(b'v', stream));
}

/// From the head of its list on.
fn begin(tx: &mut Tx<'_>, id: u64, stream: &StreamId) -> Result<(), StoreError> {
    tx.put(keyspace::stream(b'v', stream), encode("a walk", &id)?);
    first_page(tx, id, stream)
}

/// Begins the run that waited for this one's walk to end. And starts the walks of other streams that did, unless
/// another of their resource is still under way: that one has the same behind it, or the next one has.
pub(crate) fn follow(tx: &mut Tx<'_>, run: &Run, now: i64) -> Result<(), StoreError> {
    if let Some(next) = run.next {
        update(tx, Some(run.id), now, |run| run.next = None)?;
        if read(tx, next)?.is_some_and(|next| next.state == RunState::Walking) {
            // What it meets is told from what the walk before it met, and its days end now.
            update(tx, Some(next), now, |run| run.started_at = now)?;
            begin(tx, next, &run.stream)?;
        }
    }
    if run.followers.is_empty() || is_walked(tx, &run.stream)? {
        return Ok(());
    }
    for follower in &run.followers {
        start(tx, &follower.clone().into(), (run.mode, run.trigger), now)?;
    }
    Ok(())
}

pub(crate) fn checkpoint(tx: &Tx<'_>, stream: &StreamId) -> Result<Checkpoint, StoreError> {
    Ok(tx
        .get(&keyspace::stream(b'k', stream))?
        .map(|bytes| decode("a checkpoint", &bytes))
        .transpose()?
        .unwrap_or_default())
}

/// None: the shop is gone.
pub(crate) fn start(
    tx: &mut Tx<'_>,
    wanted: &Start,
    (mode, trigger): (Mode, Trigger),
    now: i64,
) -> Result<Option<Started>, StoreError> {
    let stream = &wanted.stream;
    if !shops::is_known(tx, &stream.shop)? {
        return Ok(None);
    }
    // Without a whole history there is nothing an early stop could rest on.
    let is_known = checkpoint(tx, stream)?.full_walk_at.is_some() && !unproved::is_unproved(tx, stream)?;
    let mode = if is_known { mode } else { Mode::Full };
    let walking = walking(tx, stream)?;
    match &walking {
        Some(run) if run.mode == mode || run.mode == Mode::Full => return Ok(Some(Started::Already(run.id))),
        Some(Run { next: Some(next), .. }) => {
            update(tx, Some(*next), now, |run| {
                if trigger == Trigger::Request {
                    run.trigger = trigger;
                }
                let more = wanted.followers.iter().filter(|stream| !run.followers.contains(stream));
                let more: Vec<StreamId> = more.cloned().collect();
                run.followers.extend(more);
            })?;
            return Ok(Some(Started::Already(*next)));
        }
        _ => {}
    }
    stream_status::run_starts(tx, stream)?;
    let id = tx.next("run")?;
    // Those of the walk before it wait for this one.
    let mut followers = wanted.followers.clone();
    let earlier = walking.iter().flat_map(|run| &run.followers).filter(|stream| !wanted.followers.contains(stream));
    followers.extend(earlier.cloned());
    let run = Run {
        id,
        stream: stream.clone(),
        mode,
        trigger,
        state: RunState::Walking,
        started_at: now,
        ended_at: None,
        pages: 0,
        listed: 0,
        rejected: 0,
        new: 0,
        changed: 0,
        to_fetch: 0,
        fetched: 0,
        gone: 0,
        parked: 0,
        written: 0,
        refused: 0,
        error: None,
        error_class: None,
        newest: None,
        pass: Pass::default(),
        drift: false,
        followers,
        alarmed: false,
        doubts: Vec::new(),
        next: None,
    };
    run_index::put(tx, None, &run)?;
    run_index::note_started(tx, id);
    run_index::trim_stream(tx, &run, now)?;
    tx.count(Counter::OpenRuns, 1);
    match walking {
        // A walk for news does not look at all: the whole one that is wanted comes after it.
        Some(before) => update(tx, Some(before.id), now, |run| run.next = Some(id))?,
        None => begin(tx, id, stream)?,
    }
    if let Some(old) = id.checked_sub(RUNS_KEPT) {
        run_index::delete_if_unneeded(tx, old, |_| false)?;
    }
    tx.raise(Signal::Progress);
    Ok(Some(Started::Run(id)))
}

/// Asks for the head of a run's list.
pub(crate) fn first_page(tx: &mut Tx<'_>, run: u64, stream: &StreamId) -> Result<(), StoreError> {
    let kind = JobKind::ListPage {
        run,
        combination: stream.combination.clone(),
        page: 1,
        cursor: None,
        previous: None,
        mark: None,
    };
    let job = new_job(tx, &stream.shop, &stream.resource, Class::List, kind)?;
    enqueue(tx, &job)
}

impl Store {
    /// Starts a walk over each stream that has none open, or none that goes as far. Streams of shops that are gone
    /// are left out.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn start_runs(
        &self,
        wanted: impl IntoIterator<Item = impl Into<Start>>,
        mode: Mode,
        trigger: Trigger,
    ) -> Result<Vec<Started>, StoreError> {
        let now = self.now();
        let wanted: Vec<Start> = wanted.into_iter().map(Into::into).collect();
        self.transact(move |tx| {
            wanted.iter().filter_map(|start| self::start(tx, start, (mode, trigger), now).transpose()).collect()
        })
        .await
    }

    /// One run.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn run(&self, id: u64) -> Result<Option<Run>, StoreError> {
        self.0.kv.get(&keyspace::numbered(b'u', id))?.map(|bytes| decode("a run", &bytes)).transpose()
    }

    /// Runs that are wanted, newest first, below the id `before`, at most `limit`.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn runs(
        &self,
        before: Option<u64>,
        limit: usize,
        wanted: impl Fn(&Run) -> bool,
    ) -> Result<Vec<Run>, StoreError> {
        let end = before.map_or_else(|| keyspace::after(b"u"), |before| keyspace::numbered(b'u', before));
        let mut found = Vec::new();
        for pair in self.0.kv.scan_back(b"u", &end) {
            if found.len() == limit {
                break;
            }
            let run: Run = decode("a run", &pair?.1)?;
            if wanted(&run) {
                found.push(run);
            }
        }
        Ok(found)
    }

    /// A stream's durable progress.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn checkpoint(&self, stream: &StreamId) -> Result<Checkpoint, StoreError> {
        let bytes = self.0.kv.get(&keyspace::stream(b'k', stream))?;
        Ok(bytes.map(|bytes| decode("a checkpoint", &bytes)).transpose()?.unwrap_or_default())
    }
}
