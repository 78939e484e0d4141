//! Starting runs, and what follows when the walk of one ends.

use crate::domain::{Cause, ListPage, Mode, Priority, Run, RunId, RunState, StreamId, Timestamp, Trigger};
use crate::store::codec::encode;
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::ops::run_progress;
use crate::store::ops::stream_status;
use crate::store::records::checkpoints;
use crate::store::records::jobs::new_job;
use crate::store::records::ready_queue::enqueue;
use crate::store::records::runs;
use crate::store::records::shops;
use crate::store::records::unproved;
use crate::store::tx::counters::Counter;
use crate::store::tx::handle::Store;
use crate::store::tx::notify::Signal;
use crate::store::tx::transaction::Tx;

/// Runs kept of all streams together; older ones are deleted when new ones start, unless they are open. See
/// `records::runs` for those of one stream.
pub(crate) const RUNS_KEPT: u64 = 100_000;

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

/// Result of a request to walk a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    Run(RunId),
    /// The stream has a run that still walks, or will when that one is done; this is it.
    Already(RunId),
}

impl Started {
    /// The run that walks the stream now.
    pub fn run(self) -> RunId {
        match self {
            Started::Run(id) | Started::Already(id) => id,
        }
    }
}

/// Ends a run's walk without success; what it found stays.
pub(crate) fn fail(
    tx: &mut Tx<'_>,
    id: RunId,
    stream: &StreamId,
    error: impl Into<Cause>,
    now: Timestamp,
) -> Result<(), StoreError> {
    runs::leave(tx, stream);
    let Cause { class, text } = error.into();
    run_progress::update(tx, Some(id), now, |run| {
        run.state = RunState::Failed;
        (run.error, run.error_class) = (Some(text), Some(class));
    })?;
    match runs::read(tx, id)? {
        Some(run) => follow(tx, &run, now),
        None => Ok(()),
    }
}

/// Starts at the head of its list.
pub(crate) fn begin(tx: &mut Tx<'_>, id: RunId, stream: &StreamId) -> Result<(), StoreError> {
    tx.put(keyspace::walk(stream), encode("a walk", &id)?);
    first_page(tx, id, stream)
}

/// Starts the run that waited for this one's walk to end, and the walks of other streams that did, unless another walk
/// of their resource is still under way: they follow that one.
pub(crate) fn follow(tx: &mut Tx<'_>, run: &Run, now: Timestamp) -> Result<(), StoreError> {
    if let Some(next) = run.next {
        run_progress::update(tx, Some(run.id), now, |run| run.next = None)?;
        if runs::read(tx, next)?.is_some_and(|next| next.state == RunState::Walking) {
            // Its start separates its rows from those of the walk before it, and its date window ends now.
            run_progress::update(tx, Some(next), now, |run| run.started_at = now)?;
            begin(tx, next, &run.stream)?;
        }
    }
    if run.followers.is_empty() || runs::is_walked(tx, &run.stream)? {
        return Ok(());
    }
    for follower in &run.followers {
        start(tx, &follower.clone().into(), run.mode, run.trigger, now)?;
    }
    Ok(())
}

/// Starts a walk over a stream, unless one is under way that goes as far. None: the shop is gone.
pub(crate) fn start(
    tx: &mut Tx<'_>,
    wanted: &Start,
    mode: Mode,
    trigger: Trigger,
    now: Timestamp,
) -> Result<Option<Started>, StoreError> {
    let stream = &wanted.stream;
    if !shops::is_known(tx, &stream.shop)? {
        return Ok(None);
    }
    // Only a complete earlier walk allows an early stop.
    let is_known = checkpoints::checkpoint(tx, stream)?.full_walk_at.is_some() && !unproved::is_unproved(tx, stream)?;
    let mode = if is_known { mode } else { Mode::Full };
    let walking = runs::walking(tx, stream)?;
    match &walking {
        Some(run) if run.mode == mode || run.mode == Mode::Full => return Ok(Some(Started::Already(run.id))),
        Some(Run { next: Some(next), .. }) => {
            run_progress::update(tx, Some(*next), now, |run| {
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
    let id = runs::next_id(tx)?;
    // Those of the walk before it wait for this one.
    let mut followers = wanted.followers.clone();
    let earlier = walking.iter().flat_map(|run| &run.followers).filter(|stream| !wanted.followers.contains(stream));
    followers.extend(earlier.cloned());
    let run = Run { followers, ..Run::new(id, stream.clone(), mode, trigger, now) };
    runs::put(tx, None, &run)?;
    runs::note_started(tx, id);
    runs::trim_stream(tx, &run, now)?;
    tx.count(Counter::OpenRuns, 1);
    match walking {
        // The walk under way is incremental: the full one that is wanted comes after it.
        Some(before) => run_progress::update(tx, Some(before.id), now, |run| run.next = Some(id))?,
        None => begin(tx, id, stream)?,
    }
    if let Some(old) = id.number().checked_sub(RUNS_KEPT) {
        runs::delete_if_unneeded(tx, RunId::from_number(old), |_| false)?;
    }
    tx.raise(Signal::Progress);
    Ok(Some(Started::Run(id)))
}

/// Asks for the head of a run's list.
pub(crate) fn first_page(tx: &mut Tx<'_>, run: RunId, stream: &StreamId) -> Result<(), StoreError> {
    let combination = stream.combination.clone();
    let page = ListPage { run, combination, page: 1, cursor: None, previous: None, anchor: None };
    let job = new_job(tx, &stream.shop, &stream.resource, Priority::List, page)?;
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
            wanted.iter().filter_map(|start| self::start(tx, start, mode, trigger, now).transpose()).collect()
        })
        .await
    }
}
