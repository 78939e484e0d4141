//! Resolves paths of the configuration, expands `~`, and reports what blocks them.
//!
//! A relative path in the file is relative to the file's folder, so that the caller's folder does not matter. One from
//! a variable is relative to the current folder, like a path in a flag.

use std::fs;
use std::path::{Path, PathBuf};

use super::settings::Settings;

/// The store creates this in its folder first.
const STORE_MARKER: &str = "sled";

/// The folder of the embedded store.
pub(super) fn data_dir(settings: &mut Settings, default: &str) -> Option<PathBuf> {
    const KEY: &str = "data_dir";
    let text = settings.text(KEY, default);
    let is_named = Path::new(&text).file_name().is_some() && !matches!(text.as_str(), "~" | "~/");
    if !is_named {
        settings.problem_at(KEY, format!("`{text}` cannot be a data directory; name one like \"data\""));
        return None;
    }
    let found = resolve(settings, KEY, &text)?;
    // Up to version 0.1 a relative path was relative to the current folder.
    let before = Path::new(&text);
    let is_moved = !settings.is_from_environment(KEY) && before.is_relative() && !text.starts_with('~');
    if is_moved && found != before && !found.join(STORE_MARKER).exists() && before.join(STORE_MARKER).exists() {
        let here = std::path::absolute(before).unwrap_or_else(|_| before.to_path_buf());
        settings.problem_at(
            KEY,
            format!(
                "`{text}` is relative to the configuration file's folder, and {} does not exist; in earlier versions it \
                 was relative to the current folder, and {} contains data: write its full path, or move it",
                found.display(),
                here.display()
            ),
        );
        return None;
    }
    Some(found)
}

/// The path of a key; `Some(None)`: not set, or empty.
pub(super) fn file(settings: &mut Settings, key: &str) -> Option<Option<PathBuf>> {
    let text = settings.text(key, "");
    if text.is_empty() {
        return Some(None);
    }
    resolve(settings, key, &text).map(Some)
}

/// The path, unless something blocks it, which is reported.
pub(super) fn unblocked(settings: &mut Settings, key: &str, path: PathBuf) -> Option<PathBuf> {
    match obstacle(&path) {
        None => Some(path),
        Some(what) => {
            settings.problem_at(key, what);
            None
        }
    }
}

fn resolve(settings: &mut Settings, key: &str, text: &str) -> Option<PathBuf> {
    let path = match expand(text, settings.home.as_deref()) {
        Ok(path) if settings.is_from_environment(key) => path,
        // Joining keeps an absolute path as it is.
        Ok(path) => settings.folder.join(path),
        Err(what) => {
            settings.problem_at(key, what);
            return None;
        }
    };
    unblocked(settings, key, path)
}

/// Expands `~` and `~/x` like a shell.
fn expand(text: &str, home: Option<&str>) -> Result<PathBuf, String> {
    let Some(rest) = text.strip_prefix('~') else { return Ok(PathBuf::from(text)) };
    if !rest.is_empty() && !rest.starts_with('/') {
        return Err(format!("`{text}` would be another user's folder; write the full path"));
    }
    let Some(home) = home.filter(|home| !home.is_empty()) else {
        return Err(format!("`{text}`: the variable HOME is not set; write the full path"));
    };
    Ok(Path::new(home).join(rest.trim_start_matches('/')))
}

/// A broken link, or a file where a folder should be, on the way to a path.
fn obstacle(path: &Path) -> Option<String> {
    let parts = path.ancestors().filter(|part| !part.as_os_str().is_empty());
    let found = parts.map(|part| (part, fs::symlink_metadata(part))).find(|(_, found)| found.is_ok());
    let (part, found) = found.and_then(|(part, found)| Some((part, found.ok()?)))?;
    let shown = part.display();
    match fs::metadata(part) {
        Err(error) if found.is_symlink() => {
            let target = fs::read_link(part).unwrap_or_default();
            Some(format!("{shown} is a link to {}, which cannot be used: {error}", target.display()))
        }
        Ok(found) if part != path && !found.is_dir() => Some(format!("{shown} is a file, not a directory")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::expand;
    use std::path::PathBuf;

    #[test]
    fn a_tilde_expands_to_the_home_folder() {
        let home = Some("/home/anna");
        assert_eq!(expand("~", home), Ok(PathBuf::from("/home/anna")));
        assert_eq!(expand("~/x/y", home), Ok(PathBuf::from("/home/anna/x/y")));
        assert_eq!(expand("a/~", home), Ok(PathBuf::from("a/~")));
        assert!(expand("~bob/x", home).unwrap_err().contains("write the full path"));
        assert!(expand("~/x", None).unwrap_err().contains("HOME is not set"));
    }
}
