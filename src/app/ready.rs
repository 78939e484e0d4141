//! Whether the installation can do its work: what `/readyz` tells, and what the registering of shops waits for.
//!
//! A sink that is away is borne for long: documents wait in the outbox, so it is degraded only, until the outbox is
//! nearly full and fetching is about to pause.

use std::collections::HashSet;
use std::sync::Arc;

use super::Inner;
use crate::domain::health::{Code, Reason};
use crate::http::backend::Readiness;
use crate::sink::Sink;
use crate::store::StoreError;

/// So much of the outbox, in percent, may fill before a sink that is away keeps us from our work.
const OUTBOX_PERCENT_MAX: u64 = 90;

impl Inner {
    /// From the health: what keeps it from its work, and what it does without. Of some shops: without other shops.
    pub(super) fn readiness(&self, of: Option<Vec<String>>) -> Readiness {
        let mut unready = Vec::new();
        if self.closing.is_cancelled() {
            unready.push("the process is stopping".to_owned());
        }
        let health = match of.map(|of| of.into_iter().collect::<HashSet<String>>()) {
            None => self.health_now(),
            Some(of) => self.health_of(&of).map(Arc::new),
        };
        let health = match health {
            Ok(health) => health,
            Err(error) => {
                unready.push(format!("the store cannot be read: {error}"));
                return Readiness { unready, degraded: Vec::new() };
            }
        };
        let percent = self.store.outbox_bytes().unwrap_or(0).saturating_mul(100) / self.outbox_bytes_max.max(1);
        let (stops, bears): (Vec<&Reason>, Vec<&Reason>) = health
            .reasons
            .iter()
            .partition(|reason| keeps_from_work(reason.code, percent, self.unrestored().is_some()));
        unready.extend(stops.into_iter().map(line));
        Readiness { unready, degraded: bears.into_iter().map(line).collect() }
    }

    /// Why nothing may be registered now, if so: MySQL may know shops of an earlier data directory that were not taken
    /// over. Who registers one of them anew would get another id, and its rows of before would belong to nobody.
    pub(super) async fn shops_to_restore(&self) -> Result<Option<String>, StoreError> {
        let Sink::Mysql(mysql) = &self.sink else { return Ok(None) };
        if !self.store.is_blank()? {
            return Ok(None);
        }
        let known = match mysql.has_mirror().await {
            Ok(true) => mysql.shops().await.map(|shops| shops.len()),
            // As on a server that had no room for its tables yet.
            Ok(false) => Ok(0),
            Err(error) => Err(error),
        };
        let why = match (self.unrestored(), known) {
            (_, Ok(0)) => return Ok(None),
            (Some(why), _) => format!("shops that MySQL knows are not taken over yet: {why}"),
            (None, Ok(shops)) => format!("{shops} shops that MySQL knows are about to be taken over; ask again then"),
            (None, Err(_)) => "MySQL could not be asked yet which shops it knows, and one that it knows would get \
                               another id; try again when it can be reached (`waybill check` says what is wrong)"
                .to_owned(),
        };
        Ok(Some(why))
    }
}

/// Whether nothing useful can be done before a person acts. A stream that fails is none of that: others go on.
fn keeps_from_work(code: Code, outbox_percent: u64, unrestored: bool) -> bool {
    match code {
        Code::PartFailed | Code::NoRoom => true,
        Code::SinkUnavailable | Code::OutboxFull => outbox_percent >= OUTBOX_PERCENT_MAX,
        Code::RestorePending => unrestored,
        _ => false,
    }
}

fn line(reason: &Reason) -> String {
    let of = [&reason.shop_id, &reason.resource].into_iter().flatten().cloned().collect::<Vec<_>>().join("/");
    if of.is_empty() { reason.text.clone() } else { format!("{of}: {}", reason.text) }
}

#[cfg(test)]
mod tests {
    use super::keeps_from_work;
    use crate::domain::health::Code;

    #[test]
    fn a_sink_that_is_away_is_borne_until_the_outbox_is_nearly_full() {
        let away = |percent| keeps_from_work(Code::SinkUnavailable, percent, false);
        assert_eq!([0, 89, 90, 101].map(away), [false, false, true, true]);
        assert!(keeps_from_work(Code::NoRoom, 0, false) && !keeps_from_work(Code::Refused, 100, true));
    }
}
