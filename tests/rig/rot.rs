//! Bit rot in the data directory. A start on damaged files either finds everything, or fails with a non-zero code and
//! names the place and the remedy. Silent loss is a finding.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use crate::data_files;
use crate::oracle;
use crate::program::{Serving, lossy};
use crate::run::Run;
use crate::world::{Limit, Plan, World};

const BLOCK: usize = 4096;
const QUIET: Duration = Duration::from_secs(60);
/// Gaps are closed within this after a full walk.
const REPAIRS_WITHIN: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug)]
enum Damage {
    FlippedBit,
    CutTail,
    SwappedBlocks,
    Emptied,
}

/// The file keeps its length.
pub(crate) async fn changed(run: Run) {
    rot(run, &[Damage::FlippedBit, Damage::SwappedBlocks]).await;
}

/// The file is shorter, or empty.
pub(crate) async fn shortened(run: Run) {
    rot(run, &[Damage::CutTail, Damage::Emptied]).await;
}

async fn rot(mut run: Run, kinds: &[Damage]) {
    let free = Limit { calls: 10_000, seconds: 1 };
    let mut world = World::open(&run, Plan { list: free, detail: free, ..Plan::of(2, [80, 20]) }).await;
    let serving = world.start().await;
    world.register_all(&serving).await;
    serving.idle(QUIET).await;
    assert_eq!(tokio::task::block_in_place(|| serving.terminate()).0, Some(0));
    let whole = world.folder.path("whole");
    copy(&world.folder.path("data"), &whole);
    fs::copy(world.folder.path("data.key"), world.folder.path("damaged.key")).unwrap();
    world.move_data(world.folder.path("damaged"));
    let mut findings = Vec::new();
    for number in 0..run.tier.pick(20, 80, 100) {
        drop(fs::remove_dir_all(&world.data_dir));
        copy(&whole, &world.data_dir);
        let state = data_files::files(&world.data_dir.join("sled")).into_iter();
        let state: Vec<PathBuf> = state.filter(|path| fs::metadata(path).unwrap().len() > 0).collect();
        let victim = state[run.random.usize(..state.len())].clone();
        let what = damage(&victim, kinds, &mut run.random);
        run.note(format!("{number}: {what} of {}", victim.file_name().unwrap().to_string_lossy()));
        let mut serving = world.folder.spawn_serve();
        let started = tokio::task::block_in_place(|| serving.listens());
        let found = if started { intact(&world, &serving).await } else { None };
        let found = match found {
            Some(found) => {
                world.kill(serving);
                found
            }
            // It never listened, or met the damage later.
            None => refused(&world, serving, &run),
        };
        findings.extend(found.err().map(|found| format!("{number}: {what}: {found}")));
    }
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
    // The engine may panic at damage, as long as that is caught and reported: those panics are no finding.
    let said = lossy(&world.folder.path("serve.stderr")).replace("panicked", "stopped (judged above)");
    world.folder.write("serve.stderr", &said);
    world.move_data(world.folder.path("data"));
    let serving = world.start().await;
    oracle::judge(world, serving).await;
}

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(copied.success());
}

/// Damages the file; describes how.
fn damage(file: &Path, kinds: &[Damage], random: &mut fastrand::Rng) -> String {
    let mut bytes = fs::read(file).unwrap();
    // A flip among the zeros behind the end of a log damages nothing.
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
    let mut kind = kinds[random.usize(..kinds.len())];
    let blocks = used / BLOCK;
    if blocks < 2 && matches!(kind, Damage::SwappedBlocks) {
        kind = Damage::FlippedBit;
    }
    let written = |at: usize, bytes: &[u8]| {
        let file = fs::File::options().write(true).open(file).unwrap();
        file.write_all_at(bytes, at as u64).unwrap();
    };
    let place = match kind {
        Damage::FlippedBit => {
            let at = random.usize(..used);
            written(at, &[bytes[at] ^ 1 << random.u8(..8)]);
            at
        }
        Damage::CutTail => {
            let at = random.usize(..used);
            fs::File::options().write(true).open(file).unwrap().set_len(at as u64).unwrap();
            at
        }
        Damage::SwappedBlocks => {
            let (a, b) = (random.usize(..blocks) * BLOCK, random.usize(..blocks) * BLOCK);
            let (first, second) = (bytes[a..a + BLOCK].to_vec(), bytes[b..b + BLOCK].to_vec());
            written(a, &second);
            written(b, &first);
            a
        }
        Damage::Emptied => {
            bytes.clear();
            fs::write(file, bytes).unwrap();
            0
        }
    };
    format!("{kind:?} at {place} of {used}")
}

/// It started: every shop is there, and after a full walk or two every document. None if it ended meanwhile.
async fn intact(world: &World, serving: &Serving) -> Option<Result<(), String>> {
    let get = async |path: &str| Some(world.ask(serving, Method::GET, path, None).await?.1);
    let known = get("/api/v1/shops?limit=500").await?;
    let known = known["items"].as_array().cloned().unwrap_or_default();
    let gone = world.shops.values().filter(|id| known.iter().all(|shop| shop["id"] != **id)).count();
    if gone > 0 {
        world.run.score.lost.add(gone);
        return Some(Err(format!("{gone} shops are gone without a word")));
    }
    let expected: usize = world.from_the_start.values().map(Vec::len).sum();
    let mut stored = 0;
    // Gaps are closed automatically after each full walk but the first known one, which this may be.
    for _ in 0..2 {
        for shop in world.shops.values() {
            let path = format!("/api/v1/shops/{shop}/sync");
            world.ask(serving, Method::POST, &path, Some(json!({"mode": "full"}))).await?;
        }
        let begun = Instant::now();
        while get("/api/v1/status").await?["idle"] != true {
            if begun.elapsed() > QUIET {
                return Some(Err("it never gets quiet".to_owned()));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let begun = Instant::now();
        loop {
            stored = get("/api/v1/shipments?limit=500").await?["items"].as_array().map_or(0, Vec::len);
            if stored == expected || begun.elapsed() > REPAIRS_WITHIN {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        if stored == expected {
            break;
        }
    }
    world.run.score.documents.add(expected);
    if stored == expected {
        return Some(Ok(()));
    }
    // A document that is reported as unreadable is not lost silently.
    if world.folder.said().contains("documents cannot be opened") {
        world.run.note(format!("{stored} of {expected} documents can be opened, and that is reported"));
        return Some(Ok(()));
    }
    world.run.score.lost.add(expected.saturating_sub(stored));
    let tail = world.tail();
    Some(Err(format!("{stored} of {expected} documents after two full walks, without a word:\n{tail}")))
}

fn refused(world: &World, serving: Serving, run: &Run) -> Result<(), String> {
    let code = tokio::task::block_in_place(|| serving.ended());
    let said = world.tail();
    run.note(format!("refused with {code:?}"));
    if matches!(code, None | Some(0)) {
        return Err(format!("it ended with {code:?}"));
    }
    let place = world.data_dir.display().to_string();
    if said.contains(&place) && said.contains("move the directory aside") {
        Ok(())
    } else {
        Err(format!("its refusal names no place or no remedy: {}", said.lines().last().unwrap_or_default()))
    }
}
