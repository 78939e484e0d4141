//! A stream: shop x resource x one combination of list parameters. Each has its own walks and checkpoint.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::shop_id::ShopId;
use super::timestamp::Timestamp;

/// List parameters of one stream, sorted by name: `[("status", "open")]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ListParams(pub Vec<(String, String)>);

impl ListParams {
    /// Longest text form that a sink can store, in characters.
    pub const CHARS_MAX: usize = 255;

    /// The parameters by name.
    pub fn parameters(&self) -> BTreeMap<&str, &str> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    /// The value of one parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// `name=value&name=value`; empty when the list takes no parameters.
impl fmt::Display for ListParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "&" };
            write!(f, "{separator}{name}={value}")?;
        }
        Ok(())
    }
}

/// Identifies a stream.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StreamId {
    pub shop: ShopId,
    pub resource: String,
    pub combination: ListParams,
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.shop, self.resource)?;
        if !self.combination.0.is_empty() {
            write!(f, "?{}", self.combination)?;
        }
        Ok(())
    }
}

/// Durable progress of a stream. Everything listed by the walk that set it is in the sink, in the outbox, has a live
/// job, or is parked. It never moves back, except to now after a clock was ahead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Start of the last walk of any mode that ended well.
    pub walked_at: Option<Timestamp>,
    /// Start of the one before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub walked_before: Option<Timestamp>,
    /// Start of the last full walk that ended well; None: the stream has no whole history yet.
    pub full_walk_at: Option<Timestamp>,
    /// Latest row time seen by a walk that ended well.
    pub newest: Option<Timestamp>,
}

impl Checkpoint {
    /// The checkpoint without future times, which a clock that was ahead recorded.
    #[must_use]
    pub fn until(&self, now: Timestamp) -> Checkpoint {
        Checkpoint {
            walked_at: self.walked_at.filter(|at| *at <= now),
            walked_before: self.walked_before.filter(|at| *at <= now),
            full_walk_at: self.full_walk_at.map(|at| at.min(now)),
            newest: self.newest,
        }
    }

    /// The later of both, field by field: a checkpoint never moves back.
    pub fn advance(&self, by: &Checkpoint) -> Checkpoint {
        Checkpoint {
            walked_at: self.walked_at.max(by.walked_at),
            walked_before: if by.walked_at > self.walked_at { self.walked_at } else { self.walked_before },
            full_walk_at: self.full_walk_at.max(by.full_walk_at),
            newest: self.newest.max(by.newest),
        }
    }
}
