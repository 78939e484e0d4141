//! Turns of the reads that may take long: API keys take places one after another, whatever each of them asks for.
//!
//! A read works in short slices ([`super::scan`]) and waits for its turn before each. Turns go round the keys that wait, and
//! a key has one slice at a time, so the reads of one key, however many, delay those of another by a slice. Within a key,
//! a read that has begun goes on before the next one begins. While documents are settled or written, a key that has read more
//! than a part of the time rests for what is above it: the rest of the processor is for the sync, and the places are for others.
//!
//! A caller that goes away drops its [`Read`]: it waits no more, and its slice, if one runs, is the last.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};

/// Limits of the reads of all keys.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimits {
    /// Slices that run at the same time.
    pub places: usize,
    /// Reads of one key, those that wait included.
    pub of_one_key: usize,
    /// Time of one read, its waits included.
    pub time_max: Duration,
    /// While documents are settled or written, how many times as long as it worked too much a key rests.
    pub rests: u32,
}

/// Documents per second from which on keys rest.
const BUSY_RATE: f64 = 300.0;
/// Work after which a key rests. It forgets as much of it as it may work in the same time with its rests.
const WORK_FREE: Duration = Duration::from_millis(100);
/// Most work that is remembered: what a key reads much while nothing is synced does not count for long.
const WORK_MAX: Duration = Duration::from_secs(1);
/// Longest rest: a slice that takes long on a busy machine does not hold up for seconds what its key reads next.
const REST_MAX: Duration = Duration::from_millis(500);
/// Most keys whose work is remembered. Above it all are forgotten, which only lets each work without a rest again.
const KEYS_MAX: usize = 4096;
/// Shortest time over which that rate is measured.
const RATE_TIME: Duration = Duration::from_millis(100);

/// Hands out the turns. Clones share the places.
#[derive(Clone)]
pub struct ReadTurns(Arc<Shared>);

struct Shared {
    limits: ReadLimits,
    /// Documents settled and written since the start.
    work_done: Box<dyn Fn() -> u64 + Send + Sync>,
    state: Mutex<State>,
}

struct State {
    free: usize,
    keys: HashMap<Arc<str>, KeyState>,
    /// Keys with a read that waits; the first one is next.
    ring: VecDeque<Arc<str>>,
    rate: RateSample,
    /// What keys have worked lately.
    work: HashMap<Arc<str>, Work>,
}

/// Work of a key, less what it has forgotten.
struct Work {
    at: Instant,
    time: Duration,
}

#[derive(Default)]
struct KeyState {
    reads: usize,
    /// It runs a slice, or rests after one.
    is_running: bool,
    waiting: VecDeque<oneshot::Sender<Turn>>,
}

/// How busy the sync was when it was last measured.
struct RateSample {
    at: Instant,
    work_done: u64,
    is_busy: bool,
}

/// A key has too many reads under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyReads;

/// A read is over its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late;

/// One admitted read. Dropped, it counts no more.
pub struct Read {
    turns: ReadTurns,
    key: Arc<str>,
    late_at: Instant,
    has_begun: bool,
}

/// Permission for one slice; its place is free again when it is dropped.
pub(super) struct Turn {
    turns: ReadTurns,
    /// None: it was taken back.
    key: Option<Arc<str>>,
    begun: Instant,
}

impl ReadTurns {
    /// All places are free. `work_done` counts documents settled and written.
    pub fn new(limits: ReadLimits, work_done: impl Fn() -> u64 + Send + Sync + 'static) -> ReadTurns {
        let rate = RateSample { at: Instant::now(), work_done: work_done(), is_busy: false };
        let (keys, ring, work) = (HashMap::new(), VecDeque::new(), HashMap::new());
        let state = State { free: limits.places.max(1), keys, ring, rate, work };
        ReadTurns(Arc::new(Shared { limits, work_done: Box::new(work_done), state: Mutex::new(state) }))
    }

    /// The limits.
    pub fn limits(&self) -> &ReadLimits {
        &self.0.limits
    }

    /// Admits a read of a key.
    ///
    /// # Errors
    /// The key has as many as it may have.
    pub fn admit(&self, key: &str) -> Result<Read, TooManyReads> {
        let key = Arc::<str>::from(key);
        let mut state = self.state();
        let of_key = state.keys.entry(Arc::clone(&key)).or_default();
        if of_key.reads >= self.0.limits.of_one_key {
            return Err(TooManyReads);
        }
        of_key.reads += 1;
        drop(state);
        Ok(Read { turns: self.clone(), key, late_at: Instant::now() + self.0.limits.time_max, has_begun: false })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic cannot leave it half changed.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the free places to the keys that are next.
    fn hand_out(&self, state: &mut State) {
        while state.free > 0 {
            let is_idle = |key: &Arc<str>| state.keys.get(key).is_some_and(|of_key| !of_key.is_running);
            let Some(next) = state.ring.iter().position(is_idle) else { return };
            let Some(key) = state.ring.remove(next) else { return };
            let Some(of_key) = state.keys.get_mut(&key) else { continue };
            while let Some(waiter) = of_key.waiting.pop_front() {
                let turn = Turn { turns: self.clone(), key: Some(Arc::clone(&key)), begun: Instant::now() };
                match waiter.send(turn) {
                    Ok(()) => {
                        (of_key.is_running, state.free) = (true, state.free - 1);
                        break;
                    }
                    // It went away. Dropped as it is, the turn would come back here.
                    Err(mut turn) => turn.key = None,
                }
            }
            if !of_key.waiting.is_empty() {
                state.ring.push_back(Arc::clone(&key));
            }
            state.forget_idle(&key);
        }
    }

    /// How long a key rests after a slice.
    fn rest_of(&self, key: &Arc<str>, worked: Duration) -> Duration {
        let (is_busy, now, rests) = (self.is_busy(), Instant::now(), self.0.limits.rests);
        let mut state = self.state();
        if state.work.len() >= KEYS_MAX {
            state.work.clear();
        }
        let work = state.work.entry(Arc::clone(key)).or_insert(Work { at: now, time: Duration::ZERO });
        work.time = (work.time.saturating_sub((now - work.at) / (rests + 1)) + worked).min(WORK_MAX);
        work.at = now;
        let too_much = work.time.saturating_sub(WORK_FREE).min(worked);
        if is_busy { (too_much * rests).min(REST_MAX) } else { Duration::ZERO }
    }

    async fn rest(self, key: Arc<str>, time: Duration) {
        sleep(time).await;
        self.may_run(&key);
    }

    /// The key may run its next slice.
    fn may_run(&self, key: &Arc<str>) {
        let mut state = self.state();
        if let Some(of_key) = state.keys.get_mut(key) {
            of_key.is_running = false;
        }
        state.forget_idle(key);
        self.hand_out(&mut state);
    }

    fn free_place(&self) {
        let mut state = self.state();
        state.free += 1;
        self.hand_out(&mut state);
    }

    /// Whether the sync needs the processor.
    fn is_busy(&self) -> bool {
        let (now, work_done) = (Instant::now(), (self.0.work_done)());
        let mut state = self.state();
        let elapsed = now - state.rate.at;
        if elapsed >= RATE_TIME {
            let done = work_done.saturating_sub(state.rate.work_done);
            let is_busy = done as f64 > BUSY_RATE * elapsed.as_secs_f64();
            state.rate = RateSample { at: now, work_done, is_busy };
        }
        state.rate.is_busy
    }
}

impl State {
    /// Drops what is known of a key without reads.
    fn forget_idle(&mut self, key: &Arc<str>) {
        let is_idle = |of_key: &KeyState| of_key.reads == 0 && !of_key.is_running;
        if self.keys.get(key).is_some_and(is_idle) {
            self.keys.remove(key);
            self.ring.retain(|waiting| waiting != key);
        }
    }
}

impl Read {
    /// Waits for the next turn. Cancel safe.
    ///
    /// # Errors
    /// The read is over its time.
    pub(super) async fn turn(&mut self) -> Result<Turn, Late> {
        if self.is_late() {
            return Err(Late);
        }
        let turn = timeout_at(self.late_at, self.wait()).await;
        self.has_begun = true;
        turn.ok().and_then(Result::ok).ok_or(Late)
    }

    fn wait(&self) -> oneshot::Receiver<Turn> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.turns.state();
        if let Some(of_key) = state.keys.get_mut(&self.key) {
            if self.has_begun {
                of_key.waiting.push_front(sender);
            } else {
                of_key.waiting.push_back(sender);
            }
            if !state.ring.contains(&self.key) {
                state.ring.push_back(Arc::clone(&self.key));
            }
            self.turns.hand_out(&mut state);
        }
        receiver
    }

    /// Whether its time is over.
    pub(super) fn is_late(&self) -> bool {
        Instant::now() >= self.late_at
    }
}

impl Drop for Read {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        if let Some(of_key) = state.keys.get_mut(&self.key) {
            of_key.reads = of_key.reads.saturating_sub(1);
        }
        state.forget_idle(&self.key);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else { return };
        let rest = self.turns.rest_of(&key, self.begun.elapsed());
        match Handle::try_current() {
            Ok(runtime) if !rest.is_zero() => drop(runtime.spawn(self.turns.clone().rest(key, rest))),
            _ => self.turns.may_run(&key),
        }
        self.turns.free_place();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use futures_util::FutureExt as _;
    use tokio::time::{Instant, advance};

    use super::{Late, Read, ReadLimits, ReadTurns, TooManyReads, Turn};

    const LIMITS: ReadLimits = ReadLimits { places: 1, of_one_key: 4, time_max: Duration::from_secs(5), rests: 9 };

    fn turns(limits: ReadLimits) -> ReadTurns {
        ReadTurns::new(limits, || 0)
    }

    /// A turn that must be there at once.
    fn now(read: &mut Read) -> Turn {
        read.turn().now_or_never().unwrap().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn keys_take_turns_however_many_reads_one_has() {
        let turns = turns(LIMITS);
        let mut greedy: Vec<Read> = (0..4).map(|_| turns.admit("greedy").unwrap()).collect();
        let (mut modest, mut third) = (turns.admit("modest").unwrap(), turns.admit("third").unwrap());
        let first = now(&mut greedy[0]);
        let mut order = Vec::new();
        let [_, second, more @ ..] = greedy.as_mut_slice() else { unreachable!() };
        let mut waiting: Vec<(&str, _)> = vec![("greedy", Box::pin(second.turn()))];
        waiting.extend(more.iter_mut().map(|read| ("greedy", Box::pin(read.turn()))));
        waiting.push(("modest", Box::pin(modest.turn())));
        waiting.push(("third", Box::pin(third.turn())));
        for (_, turn) in &mut waiting {
            assert!(turn.now_or_never().is_none(), "there is one place");
        }
        drop(first);
        while !waiting.is_empty() {
            let ready = waiting.iter_mut().enumerate().find_map(|(at, (_, turn))| Some((at, turn.now_or_never()?)));
            let (at, turn) = ready.expect("a free place is given to a read that waits");
            order.push(waiting.remove(at).0);
            drop(turn.unwrap());
        }
        assert_eq!(order, ["greedy", "modest", "third", "greedy", "greedy"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_runs_one_slice_at_a_time_and_goes_on_with_what_it_began() {
        let turns = turns(ReadLimits { places: 2, ..LIMITS });
        let (mut first, mut second) = (turns.admit("a").unwrap(), turns.admit("a").unwrap());
        let slice = now(&mut first);
        assert!(second.turn().now_or_never().is_none(), "the other place is for other keys");
        let mut other = turns.admit("b").unwrap();
        drop(now(&mut other));
        let mut waits = Box::pin(second.turn());
        assert!((&mut waits).now_or_never().is_none());
        let mut goes_on = Box::pin(first.turn());
        assert!((&mut goes_on).now_or_never().is_none());
        drop(slice);
        let slice = goes_on.now_or_never().unwrap().unwrap();
        assert!((&mut waits).now_or_never().is_none());
        drop(slice);
        waits.now_or_never().unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_has_so_many_reads_and_a_dropped_one_counts_no_more() {
        let turns = turns(LIMITS);
        let mut reads: Vec<Read> = (0..4).map(|_| turns.admit("a").unwrap()).collect();
        assert_eq!(turns.admit("a").err(), Some(TooManyReads));
        assert!(turns.admit("b").is_ok(), "another key");
        reads.pop();
        assert!(turns.admit("a").is_ok());
        drop(reads);
        assert!(turns.state().keys.is_empty() && turns.state().ring.is_empty(), "nothing is left of them");
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_waits_or_works_too_long_is_late() {
        let turns = turns(LIMITS);
        let begun = Instant::now();
        let (mut long, mut waits) = (turns.admit("a").unwrap(), turns.admit("b").unwrap());
        let slice = now(&mut long);
        assert_eq!(waits.turn().await.err(), Some(Late));
        assert_eq!(begun.elapsed(), LIMITS.time_max);
        drop(slice);
        assert_eq!(long.turn().await.err(), Some(Late));
        // What waited in vain does not keep others from the place.
        drop(now(&mut turns.admit("c").unwrap()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_goes_away_frees_its_place() {
        let turns = turns(LIMITS);
        let (mut first, mut second) = (turns.admit("a").unwrap(), turns.admit("b").unwrap());
        let slice = now(&mut first);
        // Gone while it waits.
        assert!(second.turn().now_or_never().is_none());
        drop(second);
        // Gone when its turn was on the way.
        let mut third = turns.admit("c").unwrap();
        let mut waits = Box::pin(third.turn());
        assert!((&mut waits).now_or_never().is_none());
        drop(slice);
        drop(waits);
        drop(third);
        drop(now(&mut first));
        drop(first);
        assert_eq!(turns.state().free, 1);
        assert!(turns.state().keys.is_empty(), "nothing is left of them");
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_reads_much_rests_while_the_sync_works_and_others_do_not() {
        let work = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&work);
        let turns = ReadTurns::new(LIMITS, move || counted.load(Ordering::Relaxed));
        let mut read = turns.admit("a").unwrap();
        let slice_of = async |read: &mut Read, time: u64| {
            let asked = Instant::now();
            let slice = read.turn().await.unwrap();
            let waited = asked.elapsed();
            advance(Duration::from_millis(time)).await;
            drop(slice);
            waited.as_millis()
        };
        assert_eq!(slice_of(&mut read, 100).await, 0);
        assert_eq!(slice_of(&mut read, 60).await, 0, "nothing is synced");
        work.fetch_add(1_000, Ordering::Relaxed);
        slice_of(&mut read, 50).await;
        let mut other = turns.admit("b").unwrap();
        let asked = Instant::now();
        drop(now(&mut other));
        drop(now(&mut other));
        assert_eq!(asked.elapsed(), Duration::ZERO, "another key has its turn meanwhile");
        assert_eq!(slice_of(&mut read, 50).await, u128::from(LIMITS.rests * 50));
    }

    #[tokio::test(start_paused = true)]
    async fn a_rest_is_for_what_was_too_much_lately_and_never_long() {
        let work = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&work);
        let turns = ReadTurns::new(LIMITS, move || counted.fetch_add(10_000, Ordering::Relaxed));
        let rest_of = |key: &str, worked| turns.rest_of(&Arc::from(key), Duration::from_millis(worked)).as_millis();
        advance(Duration::from_secs(1)).await;
        assert_eq!(rest_of("a", 90), 0);
        assert_eq!(rest_of("a", 30), u128::from(LIMITS.rests * 20), "not for all of the slice");
        assert_eq!(rest_of("a", 5_000), 500);
        // It forgets a second in ten.
        advance(Duration::from_secs(10)).await;
        assert_eq!(rest_of("a", 100), 0, "of much work not all is remembered");
    }
}
