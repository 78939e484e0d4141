//! The bytes of a data directory, as a thief would read them.

use std::fs;
use std::path::{Path, PathBuf};

/// A block of the write-ahead log, where a record may begin; its begin; its length, and its head.
const BLOCK: usize = 4096;
const RECORD: &[u8] = b"\xffwaylog\x01";
const LENGTH: std::ops::Range<usize> = 16..20;
const HEAD: usize = 36;

/// All files below a folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Their bytes, and what the records of a write-ahead log hold, which are compressed. Those of a running service may
/// vanish, and are left out then.
pub(crate) fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for path in files(folder) {
        let Ok(bytes) = fs::read(&path) else { continue };
        let blocks = bytes.chunks(BLOCK).enumerate().filter(|(_, block)| block.starts_with(RECORD));
        found.extend(blocks.filter_map(|(at, _)| Some((path.clone(), record(bytes.get(at * BLOCK..)?)?))));
        found.push((path, bytes));
    }
    found
}

/// What a record of the write-ahead log holds; none: it was cut off, or overwritten in part.
fn record(bytes: &[u8]) -> Option<Vec<u8>> {
    let length = u32::from_be_bytes(bytes.get(LENGTH)?.try_into().ok()?) as usize;
    lz4_flex::block::decompress_size_prepended(bytes.get(HEAD..HEAD + length)?).ok()
}
