//! The accept loop and one task per connection.
//!
//! Started by `waybill sandbox`, the demo and the tests. Stops at once: answers in progress are cut, one more fault
//! that a client must handle.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::state::Sandbox;
use crate::wire::{Wire, WireError};

/// Concurrent connections; more wait in the listener's queue.
const CONNECTIONS_MAX: usize = 4_096;
/// Idle time after which a connection is closed.
const IDLE: Duration = Duration::from_secs(120);

impl Sandbox {
    /// Serves until `shutdown` completes. Cancel safe: dropping it closes all connections.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let mut connections = JoinSet::new();
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        tokio::pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut shutdown => return,
                Some(_) = connections.join_next() => continue,
                accepted = accept(&listener, &places) => accepted,
            };
            match accepted {
                Ok((stream, place)) => {
                    let sandbox = self.clone();
                    connections.spawn(async move {
                        converse(&sandbox, stream).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "sandbox: a connection could not be taken");
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, place))
}

/// Handles the requests of one connection until either side closes it.
async fn converse(sandbox: &Sandbox, stream: TcpStream) {
    let mut wire = Wire::new(stream);
    loop {
        let request = match timeout(IDLE, wire.read()).await {
            Ok(Ok(Some(request))) => request,
            Ok(Err(WireError::Bad(status, reason))) => {
                if let Err(error) = wire.refuse(status, reason).await {
                    tracing::debug!(%error, "sandbox: the client was gone");
                }
                return;
            }
            Ok(Ok(None) | Err(WireError::Io(_))) | Err(_) => return,
        };
        let outcome = sandbox.answer(&request);
        if !outcome.pause.is_zero() {
            sleep(outcome.pause).await;
        }
        match wire.send(&outcome.answer, outcome.delivery, &request).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::debug!(%error, "sandbox: the client was gone");
                return;
            }
        }
    }
}
