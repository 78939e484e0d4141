//! What one process concludes about another from its row in the register. Pure: what was seen, and when, comes in.

use std::time::Duration;

use super::bounds::{END, NOTICED, proof};
use super::identity::Life;
use crate::gate::BootTime;
use crate::sink::mysql::{Hold, Registered};

/// One look at the owner's row.
#[derive(Clone, Copy)]
pub(super) struct Look<'a> {
    pub(super) row: &'a Registered,
    pub(super) life: Life,
    /// It belongs to our data directory, whose lock we hold.
    pub(super) is_ours: bool,
    /// Our own boot, as far as it is that of the row.
    pub(super) is_same_boot: bool,
    pub(super) at: BootTime,
}

/// What follows from the looks so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Let go by its last owner, or never owned.
    Free,
    /// Let go, with a state for us.
    Handed,
    /// The last process of our data directory, which is gone. `is_here`: on this machine, without a boot since.
    Ours { is_here: bool },
    /// Another's, which is gone or past its promise.
    Gone,
    /// Another process works.
    Alive,
    /// Not known yet.
    Unknown,
    /// It is silent for longer than any heartbeat takes, but may go on without MySQL for this long.
    Silent(Duration),
}

/// Heartbeats of the owner, over the looks of one process.
#[derive(Debug, Default)]
pub(super) struct Watch {
    first: Option<Seen>,
}

#[derive(Debug, PartialEq, Eq)]
struct Seen {
    session: String,
    beats: u64,
    at: BootTime,
    moved: bool,
}

impl Watch {
    /// Forgets what was seen: MySQL did not answer for a while, and the owner could not beat then either.
    pub(super) fn restart(&mut self) {
        self.first = None;
    }

    pub(super) fn look(&mut self, look: Look<'_>) -> Verdict {
        let Look { row, life, is_ours, .. } = look;
        match (row.hold, life) {
            (Hold::Free, _) => return Verdict::Free,
            (Hold::Handed, _) if !is_ours => return Verdict::Handed,
            // It is for the standby, unless that does not come.
            (Hold::Handed, _) => {
                let verdict = self.judge_beats(Look { life: Life::Unknown, ..look });
                return if verdict == Verdict::Unknown { Verdict::Unknown } else { Verdict::Handed };
            }
            (Hold::Owned, Life::Gone) if is_ours => return Verdict::Ours { is_here: true },
            (Hold::Owned, Life::Gone) => return Verdict::Gone,
            (Hold::Owned, Life::Alive | Life::Unknown) => {}
        }
        match (self.judge_beats(look), life) {
            // It lives, and keeps its promise: only the end of that counts.
            (Verdict::Unknown | Verdict::Silent(_) | Verdict::Ours { .. }, Life::Alive) => Verdict::Alive,
            (verdict, _) => verdict,
        }
    }

    fn judge_beats(&mut self, look: Look<'_>) -> Verdict {
        let Look { row, is_ours, is_same_boot, at, .. } = look;
        let (session, beats) = (&row.member.session, row.beats);
        let known = self.first.as_ref().filter(|seen| seen.session == *session && seen.beats == beats);
        let Some(seen) = known else {
            let moved = self.first.as_ref().is_some_and(|seen| seen.session == *session);
            self.first = Some(Seen { session: session.clone(), beats, at, moved });
            return if moved { Verdict::Alive } else { Verdict::Unknown };
        };
        let silent = at.since(seen.at);
        if seen.moved && silent < NOTICED {
            return Verdict::Alive;
        }
        let proof = proof(row.promise);
        if is_ours && look.life == Life::Unknown && silent >= NOTICED {
            return Verdict::Ours { is_here: is_same_boot };
        }
        // A long promise is also over by the server's own clock, which was not set forward by an hour: a process
        // that is started again and again gets there too.
        let is_long = row.promise > END;
        if silent >= proof || (is_long && silent >= NOTICED && row.silent >= proof) {
            return Verdict::Gone;
        }
        if is_long && silent >= NOTICED {
            return Verdict::Silent(proof.saturating_sub(row.silent.max(silent)));
        }
        Verdict::Unknown
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Look, Verdict, Watch};
    use crate::app::owner::bounds::{ALONE, END};
    use crate::app::owner::identity::Life;
    use crate::domain::Timestamp;
    use crate::gate::BootTime;
    use crate::sink::mysql::{Hold, Member, Registered};

    fn row(beats: u64, promise: Duration) -> Registered {
        let text = |text: &str| text.to_owned();
        let (session, directory, host) = (text("s"), text("d"), text("h"));
        Registered {
            member: Member { session, directory, host, pid: 7, process: text("p"), command: text("serve") },
            epoch: 3,
            hold: Hold::Owned,
            started_at: Timestamp::EPOCH,
            silent: Duration::ZERO,
            beats,
            promise,
            standby: text(""),
        }
    }

    fn at(seconds: u64) -> BootTime {
        BootTime::after_boot(Duration::from_secs(seconds))
    }

    fn look(row: &Registered, seconds: u64) -> Look<'_> {
        Look { row, life: Life::Unknown, is_ours: false, is_same_boot: false, at: at(seconds) }
    }

    #[test]
    fn a_heartbeat_that_moves_is_alive_and_one_that_does_not_is_gone_after_its_promise() {
        let mut watch = Watch::default();
        assert_eq!(watch.look(look(&row(1, END), 100)), Verdict::Unknown);
        assert_eq!(watch.look(look(&row(2, END), 102)), Verdict::Alive);
        assert_eq!(watch.look(look(&row(2, END), 104)), Verdict::Alive, "it has only just moved");
        assert_eq!(watch.look(look(&row(2, END), 112)), Verdict::Unknown);
        assert_eq!(watch.look(look(&row(2, END), 113)), Verdict::Gone);
        watch.restart();
        assert_eq!(watch.look(look(&row(2, END), 114)), Verdict::Unknown, "MySQL was away: counted again");
        let other = Registered { member: Member { session: "t".into(), ..row(9, END).member }, ..row(9, END) };
        assert_eq!(watch.look(look(&other, 125)), Verdict::Unknown, "another owner has just begun");
    }

    #[test]
    fn an_owner_that_was_alone_may_go_on_for_long() {
        let mut watch = Watch::default();
        let silent = |seconds| Registered { silent: Duration::from_secs(seconds), ..row(1, ALONE) };
        assert_eq!(watch.look(look(&silent(30), 100)), Verdict::Unknown);
        assert_eq!(watch.look(look(&silent(37), 107)), Verdict::Silent(Duration::from_secs(4400 - 37)));
        assert_eq!(watch.look(look(&silent(4400), 108)), Verdict::Gone, "by the server's clock");
        let mut watch = Watch::default();
        assert_eq!(watch.look(look(&silent(9999), 100)), Verdict::Unknown, "it may beat in a moment");
        assert_eq!(watch.look(look(&silent(0), 100 + 4400)), Verdict::Gone, "by ours");
    }

    #[test]
    fn what_this_machine_knows_of_a_process_needs_no_wait() {
        let known = |life, is_ours| {
            let row = row(1, ALONE);
            Watch::default().look(Look { life, is_ours, ..look(&row, 100) })
        };
        assert_eq!(known(Life::Gone, false), Verdict::Gone);
        assert_eq!(known(Life::Gone, true), Verdict::Ours { is_here: true });
        assert_eq!(
            [known(Life::Alive, false), known(Life::Alive, true)],
            [Verdict::Alive; 2],
            "a copy of the directory"
        );
        let (row, mut watch) = (row(1, END), Watch::default());
        let alive = |row, seconds| Look { life: Life::Alive, ..look(row, seconds) };
        assert_eq!(
            [100, 110, 111].map(|at| watch.look(alive(&row, at))),
            [Verdict::Alive, Verdict::Alive, Verdict::Gone]
        );
        for (hold, verdict) in [(Hold::Free, Verdict::Free), (Hold::Handed, Verdict::Handed)] {
            let row = Registered { hold, ..row.clone() };
            assert_eq!(Watch::default().look(look(&row, 100)), verdict);
        }
    }

    #[test]
    fn a_data_directory_that_moved_to_another_machine_waits_for_a_heartbeat_only() {
        let mut watch = Watch::default();
        let (one, two) = (row(1, ALONE), row(2, ALONE));
        let ours = |row, seconds| Look { is_ours: true, ..look(row, seconds) };
        assert_eq!(watch.look(ours(&one, 100)), Verdict::Unknown);
        assert_eq!(watch.look(ours(&one, 106)), Verdict::Ours { is_here: false });
        let mut watch = Watch::default();
        assert_eq!(watch.look(ours(&one, 100)), Verdict::Unknown);
        assert_eq!(watch.look(ours(&two, 102)), Verdict::Alive, "the original of a copy works");
    }

    /// An owner with a standby, in true milliseconds.
    struct Race {
        random: fastrand::Rng,
        /// Pace of the owner's clock, and of the standby's.
        rates: [f64; 2],
        /// After this no heartbeat arrives.
        cut: u64,
        beats: Vec<Beat>,
    }

    /// A heartbeat that arrives.
    struct Beat {
        sent: u64,
        arrives: u64,
        is_answered: bool,
    }

    impl Race {
        fn chance(&mut self, percent: u8) -> bool {
            self.random.u8(0..100) < percent
        }

        /// Sends a heartbeat: it arrives or not, late or soon, and so does its answer. When the next one is sent.
        fn beat(&mut self, sent: u64) -> u64 {
            let (there, back) = (self.random.u64(1..1_900), self.random.u64(1..1_900));
            if sent + there < self.cut && !self.chance(10) {
                let is_answered = there + back < 2_000 && !self.chance(10);
                self.beats.push(Beat { sent, arrives: sent + there, is_answered });
            }
            sent + (there + back).min(2_000) + 1_000
        }

        fn arrived(&self, by: u64) -> u64 {
            self.beats.iter().filter(|beat| beat.arrives <= by).count() as u64
        }

        /// When the standby takes the row, and until when the owner may act.
        fn run(mut self) -> (u64, u64) {
            let (mut watch, mut next) = (Watch::default(), 0);
            for now in (0..).step_by(250) {
                while next <= now + 2_000 {
                    next = self.beat(next);
                }
                if self.chance(5) {
                    continue;
                }
                // The answer that shows the heartbeat may come late, and the clock is read after it.
                let late = now + self.random.u64(0..300);
                let by_clock = Duration::from_millis((late as f64 * self.rates[1]) as u64);
                let row = row(self.arrived(now), END);
                let verdict = watch.look(Look { at: BootTime::after_boot(by_clock), ..look(&row, 0) });
                // Compare and set: no heartbeat came between, and later ones find the row taken.
                if verdict == Verdict::Gone && self.arrived(late) == row.beats {
                    let confirmed = self.beats.iter().filter(|beat| beat.is_answered && beat.arrives <= late);
                    let last = confirmed.map(|beat| beat.sent).max().unwrap_or_default();
                    return (late, last + (END.as_millis() as f64 / self.rates[0]) as u64);
                }
            }
            unreachable!("the owner is cut off at some time")
        }
    }

    #[test]
    fn no_standby_takes_over_while_the_owner_may_still_act_whatever_the_clocks_and_the_network_do() {
        for seed in 0..3_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let rates = [(); 2].map(|()| 0.9 + random.f64() * 0.2);
            let cut = random.u64(0..60_000);
            let (taken, acts_until) = Race { random, rates, cut, beats: Vec::new() }.run();
            assert!(taken >= acts_until, "seed {seed}: taken at {taken} ms, the owner acts until {acts_until} ms");
        }
    }
}
