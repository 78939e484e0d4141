//! Reads which files of a room import which, for the rules of the layout.

use std::collections::{BTreeMap, BTreeSet};

use super::{files, is_comment};

/// The imports of a room's files. A name that `mod.rs` only re-exports counts as of the file that defines it.
pub(super) struct Room {
    name: Option<String>,
    /// The files of the program by their module, with their code.
    pub(super) modules: BTreeMap<Vec<String>, (String, String)>,
    /// Names that a module takes from elsewhere, and from where.
    names: BTreeMap<(Vec<String>, String), Vec<String>>,
}

/// The code of a file without comments and without what only tests use, and the modules that only tests use.
fn without_tests(text: &str) -> (String, Vec<String>) {
    let (mut code, mut test_modules) = (String::new(), Vec::new());
    let mut inner = None;
    let mut lines = text.lines().filter(|line| !is_comment(line));
    while let Some(line) = lines.next() {
        let indent = line.strip_suffix(line.trim_start()).unwrap_or_default();
        if line.trim_start() == "#[cfg(test)]" {
            let mut item = lines.by_ref().skip_while(|line| line.trim_start().starts_with("#["));
            let first = item.next().unwrap_or_default();
            if let Some((_, module)) = first.split_once("mod ").filter(|_| first.ends_with(';')) {
                test_modules.push(module.trim_end_matches(';').to_owned());
            } else if !first.ends_with([';', '}', ',']) {
                item.find(|line| *line == format!("{indent}}}"));
            }
            continue;
        }
        // A module within the file is a part of it.
        if inner.is_none() && line.contains("mod ") && line.ends_with('{') {
            inner = Some(format!("{indent}}}"));
        } else if inner.as_deref() == Some(line) {
            inner = None;
        }
        let line = if inner.is_some() { line.replace("super::", "self::") } else { line.to_owned() };
        // A visibility is no import.
        code.push_str(&line.replace("(in crate::", "("));
        code.push('\n');
    }
    (code, test_modules)
}

/// Whether a line's text before `use` makes it an import.
fn is_visibility(before: &str) -> bool {
    before.trim().is_empty() || before.trim().starts_with("pub")
}

/// `a::{b, c::d}` as `a::b` and `a::c::d`.
fn expanded(tree: &str) -> Vec<String> {
    let Some((before, inner)) = tree.split_once('{') else { return vec![tree.trim().to_owned()] };
    let inner = inner.trim_end().strip_suffix('}').unwrap_or(inner);
    let (mut depth, mut parts) = (0, vec![String::new()]);
    for letter in inner.chars() {
        depth += i32::from(letter == '{') - i32::from(letter == '}');
        match letter {
            ',' if depth == 0 => parts.push(String::new()),
            letter => parts.last_mut().unwrap().push(letter),
        }
    }
    let parts = parts.iter().filter(|part| !part.trim().is_empty());
    parts.flat_map(|part| expanded(part).into_iter().map(|path| format!("{}{path}", before.trim()))).collect()
}

impl Room {
    /// Reads a folder, which is the module `name` of its crate; none: the crate itself.
    pub(super) fn read(folder: &str, name: Option<&str>) -> Room {
        let (mut modules, mut test_modules) = (BTreeMap::new(), Vec::new());
        for (file, text) in files(folder, ".rs") {
            let parts = file.trim_end_matches(".rs").split('/').filter(|part| !["mod", "lib"].contains(part));
            let module: Vec<String> = name.into_iter().chain(parts).map(str::to_owned).collect();
            let (code, tests) = without_tests(&text);
            test_modules.extend(tests.into_iter().map(|test| [module.clone(), vec![test]].concat()));
            modules.insert(module, (file, code));
        }
        modules.retain(|module: &Vec<String>, _| !test_modules.iter().any(|test| module.starts_with(test)));
        let mut room = Room { name: name.map(str::to_owned), modules, names: BTreeMap::new() };
        for module in room.modules.keys() {
            for (path, alias, _) in room.uses(module) {
                let name = alias.or_else(|| path.last().cloned()).unwrap();
                room.names.insert((module.clone(), name), path);
            }
        }
        room
    }

    /// The paths in this room that a module's `use` lines name, with the alias, and whether they re-export.
    fn uses(&self, module: &[String]) -> Vec<(Vec<String>, Option<String>, bool)> {
        let mut found = Vec::new();
        let mut lines = self.modules[module].1.lines();
        while let Some(line) = lines.next() {
            let Some((before, first)) = line.split_once("use ").filter(|(before, _)| is_visibility(before)) else {
                continue;
            };
            let mut tree = first.to_owned();
            while !tree.ends_with(';') {
                tree.push_str(lines.next().unwrap_or(";").trim());
            }
            for path in expanded(tree.trim_end_matches(';')) {
                let (path, alias) = path
                    .split_once(" as ")
                    .map_or((path.as_str(), None), |(path, alias)| (path, Some(alias.trim().to_owned())));
                let path = self.absolute(module, path.trim_end_matches("::self"));
                found.extend(path.map(|path| (path, alias, !before.trim().is_empty())));
            }
        }
        found
    }

    /// A path as seen from the crate, if it is in this room.
    fn absolute(&self, module: &[String], path: &str) -> Option<Vec<String>> {
        let parts: Vec<String> = path.split("::").map(|part| part.trim().to_owned()).collect();
        let ups = parts.iter().take_while(|part| *part == "super").count();
        let path = match parts.first()?.as_str() {
            "crate" => parts.get(1..)?.to_vec(),
            "self" => [module, parts.get(1..)?].concat(),
            "super" => [module.get(..module.len().checked_sub(ups)?)?, parts.get(ups..)?].concat(),
            first => {
                let child = [module, &[first.to_owned()]].concat();
                self.modules.contains_key(&child).then(|| [module, &parts].concat())?
            }
        };
        self.name.as_ref().is_none_or(|name| path.first() == Some(name)).then_some(path)
    }

    /// The file that defines what a path names.
    fn file_of(&self, path: &[String]) -> Option<&str> {
        let mut path = path.to_vec();
        for _ in 0..9 {
            let depth = (0..=path.len()).rev().find(|depth| self.modules.contains_key(&path[..*depth]))?;
            let (module, rest) = path.split_at(depth);
            let next = rest.first().and_then(|name| self.names.get(&(module.to_vec(), name.clone())));
            match next {
                Some(next) => path = [next.as_slice(), &rest[1..]].concat(),
                None => return Some(&self.modules[module].0),
            }
        }
        None
    }

    /// For each file, the other files of the room that it imports. A re-export counts if the file also uses the name.
    pub(super) fn imports(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut all = BTreeMap::new();
        for (module, (file, code)) in &self.modules {
            let is_use = |line: &str| line.split_once("use ").is_some_and(|(before, _)| is_visibility(before));
            let lines = code.lines().filter(|line| !is_use(line));
            let is_in_path = |letter: char| letter.is_alphanumeric() || "_:".contains(letter);
            let words: Vec<&str> = lines.flat_map(|line| line.split(|letter| !is_in_path(letter))).collect();
            let uses_name = |name: &str| words.iter().any(|word| word.split("::").next() == Some(name));
            let used = self.uses(module).into_iter().filter(|(path, alias, is_reexport)| {
                !is_reexport || alias.as_ref().or(path.last()).is_some_and(|name| uses_name(name))
            });
            let in_code = words.iter().filter(|word| word.contains("::") && !word.starts_with("::"));
            let in_code = in_code.filter_map(|word| self.absolute(module, word.trim_end_matches(':')));
            let paths = used.map(|(path, ..)| path).chain(in_code);
            let files: Vec<&str> = paths.filter_map(|path| self.file_of(&path)).collect();
            all.insert(file.as_str(), files.into_iter().filter(|other| other != file).collect());
        }
        all
    }
}

/// Each file of a room that imports itself through others, with those of its imports that do too.
pub(super) fn in_circles(imports: &BTreeMap<&str, BTreeSet<&str>>) -> Vec<String> {
    let reaches_itself = |file: &&str| {
        let (mut reached, mut open) = (BTreeSet::new(), vec![*file]);
        while let Some(one) = open.pop() {
            open.extend(imports.get(one).into_iter().flatten().copied().filter(|one| reached.insert(*one)));
        }
        reached.contains(file)
    };
    let circle: BTreeSet<&str> = imports.keys().copied().filter(reaches_itself).collect();
    let of = |file: &&str| {
        let others: Vec<&str> = imports[file].intersection(&circle).copied().collect();
        format!("{file} is in a circle of imports, with {}", others.join(", "))
    };
    circle.iter().map(of).collect()
}
