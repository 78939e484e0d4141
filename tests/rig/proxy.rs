//! A TCP proxy on loopback that simulates a bad network: delay with jitter, low bandwidth, cuts, resets, a black hole;
//! and for MySQL a lost answer to COMMIT.
//!
//! One proxy per server. Its faults can change while it runs, and take effect with the next bytes. It counts
//! connections and holds a gate. Dropping it ends it and its connections.

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::gate::{Armed, Closing, Gate, Moment};

/// The port of an address like `http://127.0.0.1:8080`.
pub(crate) fn port_of(base: &str) -> u16 {
    base.rsplit(':').next().unwrap().parse().unwrap()
}

/// The network fault.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fault {
    #[default]
    None,
    /// Each piece of data, either way, is delayed by a time in this range.
    Latency(Duration, Duration),
    /// Bandwidth in bytes per second, both ways of a connection together.
    Bandwidth(u64),
    /// A connection is reset after this many bytes of answers.
    CutAfter(u64),
    /// This percentage of connections is reset after some more bytes of answers. Each connection, old or new, is drawn
    /// once each time the fault is set.
    Resets(u8),
    /// New connections are reset at once.
    Refuse,
    /// Data is dropped silently.
    BlackHole,
    /// The n-th COMMIT from now (0: the next) reaches the server, but its answer is replaced by a reset. Then no
    /// fault.
    SwallowCommit(u64),
}

/// Bytes that pass a slow line at once, so that its end is noticed.
const PIECE: usize = 128;
/// How often a blocked connection checks whether the fault is over.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A connection to be reset passes at most this many more bytes: some statements.
const RESETS_WITHIN: u64 = 4_000;

#[derive(Default)]
struct State {
    /// The port that new connections lead to.
    server: AtomicU16,
    fault: Mutex<Fault>,
    gate: Mutex<Option<Gate>>,
    /// How often the fault was set.
    era: AtomicU64,
    accepted: AtomicU64,
    swallowed: AtomicU64,
}

/// A value behind a lock; no panic of ours leaves one half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn fault(&self) -> Fault {
        lock(&self.fault).clone()
    }

    /// Counts a COMMIT; returns whether to drop its answer.
    fn takes_commit(&self) -> bool {
        let mut fault = lock(&self.fault);
        match &mut *fault {
            Fault::SwallowCommit(0) => {
                *fault = Fault::None;
                self.swallowed.fetch_add(1, Ordering::SeqCst);
                true
            }
            Fault::SwallowCommit(left) => {
                *left -= 1;
                false
            }
            _ => false,
        }
    }

    /// The gate, if this is the request that it waits for.
    fn meets(&self, request: &[u8]) -> Option<Closing> {
        let mut gate = lock(&self.gate);
        gate.take_if(|gate| gate.wants(request)).map(Gate::meet)
    }
}

pub(crate) struct Proxy {
    pub(crate) port: u16,
    state: Arc<State>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Listens before it returns. `seed` determines the jitter.
    pub(crate) async fn to(server: u16, seed: u64) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State { server: server.into(), ..State::default() });
        let task = tokio::spawn(accept(listener, Arc::clone(&state), seed));
        Proxy { port, state, task }
    }

    /// Moves the address to another server; existing connections stay with the old one.
    pub(crate) fn lead_to(&self, server: u16) {
        self.state.server.store(server, Ordering::SeqCst);
    }

    pub(crate) fn set(&self, fault: Fault) {
        self.state.era.fetch_add(1, Ordering::SeqCst);
        *lock(&self.state.fault) = fault;
    }

    /// Sets a gate, replacing one that still waits.
    pub(crate) fn arm(&self, moment: Moment, wanted: impl FnMut(&[u8]) -> bool + Send + 'static) -> Armed {
        let (gate, armed) = Gate::new(moment, wanted);
        *lock(&self.state.gate) = Some(gate);
        armed
    }

    /// Connections attempted so far.
    pub(crate) fn accepted(&self) -> u64 {
        self.state.accepted.load(Ordering::SeqCst)
    }

    /// COMMITs whose answer was dropped.
    pub(crate) fn swallowed(&self) -> u64 {
        self.state.swallowed.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                state.accepted.fetch_add(1, Ordering::SeqCst);
                connections.spawn(serve(client, Arc::clone(&state), random.fork()));
            }
        }
    }
}

/// One connection, until either side closes it or a fault ends it.
async fn serve(mut client: TcpStream, state: Arc<State>, random: fastrand::Rng) {
    let upstream = match state.fault() {
        Fault::Refuse => None,
        _ => TcpStream::connect(("127.0.0.1", state.server.load(Ordering::SeqCst))).await.ok(),
    };
    let Some(mut upstream) = upstream else {
        drop(client.set_zero_linger());
        return;
    };
    // Failures of these cost some delay, nothing else.
    drop((client.set_nodelay(true), upstream.set_nodelay(true)));
    let (mut up, mut down) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    let mut talk = Talk { state, random, answered: 0, swallowing: false, era: 0, reset_at: None, closing: None };
    loop {
        let (asked, read) = tokio::select! {
            read = client.read(&mut up) => (true, read),
            read = upstream.read(&mut down) => (false, read),
        };
        let Ok(length @ 1..) = read else { return };
        let (bytes, to) = if asked { (&up[..length], &mut upstream) } else { (&down[..length], &mut client) };
        let passes = match talk.delay().await {
            Passes::All if asked => talk.asks(bytes),
            Passes::All => talk.answers(bytes),
            other => other,
        };
        let part = match passes {
            Passes::All => bytes,
            Passes::Then(part) => &bytes[..part],
            Passes::Reset => {
                // A reset, not a close: the client must not take it for an end.
                drop(client.set_zero_linger());
                return;
            }
        };
        if !talk.send(part, to).await {
            return;
        }
        if matches!(passes, Passes::Then(_)) {
            return talk.stand(client).await;
        }
    }
}

/// What becomes of some bytes.
#[derive(Clone, Copy)]
enum Passes {
    All,
    /// That many, and then the gate is closed.
    Then(usize),
    /// The connection is reset instead.
    Reset,
}

/// One connection's own state.
struct Talk {
    state: Arc<State>,
    random: fastrand::Rng,
    /// Bytes of answers so far.
    answered: u64,
    swallowing: bool,
    /// The era in which it had its chance of [`Fault::Resets`], and the byte where that ends it.
    era: u64,
    reset_at: Option<u64>,
    closing: Option<Closing>,
}

impl Talk {
    /// Delays what has come, as the fault says.
    async fn delay(&mut self) -> Passes {
        match self.state.fault() {
            Fault::BlackHole => {
                // Both ends stay open without data until the fault is over: then the connection is dead.
                while self.state.fault() == Fault::BlackHole {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                return Passes::Reset;
            }
            Fault::Latency(from, to) => {
                let micros = self.random.u64(from.as_micros() as u64..=to.as_micros() as u64);
                tokio::time::sleep(Duration::from_micros(micros)).await;
            }
            _ => {}
        }
        Passes::All
    }

    fn asks(&mut self, request: &[u8]) -> Passes {
        self.swallowing |= is_commit(request) && self.state.takes_commit();
        self.closing = self.closing.take().or_else(|| self.state.meets(request));
        match &self.closing {
            Some(closing) if closing.holds_request() => Passes::Then(0),
            _ => Passes::All,
        }
    }

    fn answers(&mut self, answer: &[u8]) -> Passes {
        self.answered += answer.len() as u64;
        let cut = match self.state.fault() {
            Fault::CutAfter(bytes) => self.answered > bytes,
            Fault::Resets(percent) => self.is_reset(percent),
            _ => false,
        };
        if self.swallowing || cut {
            return Passes::Reset;
        }
        self.closing.as_mut().and_then(|closing| closing.closes_after(answer)).map_or(Passes::All, Passes::Then)
    }

    fn is_reset(&mut self, percent: u8) -> bool {
        let era = self.state.era.load(Ordering::SeqCst);
        if self.era != era {
            self.era = era;
            let unlucky = self.random.u8(..100) < percent;
            self.reset_at = unlucky.then(|| self.answered + self.random.u64(..RESETS_WITHIN));
        }
        self.reset_at.is_some_and(|at| self.answered > at)
    }

    /// Passes bytes on, as fast as the line allows; false if the peer is gone.
    async fn send(&self, mut bytes: &[u8], to: &mut TcpStream) -> bool {
        while let Fault::Bandwidth(a_second) = self.state.fault()
            && !bytes.is_empty()
        {
            let (piece, rest) = bytes.split_at(bytes.len().min(PIECE));
            tokio::time::sleep(Duration::from_secs_f64(piece.len() as f64 / a_second as f64)).await;
            if to.write_all(piece).await.is_err() {
                return false;
            }
            bytes = rest;
        }
        to.write_all(bytes).await.is_ok()
    }

    /// The gate is closed: nothing passes any more, until the client is gone.
    async fn stand(self, mut client: TcpStream) {
        if let Some(closing) = self.closing {
            closing.close();
        }
        let mut lost = vec![0; 16 * 1024];
        while matches!(client.read(&mut lost).await, Ok(1..)) {}
    }
}

/// Whether these bytes are the MySQL command `COMMIT`: length, number 0, COM_QUERY, the text.
pub(crate) fn is_commit(bytes: &[u8]) -> bool {
    bytes.len() == 11 && bytes[..5] == [7, 0, 0, 0, 3] && bytes[5..].eq_ignore_ascii_case(b"commit")
}
