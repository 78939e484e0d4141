//! A TCP proxy on loopback that can be a bad network: delay with jitter, cut after so many bytes,
//! reset, black hole; and for MySQL: swallow the answer to a COMMIT, so that nobody knows its fate.
//!
//! One proxy stands before one server. Its faults may be changed while it runs, and take effect with
//! the next bytes. It ends, with its connections, when its value drops.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// What the network does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fault {
    #[default]
    None,
    /// Each piece of data, either way, arrives this much later: between the two.
    Latency(Duration, Duration),
    /// A connection is reset after so many bytes of answers.
    CutAfter(u64),
    /// New connections are reset at once.
    Refuse,
    /// Nothing arrives any more, and nobody says so.
    BlackHole,
    /// The n-th COMMIT from now (0: the next) reaches the server, its answer nobody: a reset instead.
    /// Then as without a fault.
    SwallowCommit(u64),
}

#[derive(Default)]
struct State {
    fault: Mutex<Fault>,
    swallowed: AtomicU64,
}

impl State {
    fn fault(&self) -> Fault {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts a COMMIT; whether its answer is to be swallowed.
    fn takes_commit(&self) -> bool {
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
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
}

pub(crate) struct Proxy {
    pub(crate) port: u16,
    state: Arc<State>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Listens before it returns. `seed` rolls the jitter.
    pub(crate) async fn to(server: u16, seed: u64) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State::default());
        let task = tokio::spawn(accept(listener, server, Arc::clone(&state), seed));
        Proxy { port, state, task }
    }

    pub(crate) fn set(&self, fault: Fault) {
        *self.state.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// COMMITs whose answer was swallowed.
    pub(crate) fn swallowed(&self) -> u64 {
        self.state.swallowed.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, server: u16, state: Arc<State>, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                connections.spawn(serve(client, server, Arc::clone(&state), random.fork()));
            }
        }
    }
}

/// One connection, until either side closes it or a fault ends it.
async fn serve(client: TcpStream, server: u16, state: Arc<State>, mut random: fastrand::Rng) {
    let upstream = match state.fault() {
        Fault::Refuse => None,
        _ => TcpStream::connect(("127.0.0.1", server)).await.ok(),
    };
    let Some(mut upstream) = upstream else {
        drop(client.set_zero_linger());
        return;
    };
    let mut client = client;
    // Failures of these cost some delay, nothing else.
    drop((client.set_nodelay(true), upstream.set_nodelay(true)));
    let (mut up, mut down) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    let (mut answered, mut swallowing) = (0, false);
    loop {
        let (asked, read) = tokio::select! {
            read = client.read(&mut up) => (true, read),
            read = upstream.read(&mut down) => (false, read),
        };
        let Ok(length @ 1..) = read else { break };
        match state.fault() {
            Fault::BlackHole => {
                // Both ends stay open and hear nothing, until the fault is over: then the connection is dead.
                while state.fault() == Fault::BlackHole {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                drop(client.set_zero_linger());
                return;
            }
            Fault::Latency(from, to) => {
                let micros = random.u64(from.as_micros() as u64..=to.as_micros() as u64);
                tokio::time::sleep(Duration::from_micros(micros)).await;
            }
            _ => {}
        }
        let sent = if asked {
            swallowing |= is_commit(&up[..length]) && state.takes_commit();
            upstream.write_all(&up[..length]).await
        } else {
            answered += length as u64;
            let cut = matches!(state.fault(), Fault::CutAfter(bytes) if answered > bytes);
            if swallowing || cut {
                // A reset, not a close: the client may not take it for an end.
                drop(client.set_zero_linger());
                return;
            }
            client.write_all(&down[..length]).await
        };
        if sent.is_err() {
            break;
        }
    }
}

/// Whether these bytes are the MySQL command `COMMIT`: length, number 0, COM_QUERY, the text.
fn is_commit(bytes: &[u8]) -> bool {
    bytes.len() == 11 && bytes[..5] == [7, 0, 0, 0, 3] && bytes[5..].eq_ignore_ascii_case(b"commit")
}
