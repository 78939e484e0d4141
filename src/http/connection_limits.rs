//! Limits concurrent connections, and requests that proxies bring, in total and per client.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Client identity for per-client limits: IPv4 address or IPv6 /64, which one customer has whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Peer(IpAddr);

impl Peer {
    pub(super) fn of(address: IpAddr) -> Peer {
        match address.to_canonical() {
            IpAddr::V4(address) => Peer(address.into()),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Peer(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into())
            }
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Counts open connections, in total and per client.
pub(super) struct ConnectionLimits {
    all: Arc<Semaphore>,
    /// Of the clients that have a connection.
    by_peer: HashMap<Peer, Arc<Semaphore>>,
    per_peer_max: usize,
}

/// One counted connection: of all, and of its client unless that is a proxy, which brings many. Released on drop.
pub(super) type ConnectionSlot = (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>);

impl ConnectionLimits {
    pub(super) fn new(all_max: usize, per_peer_max: usize) -> ConnectionLimits {
        ConnectionLimits { all: Arc::new(Semaphore::new(all_max)), by_peer: HashMap::new(), per_peer_max }
    }

    /// None when the total or this client's limit is reached.
    pub(super) fn take(&mut self, peer: Peer) -> Option<ConnectionSlot> {
        let per_peer_max = self.per_peer_max;
        self.by_peer.retain(|_, own| own.available_permits() < per_peer_max);
        let own = self.by_peer.entry(peer).or_insert_with(|| Arc::new(Semaphore::new(per_peer_max)));
        let own = Arc::clone(own).try_acquire_owned().ok()?;
        let all = Arc::clone(&self.all).try_acquire_owned().ok()?;
        Some((all, Some(own)))
    }

    /// A connection of a proxy: only the total counts. None when that is reached.
    pub(super) fn take_shared(&self) -> Option<ConnectionSlot> {
        Some((Arc::clone(&self.all).try_acquire_owned().ok()?, None))
    }
}

#[cfg(test)]
mod tests {
    use super::{ConnectionLimits, Peer};

    fn peer(text: &str) -> Peer {
        Peer::of(text.parse().unwrap())
    }

    #[test]
    fn a_client_is_an_ipv4_address_or_an_ipv6_64() {
        assert_ne!(peer("10.0.0.1"), peer("10.0.0.2"));
        assert_eq!(peer("10.0.0.1"), peer("::ffff:10.0.0.1"));
        assert_eq!(peer("2001:db8:1:2:3::1"), peer("2001:db8:1:2:ffff::2"));
        assert_ne!(peer("2001:db8:1:2::1"), peer("2001:db8:1:3::1"));
    }

    #[test]
    fn a_dropped_slot_is_free_again() {
        let mut slots = ConnectionLimits::new(3, 2);
        let (a, b, c) = (peer("10.0.0.1"), peer("10.0.0.2"), peer("10.0.0.3"));
        let first = slots.take(a);
        let held = [slots.take(a), slots.take(b)];
        assert!(first.is_some() && held.iter().all(Option::is_some));
        assert!(slots.take(a).is_none() && slots.take(c).is_none());
        drop(first);
        let again = slots.take(a);
        assert!(again.is_some());
        assert!(slots.take(a).is_none());
        drop((held, again));
        assert!(slots.take(c).is_some());
        assert_eq!(
            (slots.all.available_permits(), slots.by_peer.len()),
            (3, 1),
            "clients without connections are kept"
        );
    }
}
