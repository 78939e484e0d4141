//! Who is on the other side of a connection, and how many connections each of them may have.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Whom we count as one: an IPv4 address, or the 64 bits of an IPv6 address that one customer has whole.
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

/// The places for connections: some in all, and fewer for each peer.
pub(super) struct Places {
    taken: Arc<Mutex<Taken>>,
    all_max: usize,
    per_peer_max: usize,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by_peer: HashMap<Peer, usize>,
}

/// A place in use; free again when dropped.
pub(super) struct Place {
    taken: Arc<Mutex<Taken>>,
    peer: Peer,
}

impl Places {
    pub(super) fn new(all_max: usize, per_peer_max: usize) -> Places {
        Places { taken: Arc::default(), all_max, per_peer_max }
    }

    /// None when all places are taken, or all that this peer may have.
    pub(super) fn take(&self, peer: Peer) -> Option<Place> {
        let mut taken = lock(&self.taken);
        let own = taken.by_peer.get(&peer).copied().unwrap_or(0);
        if taken.all >= self.all_max || own >= self.per_peer_max {
            return None;
        }
        taken.all += 1;
        taken.by_peer.insert(peer, own + 1);
        Some(Place { taken: Arc::clone(&self.taken), peer })
    }
}

impl Drop for Place {
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
    // A panic cannot leave the counts half-changed.
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{Peer, Places, lock};

    fn peer(text: &str) -> Peer {
        Peer::of(text.parse().unwrap())
    }

    #[test]
    fn one_peer_is_an_ipv4_address_or_half_an_ipv6_address() {
        assert_ne!(peer("10.0.0.1"), peer("10.0.0.2"));
        assert_eq!(peer("10.0.0.1"), peer("::ffff:10.0.0.1"));
        assert_eq!(peer("2001:db8:1:2:3::1"), peer("2001:db8:1:2:ffff::2"));
        assert_ne!(peer("2001:db8:1:2::1"), peer("2001:db8:1:3::1"));
    }

    #[test]
    fn places_are_counted_and_come_free() {
        let places = Places::new(3, 2);
        let (a, b, c) = (peer("10.0.0.1"), peer("10.0.0.2"), peer("10.0.0.3"));
        let first = places.take(a);
        let held = [places.take(a), places.take(b)];
        assert!(first.is_some() && held.iter().all(Option::is_some));
        assert!(places.take(a).is_none() && places.take(c).is_none());
        drop(first);
        let again = places.take(a);
        assert!(again.is_some());
        assert!(places.take(a).is_none());
        drop((held, again));
        let taken = lock(&places.taken);
        assert_eq!((taken.all, taken.by_peer.len()), (0, 0));
    }
}
