//! The address of a client behind proxies: what `X-Forwarded-For`, or `Forwarded` (RFC 7239), says as far as the proxies
//! that wrote it are trusted.
//!
//! Each proxy appends the address that it was called from, so the list is read from its end, for as long as the address
//! before is one of a trusted proxy. What a client puts in front of it changes nothing. A proxy writes one of both headers
//! and passes the other on from the client: `Forwarded` counts only where there is no `X-Forwarded-For`.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use warp::http::HeaderMap;
use warp::http::header::FORWARDED;

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The proxies whose word about their client counts.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Arc<[IpNet]>);

impl TrustedProxies {
    pub fn new(networks: Vec<IpNet>) -> TrustedProxies {
        TrustedProxies(networks.into())
    }

    pub(super) fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The address of the client whose request came from `peer`.
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        if !self.trusts(client) {
            return client;
        }
        let has_list = headers.contains_key(X_FORWARDED_FOR);
        let hops = if has_list { x_forwarded_for(headers) } else { forwarded(headers) };
        for hop in hops.into_iter().rev() {
            // One that hides its client, or writes nonsense, is itself the last that is known.
            let Some(hop) = hop else { break };
            client = hop;
            if !self.trusts(client) {
                break;
            }
        }
        client
    }
}

/// The hops of `X-Forwarded-For`, the client first. None: not an address.
fn x_forwarded_for(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let values = headers.get_all(X_FORWARDED_FOR).iter();
    let mut hops = Vec::new();
    for value in values {
        match value.to_str() {
            Ok(text) => hops.extend(text.split(',').map(str::trim).filter(|hop| !hop.is_empty()).map(node)),
            Err(_) => hops.push(None),
        }
    }
    hops
}

/// The hops of `Forwarded`.
fn forwarded(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let mut hops = Vec::new();
    for value in headers.get_all(FORWARDED) {
        match value.to_str() {
            Ok(text) => {
                hops.extend(unquoted(text, ',').into_iter().filter(|element| !element.trim().is_empty()).map(for_of));
            }
            Err(_) => hops.push(None),
        }
    }
    hops
}

/// The address of `for` in one element, like `for="[2001:db8::1]:4711";proto=https`.
fn for_of(element: &str) -> Option<IpAddr> {
    let pairs = unquoted(element, ';').into_iter().filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.into_iter().find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    node(value.trim().trim_matches('"'))
}

/// Splits at a separator that is not in quotes.
fn unquoted(text: &str, separator: char) -> Vec<&str> {
    let mut is_quoted = false;
    text.split(|letter| {
        is_quoted ^= letter == '"';
        letter == separator && !is_quoted
    })
    .collect()
}

/// An address, with or without brackets and port.
fn node(text: &str) -> Option<IpAddr> {
    let text = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        // One colon: a port; more: an address of version 6.
        None if text.matches(':').count() == 1 => text.split_once(':')?.0,
        None => text,
    };
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use warp::http::HeaderMap;
    use warp::http::header::HeaderName;

    use super::TrustedProxies;

    fn client(peer: &str, headers: &[(&str, &str)]) -> String {
        let trusted = ["127.0.0.1/32", "10.0.0.0/8", "2001:db8::/32"].map(|network| network.parse().unwrap());
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        TrustedProxies::new(trusted.to_vec()).client(peer.parse().unwrap(), &map).to_string()
    }

    #[test]
    fn the_client_is_the_last_address_that_no_trusted_proxy_has() {
        const LIST: &str = "X-Forwarded-For";
        for (peer, value, expected) in [
            // A stranger may say what it likes.
            ("192.0.2.1", "198.51.100.7", "192.0.2.1"),
            ("127.0.0.1", "198.51.100.7", "198.51.100.7"),
            ("::ffff:127.0.0.1", "198.51.100.7", "198.51.100.7"),
            // What is before the client's address is its own invention.
            ("127.0.0.1", "1.1.1.1, 10.9.9.9, 198.51.100.7", "198.51.100.7"),
            ("127.0.0.1", "1.1.1.1, 198.51.100.7, 10.0.0.3,10.0.0.2", "198.51.100.7"),
            ("127.0.0.1", "10.0.0.5, 10.0.0.4", "10.0.0.5"),
            ("127.0.0.1", "198.51.100.7:4711", "198.51.100.7"),
            ("127.0.0.1", "[2a00:1450::5]:443", "2a00:1450::5"),
            ("127.0.0.1", "2a00:1450::5", "2a00:1450::5"),
            ("2001:db8::1", " , 198.51.100.7 , ", "198.51.100.7"),
            ("127.0.0.1", "198.51.100.7, unknown", "127.0.0.1"),
            ("127.0.0.1", "198.51.100.7, nonsense, 10.0.0.2", "10.0.0.2"),
            ("127.0.0.1", "", "127.0.0.1"),
        ] {
            assert_eq!(client(peer, &[(LIST, value)]), expected, "{peer}: {value}");
        }
        assert_eq!(client("127.0.0.1", &[]), "127.0.0.1");
        assert_eq!(client("127.0.0.1", &[(LIST, "1.1.1.1"), (LIST, "198.51.100.7, 10.0.0.2")]), "198.51.100.7");
    }

    #[test]
    fn forwarded_counts_where_no_list_is() {
        for (value, expected) in [
            ("for=198.51.100.7", "198.51.100.7"),
            ("For=\"[2a00:1450::5]:4711\";proto=https;by=10.0.0.1", "2a00:1450::5"),
            ("for=1.1.1.1, proto=http;for=198.51.100.7;host=\"a,b;c\", for=10.0.0.2", "198.51.100.7"),
            ("for=198.51.100.7, for=_hidden", "127.0.0.1"),
            ("for=198.51.100.7, proto=https", "127.0.0.1"),
            ("nonsense", "127.0.0.1"),
        ] {
            assert_eq!(client("127.0.0.1", &[("Forwarded", value)]), expected, "{value}");
        }
        let both = [("X-Forwarded-For", "198.51.100.7"), ("Forwarded", "for=1.1.1.1")];
        assert_eq!(client("127.0.0.1", &both), "198.51.100.7");
    }
}
