//! The [`Service`] itself: what it is made of. What it does is in the other files.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;

use super::health_book::HealthBook;
use super::key_usage::KeyUsage;
use super::rotation_state::{MasterKeyFiles, Rotation};
use super::sink_progress::{ArchiveMove, SinkCheck, Unrestored};
use super::status::Overdue;
use crate::catalog::Definition;
use crate::domain::{Shop, Timestamp};
use crate::sink::{ReadLimits, ReadTurns, Sink, SinkHealth};
use crate::source::Source;
use crate::store::Store;
use crate::sync::Engine;

/// Lists of documents that a key may have under way: a browser or a pool of connections has fewer.
const READS_OF_ONE_KEY: usize = 8;
/// Time of one list, its waits included.
const READ_TIME_MAX: Duration = Duration::from_secs(5);

/// Everything that callers may ask for or change. Cheap to clone; all clones share one state.
#[derive(Clone)]
pub struct Service {
    pub(super) store: Store,
    pub(super) engine: Engine,
    pub(super) source: Arc<Source>,
    pub(super) sink: Sink,
    pub(super) sink_health: SinkHealth,
    /// Turns of the lists of documents.
    pub(super) reads: ReadTurns,
    pub(super) definitions: Arc<[Arc<Definition>]>,
    /// SHA-256 of the admin key of the configuration.
    pub(super) admin_key: Option<[u8; 32]>,
    pub(super) metrics: PrometheusHandle,
    pub(super) started_at: Timestamp,
    /// Fetching pauses while the outbox is larger.
    pub(super) outbox_bytes_max: u64,
    /// Shutdown has begun: not ready any more.
    pub(super) closing: CancellationToken,
    pub(super) health_book: Arc<HealthBook>,
    pub(super) key_usage: Arc<KeyUsage>,
    /// Serializes completeness comparisons: each reads the whole ledger of a shop.
    pub(super) completeness_lock: Arc<tokio::sync::Mutex<()>>,
    /// How the last try to restore from MySQL failed; none: it did not, or was not needed.
    pub(super) unrestored: Arc<Mutex<Option<Unrestored>>>,
    pub(super) overdue: Arc<Mutex<Vec<Overdue>>>,
    pub(super) archive_move: Arc<ArchiveMove>,
    pub(super) sink_check: Arc<SinkCheck>,
    pub(super) key_files: Arc<dyn MasterKeyFiles>,
    pub(super) rotation: Arc<Rotation>,
}

/// What a service is built from.
pub(crate) struct ServiceDeps {
    pub(crate) store: Store,
    pub(crate) engine: Engine,
    pub(crate) source: Arc<Source>,
    pub(crate) sink: Sink,
    pub(crate) sink_health: SinkHealth,
    pub(crate) definitions: Arc<[Arc<Definition>]>,
    pub(crate) admin_key: Option<[u8; 32]>,
    pub(crate) metrics: PrometheusHandle,
    pub(crate) outbox_bytes_max: u64,
    pub(crate) closing: CancellationToken,
    pub(crate) health_book: HealthBook,
    pub(crate) key_files: Arc<dyn MasterKeyFiles>,
}

fn read_limits(sink: &Sink) -> ReadLimits {
    let (places, rests) = (sink.places(), sink.rests());
    ReadLimits { places, rests, of_one_key: READS_OF_ONE_KEY, time_max: READ_TIME_MAX }
}

impl Service {
    pub(crate) fn new(deps: ServiceDeps) -> Service {
        let (store, limits) = (deps.store.clone(), read_limits(&deps.sink));
        let service = Service {
            started_at: deps.store.clock().now(),
            store: deps.store,
            engine: deps.engine,
            source: deps.source,
            sink: deps.sink,
            sink_health: deps.sink_health,
            reads: ReadTurns::new(limits, move || store.work_done()),
            definitions: deps.definitions,
            admin_key: deps.admin_key,
            metrics: deps.metrics,
            outbox_bytes_max: deps.outbox_bytes_max,
            closing: deps.closing,
            health_book: Arc::new(deps.health_book),
            key_usage: Arc::default(),
            completeness_lock: Arc::default(),
            unrestored: Arc::default(),
            overdue: Arc::default(),
            archive_move: Arc::default(),
            sink_check: Arc::default(),
            key_files: deps.key_files,
            rotation: Arc::default(),
        };
        service.register_counters();
        service
    }

    /// The key of this installation that signs cursors: 32 random bytes.
    pub fn cursor_key(&self) -> [u8; 32] {
        self.store.cursor_key().try_into().unwrap_or([0; 32])
    }

    /// The configured resources.
    pub fn definitions(&self) -> &[Arc<Definition>] {
        &self.definitions
    }

    pub(super) fn definition(&self, resource: &str) -> Option<&Arc<Definition>> {
        self.definitions.iter().find(|definition| definition.name == resource)
    }

    /// The definitions of the resources that a shop syncs.
    pub(crate) fn definitions_of<'a>(&'a self, shop: &'a Shop) -> impl Iterator<Item = &'a Definition> {
        self.definitions.iter().map(AsRef::as_ref).filter(|definition| shop.syncs(&definition.name))
    }
}
