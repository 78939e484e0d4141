//! Readiness, for `/readyz`; and whether shops may be registered yet.
//!
//! A MySQL outage is tolerated: documents wait in the outbox, and the state is only degraded until the outbox is nearly
//! full and fetching is about to pause.

use std::collections::HashSet;
use std::sync::Arc;

use super::Service;
use crate::domain::health::{Code, Reason};
use crate::domain::{ShopId, counted};
use crate::sink::Sink;
use crate::store::StoreError;

/// Fill level of the outbox, in percent, above which an outage of the sink makes the service unready.
const OUTBOX_PERCENT_MAX: u64 = 90;

/// Whether the service can work, with reasons for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Why it is not ready; empty if it is.
    pub unready: Vec<String>,
    /// What is degraded: no data is lost, but an operator should look.
    pub degraded: Vec<String>,
}

impl Service {
    /// Whether the service can work, by the current health. With `of`: by the health of these shops only.
    pub fn readiness(&self, of: Option<&[ShopId]>) -> Readiness {
        let mut unready = Vec::new();
        if self.closing.is_cancelled() {
            unready.push("the process is stopping".to_owned());
        }
        let health = match of.map(|of| of.iter().cloned().collect::<HashSet<ShopId>>()) {
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
        let (blocking, degrading): (Vec<&Reason>, Vec<&Reason>) =
            health.reasons.iter().partition(|reason| blocks_work(reason.code, percent, self.restore_error().is_some()));
        unready.extend(blocking.into_iter().map(line));
        Readiness { unready, degraded: degrading.into_iter().map(line).collect() }
    }

    /// Why no shop may be registered yet, if so: MySQL may hold shops of an earlier data directory that are not
    /// restored. Registering one of them again would give it a new id and orphan its rows.
    pub(super) async fn shops_to_restore(&self) -> Result<Option<String>, StoreError> {
        let Sink::Mysql(mysql) = &self.sink else { return Ok(None) };
        if !self.store.is_blank()? {
            return Ok(None);
        }
        let known = match mysql.has_mirror().await {
            Ok(true) => mysql.shops().await.map(|shops| shops.len()),
            // The tables do not exist yet.
            Ok(false) => Ok(0),
            Err(error) => Err(error),
        };
        let why = match (self.restore_error(), known) {
            (_, Ok(0)) => return Ok(None),
            (Some(why), _) => format!("the shops in MySQL are not restored yet: {why}"),
            (None, Ok(shops)) => {
                let restoring = counted(shops, "shop is being restored", "shops are being restored");
                format!("{restoring} from MySQL; try again when that is done")
            },
            (None, Err(_)) => "MySQL cannot be reached to see which shops it holds, and registering one of them \
                               again would give it a new id; try again when MySQL is up (`waybill check` says what is wrong)"
                .to_owned(),
        };
        Ok(Some(why))
    }
}

/// Whether the service can do no useful work until someone acts. A failing stream does not count: others go on.
fn blocks_work(code: Code, outbox_percent: u64, restore_error: bool) -> bool {
    match code {
        Code::PartFailed | Code::NoRoom => true,
        Code::SinkUnavailable | Code::OutboxFull => outbox_percent >= OUTBOX_PERCENT_MAX,
        Code::RestorePending => restore_error,
        _ => false,
    }
}

fn line(reason: &Reason) -> String {
    let of = [reason.shop_id.as_deref(), reason.resource.as_deref()];
    let of = of.into_iter().flatten().collect::<Vec<_>>().join("/");
    if of.is_empty() { reason.text.clone() } else { format!("{of}: {}", reason.text) }
}

#[cfg(test)]
mod tests {
    use super::blocks_work;
    use crate::domain::health::Code;

    #[test]
    fn a_sink_outage_is_tolerated_until_the_outbox_is_90_percent_full() {
        let away = |percent| blocks_work(Code::SinkUnavailable, percent, false);
        assert_eq!([0, 89, 90, 101].map(away), [false, false, true, true]);
        assert!(blocks_work(Code::NoRoom, 0, false) && !blocks_work(Code::Refused, 100, true));
    }
}
