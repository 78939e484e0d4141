//! Limits of the HTTP server and API.

use std::time::Duration;

/// Limits of the HTTP server and API.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// Concurrent connections. One more is answered 503, or closed.
    pub connections_max: usize,
    /// Concurrent connections of one client: an IPv4 address, or an IPv6 /64.
    pub connections_per_peer_max: usize,
    /// Largest request head (request line and at most 100 headers), in bytes; at least 8 KiB.
    pub head_bytes_max: usize,
    /// Time for a head to arrive whole, from the start of the connection or the end of the response before it. One
    /// limit for idle connections and slow heads: a client that may idle gains nothing by sending half a head.
    pub head_time_max: Duration,
    /// Time in which a client receives nothing of its response.
    pub send_time_max: Duration,
    /// Time to discard what a client still sends when the connection ends, so that it can read its response.
    pub linger_time_max: Duration,
    /// Longest URI (path and query), in bytes.
    pub uri_bytes_max: usize,
    /// Largest request body, in bytes.
    pub body_bytes_max: usize,
    /// Time for a request body to arrive.
    pub body_time_max: Duration,
    /// Time to handle a request: longer than a credential check at the login host may take.
    pub answer_time_max: Duration,
    /// Time for open requests to finish during shutdown.
    pub drain_time_max: Duration,
    /// Rate limit of one key for GET and HEAD.
    pub reads: RateLimit,
    /// Rate limit of one key for all other methods.
    pub writes: RateLimit,
    /// Rate limit of one client for requests without a valid key.
    pub unauthenticated: RateLimit,
}

impl Default for ServerLimits {
    fn default() -> ServerLimits {
        ServerLimits {
            // An idle connection holds 1 to 2 KiB, and 1000 stay well below the limit of open files.
            connections_max: 1_000,
            // A browser opens 6, a connection pool some tens.
            connections_per_peer_max: 50,
            // Eight times the usual 8 KiB: cookies of other services on the same host name add up.
            head_bytes_max: 64 * 1024,
            // As long as proxies keep idle connections to us: one closed just as they use it would be an error.
            head_time_max: Duration::from_secs(60),
            send_time_max: Duration::from_secs(60),
            linger_time_max: Duration::from_secs(1),
            uri_bytes_max: 8 * 1024,
            body_bytes_max: 64 * 1024,
            body_time_max: Duration::from_secs(20),
            answer_time_max: Duration::from_secs(45),
            drain_time_max: Duration::from_secs(10),
            reads: RateLimit { per_second: 100, burst: 200 },
            writes: RateLimit { per_second: 20, burst: 40 },
            unauthenticated: RateLimit { per_second: 50, burst: 50 },
        }
    }
}

/// A rate limit with bursts (token bucket). Zero counts as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    pub per_second: u64,
    pub burst: u64,
}
