//! The table of keys: the only file that knows their bytes, but for the names below `m`.
//!
//! A key is a prefix and then parts; texts end with a zero byte, which no id may hold, and numbers are big-endian, so that
//! the order of keys is the order of meaning. A test compares this table with the code below (`tests/it/tidy.rs`).
//!
//! | prefix | key | value |
//! | --- | --- | --- |
//! | `s` | shop | shop and its sealed secret |
//! | `c` | client id | shop id |
//! | `t` | client id | sealed access token |
//! | `e` | shop | a shop whose state is being removed |
//! | `z` | shop | a deleted shop: `1` while the sink may need its data key; empty: no key, and rows may be left |
//! | `P` | shop | its rows were deleted for good |
//! | `a` | digest of an API key | what it grants |
//! | `i` | digest of a request's name | the stored response, sealed |
//! | `n` | time, digest of a request's name | stored responses by age |
//! | `u` | run | run with its counters |
//! | `Us` | shop, resource, combination, run | index of runs: the letter of its state |
//! | `Ur` | resource, class of state, run | index of runs: nothing |
//! | `v` | shop, resource, combination | the run that walks the stream |
//! | `k` | shop, resource, combination | checkpoint |
//! | `D` | shop, resource, combination | why the last walk of the stream does not prove that it saw the whole list |
//! | `S` | shop, resource, combination | the results of its last runs and calls, for the health |
//! | `W` | shop, resource, combination | what its last walks cost, for forecasts |
//! | `G` | shop, resource | whether its detail call works: only then is a document that is "not found" gone |
//! | `r` | shop, resource, combination, id | ledger: the list row (digest, first and last seen) |
//! | `d` | shop, resource, id | ledger: the document (digest, version, next re-read) |
//! | `j` | shop, resource, `L` or `D`, priority, record | ready jobs, alike but for seq and id |
//! | `w` | due time, seq | a delayed job: a retry or a planned re-read |
//! | `l` | fencing token | the jobs that one commit leased, while their attempts are under way |
//! | `b` | account, rule | occupied slots of a budget |
//! | `q` | account, rule | a pause that the API, or (no account, `login`) the login host, asked for |
//! | `o` | version of the first | outbox entries |
//! | `x` | resource, shop, id | archived document |
//! | `X` | resource, shop, `b`, first posting | index of the archive: a block of postings |
//! | `X` | resource, shop, `n` | how many blocks there are, and how often they took over changes |
//! | `X` | resource, shop, `t`, number | changes of the index that the blocks lack |
//! | `I` | resource | what is indexed of the archive, and whether all of it is |
//! | `p` | id | parked page or document with its reason |
//! | `h` | shop, resource, combination, parked id | a parked job that a later successful walk resolves |
//! | `y` | shop | how much of it is parked; none: nothing |
//! | `Y` | shop, resource | how much of it is parked; none: nothing |
//! | `g` | shop, resource | the full walk after which it was last repaired |
//! | `M` | shop, resource | what the sink has lost of it; none: nothing that is known |
//! | `f` | resource | fields of documents that no column takes |
//! | `C` | day (0: ever), rule | calls, by how they were answered |
//! | `m` | name | store-wide values: sequences, counters, format, cursor key, the source, last served ticks of the schedule |

use serde::{Deserialize, Serialize};

use crate::domain::{CallKind, Job, JobSeq, Priority, RunId, ShopId, StreamId, Timestamp};

/// A queue of ready jobs: one shop's pages or details of one resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Queue {
    pub shop: ShopId,
    pub resource: String,
    pub kind: CallKind,
}

impl Queue {
    /// The queue of a job.
    pub fn of(job: &Job) -> Queue {
        Queue { shop: job.shop.clone(), resource: job.resource.clone(), kind: job.kind.call() }
    }

    /// The queues of a shop's resource.
    pub fn all_of(shop: &ShopId, resource: &str) -> impl Iterator<Item = Queue> {
        CallKind::ALL.iter().map(|kind| Queue { shop: shop.clone(), resource: resource.to_owned(), kind: *kind })
    }

    pub(super) fn prefix(&self) -> Vec<u8> {
        let mut key = ready_of(&self.shop, &self.resource);
        key.push(match self.kind {
            CallKind::List => b'L',
            CallKind::Detail => b'D',
        });
        key
    }

    pub(super) fn key(&self, priority: Priority, record: u64) -> Vec<u8> {
        let mut key = self.prefix();
        key.push(priority as u8);
        key.extend(record.to_be_bytes());
        key
    }
}

/// Ready jobs of all queues.
pub(super) const READY: u8 = b'j';
pub(super) const API_KEYS: &[u8] = b"a";
pub(super) const ANSWERS: &[u8] = b"i";
pub(super) const ANSWERS_BY_AGE: &[u8] = b"n";
pub(super) const ARCHIVE: &[u8] = b"x";
pub(super) const ARCHIVE_INDEX: &[u8] = b"X";
pub(super) const CALLS: &[u8] = b"C";
pub(super) const DELETED_SHOPS: &[u8] = b"z";
pub(super) const DELAYED_JOBS: &[u8] = b"w";
pub(super) const LEASES: &[u8] = b"l";
pub(super) const OUTBOX: &[u8] = b"o";
pub(super) const PARKED: &[u8] = b"p";
pub(super) const PARKED_BY_RESOURCE: &[u8] = b"Y";
pub(super) const PARKED_BY_SHOP: &[u8] = b"y";
pub(super) const REMOVALS: &[u8] = b"e";
pub(super) const RUNS: &[u8] = b"u";
pub(super) const RUN_INDEX: &[u8] = b"U";
pub(super) const RUNS_BY_RESOURCE: &[u8] = b"Ur";
pub(super) const RUNS_BY_STREAM: &[u8] = b"Us";
pub(super) const SHOPS: &[u8] = b"s";
pub(super) const DOUBTS: &[u8] = b"D";
pub(super) const STREAM_STATUSES: &[u8] = b"S";
pub(super) const SINK_LOSSES: &[u8] = b"M";
pub(super) const TOKENS: &[u8] = b"t";

/// The records whose keys begin with their shop, and which go with it.
const OF_A_SHOP: [u8; 12] = [READY, b'r', b'd', b'k', b'v', b'g', b'h', b'S', b'W', b'D', b'G', b'M'];
/// The records of all shops that are kept in another order: delayed jobs, parked records, runs.
pub(super) const OF_ALL_SHOPS: [&[u8]; 3] = [DELAYED_JOBS, PARKED, RUNS];

/// The records with errors and reasons (`texts`), and the jobs, which had some in versions up to 0.1.
pub(super) const WITH_TEXTS: [&[u8]; 7] = [SHOPS, RUNS, PARKED, STREAM_STATUSES, DOUBTS, DELAYED_JOBS, &[READY]];

/// The prefixes of all that begins with a shop, each with its kind.
pub(super) fn of_shop(shop: &str) -> impl Iterator<Item = (u8, Vec<u8>)> {
    OF_A_SHOP.into_iter().map(move |kind| (kind, texts(kind, &[shop])))
}

/// The shop whose health a record is about: a shop, a stream's status or doubt, a count of parked records.
pub(super) fn shop_of_health(key: &[u8]) -> Option<ShopId> {
    let (b's' | b'S' | b'D' | b'M' | b'Y', rest) = key.split_first()? else { return None };
    let shop = rest.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(shop).into())
}

/// The run of a run's record; none for other keys.
pub(super) fn run_of(key: &[u8]) -> Option<RunId> {
    if key.starts_with(RUNS) { run_of_index(key) } else { None }
}

/// The run that a key of an index of runs ends with.
pub(super) fn run_of_index(key: &[u8]) -> Option<RunId> {
    number_of(key).map(RunId::from_number)
}

macro_rules! of_texts {
    ($($name:ident($($part:ident),+) = $prefix:literal;)+) => {
        $(pub(super) fn $name($($part: &str),+) -> Vec<u8> {
            texts($prefix, &[$($part),+])
        })+
    };
}
of_texts! {
    archive_of(resource) = b'x';
    archive_of_shop(resource, shop) = b'x';
    archive_index_of(resource) = b'X';
    archive_index_of_shop(resource, shop) = b'X';
    archive_index_state(resource) = b'I';
    checkpoints_of(shop, resource) = b'k';
    client(client_id) = b'c';
    deleted_shop(shop) = b'z';
    detail_proof(shop, resource) = b'G';
    documents_of(shop, resource) = b'd';
    drift(resource) = b'f';
    repaired_at(shop, resource) = b'g';
    parked_jobs_of(shop, resource) = b'h';
    parked_of_resource(shop, resource) = b'Y';
    parked_of_shop(shop) = b'y';
    pause(account, rule) = b'q';
    pauses_of(account) = b'q';
    purged(shop) = b'P';
    ready_of(shop, resource) = b'j';
    ready_of_shop(shop) = b'j';
    removal(shop) = b'e';
    shop(id) = b's';
    sink_loss(shop, resource) = b'M';
    slots(account, rule) = b'b';
    slots_of(account) = b'b';
    token(client_id) = b't';
    walks_of(shop, resource) = b'v';
}

macro_rules! of_stream {
    ($($name:ident = $prefix:literal;)+) => {
        $(pub(super) fn $name(of: &StreamId) -> Vec<u8> {
            stream($prefix, of)
        })+
    };
}
of_stream! {
    checkpoint = b'k';
    doubt = b'D';
    parked_jobs = b'h';
    rows = b'r';
    stream_status = b'S';
    walk = b'v';
    walk_costs = b'W';
}

macro_rules! of_number {
    ($($name:ident = $prefix:literal;)+) => {
        $(pub(super) fn $name(number: u64) -> Vec<u8> {
            numbered($prefix, number)
        })+
    };
}
of_number! {
    calls_of_day = b'C';
    lease = b'l';
    outbox = b'o';
    parked = b'p';
}

pub(super) fn run(id: RunId) -> Vec<u8> {
    numbered(b'u', id.number())
}

/// The shop in a key that holds nothing else.
pub(super) fn only_shop(key: &[u8]) -> ShopId {
    String::from_utf8_lossy(key.get(1..key.len() - 1).unwrap_or_default()).into()
}

/// Shop and resource in the key of a sink's loss.
pub(super) fn shop_and_resource(key: &[u8]) -> Option<(ShopId, String)> {
    let text = String::from_utf8_lossy(key.get(1..)?);
    let mut parts = text.split('\0');
    Some((parts.next()?.into(), parts.next()?.to_owned()))
}

/// The resource in the key of an archived document.
pub(super) fn resource_of_archived(key: &[u8]) -> Option<String> {
    let resource = key.get(1..)?.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(resource).into_owned())
}

/// The rows of the stream that a checkpoint's key names.
pub(super) fn rows_of_checkpoint(mut checkpoint: Vec<u8>) -> Vec<u8> {
    if let Some(kind) = checkpoint.first_mut() {
        *kind = b'r';
    }
    checkpoint
}

pub(super) fn api_key(digest: &[u8]) -> Vec<u8> {
    [API_KEYS, digest].concat()
}

pub(super) fn answer(name: &[u8]) -> Vec<u8> {
    [ANSWERS, name].concat()
}

pub(super) fn answer_by_age(at: Timestamp, name: &[u8]) -> Vec<u8> {
    [ANSWERS_BY_AGE, &millis(at).to_be_bytes(), name].concat()
}

/// Index of runs by stream.
pub(super) fn run_of_stream(of: &StreamId, run: RunId) -> Vec<u8> {
    [RUN_INDEX, &stream(b's', of), &run.number().to_be_bytes()].concat()
}

/// Index of runs by resource and class of state.
pub(super) fn run_of_resource(resource: &str, class: u8, run: RunId) -> Vec<u8> {
    [&runs_of_resource(Some(resource)), [class].as_slice(), &run.number().to_be_bytes()].concat()
}

pub(super) fn runs_of_shop(shop: &str, resource: Option<&str>) -> Vec<u8> {
    let parts: Vec<&str> = std::iter::once(shop).chain(resource).collect();
    [RUN_INDEX, &texts(b's', &parts)].concat()
}

pub(super) fn runs_of_resource(resource: Option<&str>) -> Vec<u8> {
    [RUN_INDEX, &texts(b'r', resource.as_slice())].concat()
}

pub(super) fn texts(prefix: u8, parts: &[&str]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|part| part.len() + 1).sum::<usize>());
    key.push(prefix);
    for part in parts {
        key.extend_from_slice(part.as_bytes());
        key.push(0);
    }
    key
}

pub(super) fn numbered(prefix: u8, number: u64) -> Vec<u8> {
    let mut key = vec![prefix];
    key.extend(number.to_be_bytes());
    key
}

/// A time in a key; one before 1970 as 1970.
fn millis(at: Timestamp) -> u64 {
    u64::try_from(at.as_millis()).unwrap_or(0)
}

/// The time that such a number means.
pub(super) fn time_of(millis: u64) -> Option<Timestamp> {
    i64::try_from(millis).ok().map(Timestamp::from_millis)
}

pub(super) fn number_of(key: &[u8]) -> Option<u64> {
    key.split_last_chunk::<8>().map(|(_, number)| u64::from_be_bytes(*number))
}

/// When a delayed job is due, and its seq: what its key says. Stored as a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(Timestamp, JobSeq)", into = "(Timestamp, JobSeq)")]
pub(crate) struct DueJob {
    pub(crate) due: Timestamp,
    pub(crate) seq: JobSeq,
}

impl DueJob {
    pub(super) fn key(self) -> Vec<u8> {
        let mut key = numbered(b'w', millis(self.due));
        key.extend(self.seq.number().to_be_bytes());
        key
    }

    pub(super) fn of_key(key: &[u8]) -> Option<DueJob> {
        let (rest, seq) = key.split_last_chunk::<8>()?;
        let due = time_of(number_of(rest)?)?;
        Some(DueJob { due, seq: JobSeq::from_number(u64::from_be_bytes(*seq)) })
    }
}

impl From<(Timestamp, JobSeq)> for DueJob {
    fn from((due, seq): (Timestamp, JobSeq)) -> DueJob {
        DueJob { due, seq }
    }
}

impl From<DueJob> for (Timestamp, JobSeq) {
    fn from(DueJob { due, seq }: DueJob) -> (Timestamp, JobSeq) {
        (due, seq)
    }
}

pub(super) fn stream(prefix: u8, stream: &StreamId) -> Vec<u8> {
    texts(prefix, &[&stream.shop, &stream.resource, &stream.combination.to_string()])
}

pub(super) fn row(of: &StreamId, id: &str) -> Vec<u8> {
    let mut key = stream(b'r', of);
    key.extend_from_slice(id.as_bytes());
    key
}

/// A row that cannot be stored. A control character leads: no stored id begins with one.
pub(super) fn rejected_row(of: &StreamId, fingerprint: &str) -> Vec<u8> {
    row(of, &format!("\u{1}{fingerprint}"))
}

/// A parked job that a walk may resolve.
pub(super) fn parked_job(of: &StreamId, parked: u64) -> Vec<u8> {
    let mut key = stream(b'h', of);
    key.extend_from_slice(&parked.to_be_bytes());
    key
}

pub(super) fn document(shop: &str, resource: &str, id: &str) -> Vec<u8> {
    let mut key = texts(b'd', &[shop, resource]);
    key.extend_from_slice(id.as_bytes());
    key
}

pub(super) fn archived(resource: &str, shop: &str, id: &str) -> Vec<u8> {
    let mut key = texts(b'x', &[resource, shop]);
    key.extend_from_slice(id.as_bytes());
    key
}

/// The blocks of an index, by their first posting; all of them without one.
pub(super) fn index_block(index: &[u8], first: &[u8]) -> Vec<u8> {
    [index, b"b", first].concat()
}

pub(super) fn index_blocks_count(index: &[u8]) -> Vec<u8> {
    [index, b"n"].concat()
}

/// The changes of an index that its blocks lack.
pub(super) fn index_changes(index: &[u8]) -> Vec<u8> {
    [index, b"t"].concat()
}

pub(super) fn index_change(index: &[u8], number: u64) -> Vec<u8> {
    [index, b"t", &number.to_be_bytes()].concat()
}

/// The first key after everything that begins with `prefix`.
pub(super) fn after(prefix: &[u8]) -> Vec<u8> {
    let mut key = prefix.to_vec();
    while let Some(last) = key.pop() {
        if last < u8::MAX {
            key.push(last + 1);
            return key;
        }
    }
    vec![u8::MAX; 64]
}
