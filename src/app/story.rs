//! Log lines about runs that end.

use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::domain::{Run, RunId, RunState};
use crate::store::Store;

/// How long the log line of a run waits for its documents to reach the sink.
const WRITTEN_PATIENCE: Duration = Duration::from_secs(10);
/// Interval of checking whether they have.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Logs each run that ends, once its documents are in the sink or [`WRITTEN_PATIENCE`] has passed.
pub(super) async fn log_runs(store: Store, mut ended: UnboundedReceiver<RunId>, stop: CancellationToken) {
    let mut waiting: Vec<(RunId, Instant)> = Vec::new();
    let mut looks = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            run = ended.recv() => match run {
                Some(run) => waiting.push((run, Instant::now())),
                None => break,
            },
            _ = looks.tick(), if !waiting.is_empty() => {}
        }
        waiting.retain(|(run, since)| !log_run(&store, *run, since.elapsed() >= WRITTEN_PATIENCE));
    }
    while let Ok(run) = ended.try_recv() {
        waiting.push((run, Instant::now()));
    }
    for (run, _) in waiting {
        log_run(&store, run, true);
    }
}

/// Logs a run, unless it should wait for its documents; false if so.
fn log_run(store: &Store, id: RunId, at_once: bool) -> bool {
    // A run that a retry reopened is logged when it ends again.
    let Some(run) = store.run(id).ok().flatten().filter(|run| !run.is_open()) else { return true };
    if run.state == RunState::Done && run.written + run.refused < run.fetched && !at_once {
        return false;
    }
    log(&run);
    true
}

fn log(run: &Run) {
    let seconds = run.ended_at.map_or(0, |end| end.since(run.started_at).as_secs());
    let (mode, result) = (text(&run.mode), text(&run.state));
    let parameters = run.stream.combination.to_string();
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                run.id = run.id.number(),
                shop.id = run.stream.shop.as_str(),
                resource = run.stream.resource,
                parameters,
                mode,
                result,
                pages = run.pages,
                listed = run.listed,
                fetched = run.fetched,
                written = run.written,
                parked = run.parked_in_all(),
                seconds,
                error = run.error.as_deref(),
                "run ended"
            )
        };
    }
    match run.state {
        RunState::Failed | RunState::Unproved | RunState::Stopped => line!(warn),
        RunState::Walking | RunState::Fetching | RunState::Done | RunState::Canceled => line!(info),
    }
}

/// The JSON name of a value.
fn text(value: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}
