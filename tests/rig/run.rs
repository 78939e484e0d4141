//! One run of one test: its seed, its share of the summary, and its diary.
//!
//! A run fails by panic, like any test. Then the diary is printed with the seed: the same seed repeats the schedule,
//! as far as the machine allows.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::task::JoinSet;

use crate::said;
use crate::summary::Score;

/// Duration of the whole: at each submission, before a release, or by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    P,
    Release,
    Soak,
}

impl Tier {
    /// The value for this tier.
    pub(crate) fn pick<T>(self, p: T, release: T, soak: T) -> T {
        match self {
            Tier::P => p,
            Tier::Release => release,
            Tier::Soak => soak,
        }
    }
}

/// Lines kept of a diary: the last ones show what happened.
const DIARY_MAX: usize = 200;

/// One run. Clones share everything but the random numbers.
#[derive(Clone)]
pub(crate) struct Run {
    pub(crate) tier: Tier,
    pub(crate) seed: u64,
    /// Of the same test in this process, from 0. Tests that take turns go by the seed, not by this.
    pub(crate) random: fastrand::Rng,
    pub(crate) score: Arc<Score>,
    begun: Instant,
    diary: Arc<Mutex<Vec<String>>>,
}

impl Run {
    pub(crate) fn new(tier: Tier, seed: u64, score: &Arc<Score>) -> Run {
        let random = fastrand::Rng::with_seed(seed);
        Run { tier, seed, random, score: Arc::clone(score), begun: Instant::now(), diary: Arc::default() }
    }

    /// A part of this run with numbers of its own.
    pub(crate) fn part(&mut self) -> Run {
        let seed = self.random.u64(..);
        Run { seed, random: fastrand::Rng::with_seed(seed), ..self.clone() }
    }

    /// Writes a line into the diary.
    pub(crate) fn note(&self, what: impl AsRef<str>) {
        let mut diary = self.diary.lock().unwrap_or_else(PoisonError::into_inner);
        if diary.len() == DIARY_MAX {
            diary.remove(0);
        }
        diary.push(format!("{:8.3} s  {}", self.begun.elapsed().as_secs_f64(), what.as_ref()));
    }

    pub(crate) fn diary(&self) -> String {
        self.diary.lock().unwrap_or_else(PoisonError::into_inner).join("\n  ")
    }
}

/// Waits for parts of a run that take place at the same time. Fails once all have ended, with what each failed by.
pub(crate) async fn all_of(mut parts: JoinSet<()>) {
    let (count, mut failures) = (parts.len(), Vec::new());
    while let Some(ended) = parts.join_next().await {
        failures.extend(ended.err().map(|error| said(error.into_panic())));
    }
    assert!(failures.is_empty(), "{} of {count} failed:\n{}", failures.len(), failures.join("\n"));
}
