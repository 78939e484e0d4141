//! Limits concurrent connections, in total and per client.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    taken: Arc<Mutex<Taken>>,
    all_max: usize,
    per_peer_max: usize,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by_peer: HashMap<Peer, usize>,
}

/// One counted connection; released on drop.
pub(super) struct ConnectionSlot {
    taken: Arc<Mutex<Taken>>,
    peer: Peer,
}

impl ConnectionLimits {
    pub(super) fn new(all_max: usize, per_peer_max: usize) -> ConnectionLimits {
        ConnectionLimits { taken: Arc::default(), all_max, per_peer_max }
    }

    /// None when the total or this client's limit is reached.
    pub(super) fn take(&self, peer: Peer) -> Option<ConnectionSlot> {
        let mut taken = lock(&self.taken);
        let own = taken.by_peer.get(&peer).copied().unwrap_or(0);
        if taken.all >= self.all_max || own >= self.per_peer_max {
            return None;
        }
        taken.all += 1;
        taken.by_peer.insert(peer, own + 1);
        Some(ConnectionSlot { taken: Arc::clone(&self.taken), peer })
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        taken.all = taken.all.saturating_sub(1);
        if let Some(own) = taken.by_peer.get_mut(&self.peer) {
            *own -= 1;
            if *own == 0 {
                taken.by_peer.remove(&self.peer);
            }
        }
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    // A panic cannot leave the counts half changed.
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{ConnectionLimits, Peer, lock};

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
        let slots = ConnectionLimits::new(3, 2);
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
        let taken = lock(&slots.taken);
        assert_eq!((taken.all, taken.by_peer.len()), (0, 0));
    }
}
