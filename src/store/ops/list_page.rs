//! Applies a list page: ledger rows, jobs for new and changed ones, and the next page or the end of the pass
//! ([`crate::store::ops::passes`]).
//!
//! Called inside a transaction when a page's attempt settles.

use std::collections::BTreeMap;

use crate::domain::{
    Cause, Doubt, FetchDetail, FetchedDocument, Job, JobSeq, ListPage, Mode, Next, Page, Pass, Priority, Rejected, Row,
    Run, RunId, RunState, StreamId, Timestamp, Trigger, WalkRule,
};
use crate::store::codec::{decode, encode};
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::ops::detail;
use crate::store::ops::park;
use crate::store::ops::parse_alert;
use crate::store::ops::passes;
use crate::store::ops::run_progress;
use crate::store::ops::start_run;
use crate::store::records::checkpoints;
use crate::store::records::detail_proofs;
use crate::store::records::jobs::new_job;
use crate::store::records::ledger::{self, RowNote};
use crate::store::records::outbox;
use crate::store::records::ready_queue::{enqueue, enqueue_alike};
use crate::store::records::runs;
use crate::store::tx::transaction::Tx;

/// Pages of one walk; bounds an API that never ends a list.
const PAGES_MAX: u64 = 100_000;
/// Rows looked at for one that is below the end of a walk for news.
const LOOKED_MAX: usize = 500;
/// Unreadable pages that one walk skips.
const SKIPPED_MAX: usize = 20;

/// A page whose rows' bodies, if any, are sealed.
pub(crate) type SealedPage = Page<Vec<u8>>;

/// Counts of one page, for the run's counters and for the decision whether the walk continues.
#[derive(Default)]
struct PageStats {
    /// Rows that this run had not met yet.
    listed: u64,
    pass: Pass,
    new: u64,
    changed: u64,
    to_fetch: u64,
    newest: Option<Timestamp>,
    /// Some row is younger than the overlap, or no row has a time.
    young: bool,
}

/// Whether a page is one that this pass has seen already. A circle of any length is found before the walk has gone three
/// times around it: once a page whose number is a power of two lies in it, and the next such is further than it is long.
fn repeats(asked: &ListPage, page: &SealedPage, resource: &str) -> Option<String> {
    let number = asked.page;
    let is_same = |other: &Option<String>| number > 1 && !page.rows.is_empty() && other.as_ref() == Some(&page.digest);
    if is_same(&asked.previous) {
        return Some(format!(
            "page {number} is equal to the page before it: the API seems to ignore the page parameter; if it shows its \
             last page again behind the end, add end = {{ repeat = true }} to [resource.{resource}.list]"
        ));
    }
    is_same(&asked.anchor).then(|| format!("page {number} is equal to an earlier one: the list leads in a circle"))
}

/// Applies a page that was read, unless its walk has ended.
pub(crate) fn apply(
    tx: &mut Tx<'_>,
    asked: ListPage,
    page: SealedPage,
    rule: WalkRule,
    now: Timestamp,
) -> Result<(), StoreError> {
    let Some(run) = walking(tx, &asked)? else { return Ok(()) };
    if let (1, Some(endpoint)) = (asked.page, rule.endpoint) {
        detail_proofs::note_endpoint(tx, &run.stream.shop, &run.stream.resource, endpoint)?;
    }
    if let Some(error) = repeats(&asked, &page, &run.stream.resource) {
        return start_run::fail(tx, run.id, &run.stream, error, now);
    }
    let mut stats = note_rows(tx, &run, &page.rows, rule, now)?;
    let Refused { rejected, parked } = note_rejected(tx, &run, &page.rejected, now)?;
    // Rows that were parked earlier were logged then.
    let alarmed = parse_alert::warn_of_rows(&run, parked, (page.rows.len() + page.rejected.len()) as u64);
    stats.to_fetch += rejected;
    stats.listed += rejected;
    stats.pass.unreadable |= page.rejected.iter().any(|row| row.unreadable.is_some());
    let settled = rule.newest_first && run.mode == Mode::Incremental && stats.new + stats.changed == 0 && !stats.young;
    // Pages below the stopping point are not read, so a doubt about them does not matter.
    let doubt =
        page.doubt.filter(|_| !settled).map(|reason| Doubt { page: asked.page, reason, class: None, skipped: false });
    run_progress::update(tx, Some(run.id), now, |run| {
        run.pages += 1;
        run.listed += stats.listed;
        run.rejected += rejected;
        run.doubts.extend(doubt);
        run.pass = Pass { pages: run.pass.pages + 1, ..stats.pass };
        run.new += stats.new;
        run.changed += stats.changed;
        run.to_fetch += stats.to_fetch;
        run.parked += rejected;
        run.alarmed = alarmed;
        run.newest = run.newest.max(stats.newest);
    })?;
    match page.next {
        Next::More { .. } if !settled && asked.page >= PAGES_MAX => {
            let error = format!("the list did not end within {PAGES_MAX} pages");
            start_run::fail(tx, run.id, &run.stream, error, now)
        }
        Next::More { cursor } if !settled => {
            let anchor = if asked.page.is_power_of_two() { Some(page.digest.clone()) } else { asked.anchor };
            let next = ListPage { page: asked.page + 1, cursor, previous: Some(page.digest), anchor, ..asked };
            enqueue_page(tx, &run.stream, next)
        }
        Next::End if rule.newest_first && run.mode == Mode::Incremental && !settled => {
            go_on_below(tx, run.id, now)?;
            passes::end_pass(tx, run.id, asked.page, rule, now)
        }
        Next::More { .. } | Next::End => passes::end_pass(tx, run.id, asked.page, rule, now),
    }
}

/// Continues behind a page that is given up: one bad page must not hide all those after it. False: the walk ends here,
/// since the page before was given up too, or too many were.
pub(crate) fn pass_over(
    tx: &mut Tx<'_>,
    asked: ListPage,
    next: Next,
    reason: &Cause,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let Next::More { cursor } = next else { return Ok(false) };
    let Some(run) = walking(tx, &asked)? else { return Ok(false) };
    let number = asked.page;
    let skipped = || run.doubts.iter().filter(|doubt| doubt.skipped);
    if skipped().any(|doubt| doubt.page + 1 == number) || skipped().count() >= SKIPPED_MAX || number >= PAGES_MAX {
        return Ok(false);
    }
    let doubt = Doubt { page: number, reason: reason.text.clone(), class: Some(reason.class), skipped: true };
    run_progress::update(tx, Some(run.id), now, |run| run.doubts.push(doubt))?;
    enqueue_page(tx, &run.stream, ListPage { page: number + 1, cursor, previous: None, ..asked })?;
    Ok(true)
}

/// The run of a page, while it walks.
fn walking(tx: &Tx<'_>, asked: &ListPage) -> Result<Option<Run>, StoreError> {
    Ok(runs::read(tx, asked.run)?.filter(|run| run.state == RunState::Walking))
}

fn enqueue_page(tx: &mut Tx<'_>, stream: &StreamId, page: ListPage) -> Result<(), StoreError> {
    let job = new_job(tx, &stream.shop, &stream.resource, Priority::List, page)?;
    enqueue(tx, &job)
}

/// Starts a full walk when an incremental one reached the end of a newest-first list too early: without a page where it
/// may stop, although older rows were listed before. The API may have answered one page with nothing. If no row was new or
/// changed, the next incremental walk goes as far as this one should have.
fn go_on_below(tx: &mut Tx<'_>, run_id: RunId, now: Timestamp) -> Result<(), StoreError> {
    let Some(run) = runs::read(tx, run_id)? else { return Ok(()) };
    let Some(oldest) = run.pass.oldest.filter(|_| run.new + run.changed > 0) else { return Ok(()) };
    // It may have ended above the newest row of the last walk.
    let newest = checkpoints::checkpoint(tx, &run.stream)?.newest;
    if newest.is_some_and(|newest| oldest > newest) || has_older_row(tx, &run.stream, oldest)? {
        start_run::start(tx, &run.stream.into(), Mode::Full, Trigger::Schedule, now)?;
    }
    Ok(())
}

/// Whether a row that is still listed is older than `oldest`. A truncated list lacks many rows, so one of them is among
/// the first.
fn has_older_row(tx: &Tx<'_>, stream: &StreamId, oldest: Timestamp) -> Result<bool, StoreError> {
    let prefix = keyspace::rows(stream);
    for pair in tx.pairs(&prefix, &prefix).take(LOOKED_MAX) {
        let note: RowNote = decode("a ledger row", &pair?.1)?;
        if note.unlisted_at.is_none() && note.time.is_some_and(|time| time < oldest) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Notes the rows of a page in the ledger, stores those that are documents, and asks for the details of others.
fn note_rows(
    tx: &mut Tx<'_>,
    run: &Run,
    rows: &[Row<Vec<u8>>],
    rule: WalkRule,
    now: Timestamp,
) -> Result<PageStats, StoreError> {
    let checkpoint = checkpoints::checkpoint(tx, &run.stream)?;
    let is_first_walk = checkpoint.full_walk_at.is_none();
    // Counted from the last successful walk: rows noted by a failed one prove nothing about those below them.
    let young_from = checkpoint.walked_at.map_or(now, |at| at.min(now)) - rule.overlap;
    let mut wanted: BTreeMap<Priority, Vec<String>> = BTreeMap::new();
    let young = rows.iter().all(|row| row.time.is_none());
    let mut stats = PageStats { young, pass: run.pass, ..PageStats::default() };
    for row in rows {
        let key = keyspace::row(&run.stream, &row.id);
        let known = ledger::row_note(tx, &key)?;
        let sighting = Sighting::new(run, row, known, is_first_walk);
        stats.count(&sighting, row.time.is_some_and(|time| time > young_from), rule.newest_first);
        let note = sighting.note(run, now);
        if let (Some(body), Some(_)) = (&row.body, sighting.news) {
            let document = FetchedDocument { body, hash: row.hash, refresh_after: None, facets: row.facets.clone() };
            let place = detail::DetailTarget { stream: &run.stream, run: Some(run.id), id: &row.id, row: &note };
            detail::store(tx, &place, &document, now)?;
        } else if let Some(priority) = sighting.read_needed(tx, run, now)? {
            wanted.entry(priority).or_default().push(row.id.clone());
        } else if run.mode == Mode::Full && run.trigger == Trigger::Request && !sighting.is_met {
            stats.to_fetch += u64::from(detail::read_early(tx, run, &row.id)?);
        }
        if sighting.was_gone() {
            outbox::append_listing(tx, &run.stream, &row.id, None, now)?;
        }
        // An incremental walk over known rows leaves the ledger untouched.
        let is_first_in_pass = run.mode == Mode::Full && !sighting.is_met_in_pass;
        if sighting.news.is_some() || is_first_in_pass || sighting.was_gone() {
            tx.put(key, encode("a ledger row", &note)?);
        }
    }
    for (priority, ids) in wanted {
        stats.to_fetch += ids.len() as u64;
        want(tx, run, priority, ids)?;
    }
    Ok(stats)
}

impl PageStats {
    fn count(&mut self, sighting: &Sighting<'_>, is_young: bool, newest_first: bool) {
        let time = sighting.row.time;
        self.newest = self.newest.max(time);
        self.young |= is_young;
        self.listed += u64::from(!sighting.is_met);
        self.pass.met_known |= sighting.known.is_some() && !sighting.is_met_in_pass;
        self.pass.oldest = [self.pass.oldest, time].into_iter().flatten().min();
        // Where new rows come at the head, an unknown one below a known one was there before: the last pass missed it. Or
        // it arrived late, as young ones may; incremental walks read those again.
        let is_missed = newest_first && sighting.known.is_none() && self.pass.met_known && !is_young;
        self.pass.missed += u64::from(is_missed);
        match sighting.news {
            Some(Priority::Changed) => self.changed += 1,
            Some(_) => self.new += 1,
            None => {}
        }
    }
}

/// A row of a page beside what the ledger knew of it.
struct Sighting<'a> {
    row: &'a Row<Vec<u8>>,
    known: Option<RowNote>,
    /// This run met it before.
    is_met: bool,
    /// This pass met it before: while rows arrive, the tail of one page repeats at the head of the next.
    is_met_in_pass: bool,
    /// How urgently to read a row that is new or changed; none: it is unchanged.
    news: Option<Priority>,
}

impl Sighting<'_> {
    fn new<'a>(run: &Run, row: &'a Row<Vec<u8>>, known: Option<RowNote>, is_first_walk: bool) -> Sighting<'a> {
        let is_met = known.as_ref().is_some_and(|note| note.seen == run.id);
        let is_met_in_pass = known.as_ref().is_some_and(|note| is_met && note.pass == run.pass.number);
        let news = match &known {
            None if is_first_walk => Some(Priority::History),
            None => Some(Priority::New),
            Some(note) if is_same(note, row) => None,
            Some(_) => Some(Priority::Changed),
        };
        Sighting { row, known, is_met, is_met_in_pass, news }
    }

    /// Full walks did not see it any more.
    fn was_gone(&self) -> bool {
        self.known.as_ref().is_some_and(|note| note.unlisted_at.is_some())
    }

    /// What the ledger is to know of it.
    fn note(&self, run: &Run, now: Timestamp) -> RowNote {
        let first_listed_at = self.known.as_ref().map_or(now, |note| note.first_listed_at);
        let (seen, pass, time) = (run.id, run.pass.number, self.row.time);
        let (hash, other) = self.digests();
        RowNote { hash, first_listed_at, seen, pass, time, other, ..RowNote::default() }
    }

    /// The digests of its first row in a pass, and of its last different one.
    fn digests(&self) -> (u64, Option<u64>) {
        let hash = self.row.hash;
        match &self.known {
            Some(known) if self.is_met_in_pass && known.hash == hash => (hash, known.other),
            Some(known) if self.is_met_in_pass => (known.hash, Some(hash)),
            // The first row of this pass differs from the first of the last one.
            Some(known) => (hash, known.other.filter(|other| *other != hash)),
            None => (hash, None),
        }
    }

    /// How urgently its detail is to be read; none: it need not be.
    fn read_needed(&self, tx: &Tx<'_>, run: &Run, now: Timestamp) -> Result<Option<Priority>, StoreError> {
        if self.news.is_some() || self.row.body.is_some() || self.is_met || run.mode != Mode::Full {
            return Ok(self.news);
        }
        // The API answered that it does not know the document, and still lists it: try again. Or it was read by a clock
        // that was ahead, so it may not be final.
        let is_doubtful = detail::is_doubtful(tx, &run.stream, &self.row.id, now)?;
        Ok(is_doubtful.then_some(Priority::Changed))
    }
}

/// Asks for the details of rows.
fn want(tx: &mut Tx<'_>, run: &Run, priority: Priority, ids: Vec<String>) -> Result<(), StoreError> {
    let StreamId { shop, resource, combination } = &run.stream;
    let kind = FetchDetail { run: Some(run.id), combination: combination.clone(), id: String::new() };
    // Each job gets its own number as it is queued.
    let pattern = Job::new(JobSeq::from_number(0), shop, resource, priority, kind.into());
    enqueue_alike(tx, &pattern, ids)
}

/// Whether a row is unchanged. An id may have different rows on several pages; rows of one page are merged.
fn is_same(note: &RowNote, row: &Row<Vec<u8>>) -> bool {
    note.hash == row.hash || note.other == Some(row.hash) || row.legacy == Some(note.hash)
}

/// Rows of a page that cannot be stored.
struct Refused {
    /// That this run had not met yet.
    rejected: u64,
    /// Of these, that no run had met yet.
    parked: u64,
}

/// Parks rows that cannot be stored, each once.
fn note_rejected(tx: &mut Tx<'_>, run: &Run, rows: &[Rejected], now: Timestamp) -> Result<Refused, StoreError> {
    let mut refused = Refused { rejected: 0, parked: 0 };
    for row in rows {
        let key = keyspace::rejected_row(&run.stream, &row.fingerprint());
        let known = ledger::row_note(tx, &key)?;
        if known.as_ref().is_some_and(|note| note.seen == run.id) {
            continue;
        }
        refused.rejected += 1;
        let known = known.unwrap_or(RowNote { first_listed_at: now, ..RowNote::default() });
        let parked = match known.parked {
            Some(parked) => parked,
            None => {
                refused.parked += 1;
                park::park_row(tx, run, row, now)?
            }
        };
        let note = RowNote { seen: run.id, parked: Some(parked), ..known };
        tx.put(key, encode("a ledger row", &note)?);
    }
    Ok(refused)
}
