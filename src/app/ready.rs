//! Whether the installation can do its work: what `/readyz` tells, and what the registering of shops waits for.
//!
//! A sink that is away is borne for long: documents wait in the outbox, so it is degraded only, until the outbox is
//! nearly full and fetching is about to pause.

use super::Inner;
use crate::http::backend::Readiness;
use crate::sink::Sink;
use crate::store::StoreError;

/// So much of the outbox, in percent, may fill before a sink that is away keeps us from our work.
const OUTBOX_PERCENT_MAX: u64 = 90;

impl Inner {
    pub(super) fn readiness(&self) -> Readiness {
        let mut unready = Vec::new();
        let mut degraded = Vec::new();
        if *self.store.failed().borrow() {
            let part = self.store.failed_part().unwrap_or("the store");
            unready.push(format!("{part} failed; the process must be restarted"));
        }
        if let Err(error) = self.store.has_room() {
            unready.push(format!("nothing can be written now: {error}"));
        }
        if self.closing.is_cancelled() {
            unready.push("the process is stopping".to_owned());
        }
        match self.unrestored() {
            Some(why) => unready.push(format!("shops that MySQL knows are not taken over yet: {why}")),
            None if self.store.is_blank().unwrap_or(false) => {
                let why =
                    "whether MySQL knows shops of before could not be told yet; the log and `waybill check` say why";
                degraded.push(why.to_owned());
            }
            None => {}
        }
        if self.health.error().is_some() {
            let percent = self.store.outbox_bytes().unwrap_or(0).saturating_mul(100) / self.outbox_bytes_max.max(1);
            let told = format!(
                "MySQL takes no documents; they wait in the outbox, which is {percent} % full: `sink` of \
                 /api/v1/status says why"
            );
            if is_bearable(percent) { degraded.push(told) } else { unready.push(told) }
        }
        Readiness { unready, degraded }
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

fn is_bearable(outbox_percent: u64) -> bool {
    outbox_percent < OUTBOX_PERCENT_MAX
}

#[cfg(test)]
mod tests {
    use super::is_bearable;

    #[test]
    fn a_sink_that_is_away_is_borne_until_the_outbox_is_nearly_full() {
        assert!(is_bearable(0) && is_bearable(89) && !is_bearable(90) && !is_bearable(101));
    }
}
