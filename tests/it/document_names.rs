//! What the documents name exists: files, functions, tests and the targets of links.

use std::fs;

use super::{assert_none, count, files, root};

/// What a page puts in backticks, without code blocks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2).filter(|piece| !piece.contains(char::is_whitespace))
}

/// The pages for people, and the head of the program.
fn documents() -> Vec<(String, String)> {
    let of_root = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "src/lib.rs"];
    let of_root = of_root.map(|page| (page.to_owned(), fs::read_to_string(root().join(page)).unwrap()));
    let docs = files("docs", ".md").into_iter().map(|(page, text)| (format!("docs/{page}"), text));
    docs.chain(of_root).collect()
}

/// The files of the program and of its tests by their module, with their text.
fn modules() -> Vec<(Vec<String>, String)> {
    let of = |first: Option<&'static str>, folder| {
        files(folder, ".rs").into_iter().map(move |(file, text)| {
            let parts = file.trim_end_matches(".rs").split('/').filter(|part| *part != "mod");
            (first.into_iter().chain(parts).map(str::to_owned).collect(), text)
        })
    };
    of(None, "src").chain(of(Some("it"), "tests/it")).collect()
}

/// Whether `a::b::c` is a module, or a function in one.
fn is_module_or_function(modules: &[(Vec<String>, String)], name: &str) -> bool {
    // Tests may be a file beside that of their module.
    let names = [name.to_owned(), name.replace("::tests", "_tests")];
    names.iter().map(|name| name.split("::").collect::<Vec<_>>()).any(|name| {
        modules.iter().any(|(module, text)| {
            let Some((inner, rest)) = name.split_at_checked(module.len()) else { return false };
            let is_there =
                |name: &&str| text.contains(&format!("mod {name} ")) || text.contains(&format!("fn {name}("));
            inner.iter().eq(module.iter()) && rest.iter().all(is_there)
        })
    })
}

#[test]
fn what_the_documents_name_exists() {
    let (modules, rig) = (modules(), fs::read_to_string(root().join("tests/rig/tests.rs")).unwrap());
    let is_folder = |name: &str| [root().join(name), root().join("src").join(name)].iter().any(|path| path.is_dir());
    let path_of =
        |name: &str| [root().join(name), root().join("src").join(name)].into_iter().find(|path| path.exists());
    let mut found = Vec::new();
    for (page, text) in documents() {
        for name in quoted(&text) {
            let is_ours = name.split_once('/').is_some_and(|(first, _)| !first.is_empty() && is_folder(first));
            if is_ours && !name.contains(['*', '<', '{']) && path_of(name).is_none() {
                found.push(format!("{page}: there is no {name}"));
            }
            if name.contains("::") && !name.ends_with("::") && !is_module_or_function(&modules, name) {
                found.push(format!("{page}: {name} is neither a test nor a module"));
            }
        }
        // A file and what is in it: (`a/b.rs`, `name`).
        for (at, between) in text.match_indices(".rs`, `") {
            let file = text.get(..at + 3).and_then(|before| before.rsplit('`').next()).unwrap_or_default();
            let name = text.get(at + between.len()..).and_then(|after| after.split('`').next()).unwrap_or_default();
            let code = path_of(file).and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
            if !name.contains('/') && count(&code, name) == 0 {
                found.push(format!("{page}: there is no {name} in {file}"));
            }
        }
        for (at, begin) in text.match_indices("](") {
            let target =
                text.get(at + begin.len()..).and_then(|rest| rest.split([')', '#']).next()).unwrap_or_default();
            let folder = root().join(&page).parent().unwrap().to_owned();
            if page.ends_with(".md") && !target.contains(':') && !folder.join(target).exists() {
                found.push(format!("{page}: the link to {target} leads nowhere"));
            }
        }
        for (at, begin) in text.match_indices("ig: `") {
            let mut rest = text.get(at + begin.len()..).unwrap_or_default().split('`');
            while let Some(name) = rest.next() {
                if !rig.contains(&format!("name: \"{name}\"")) {
                    found.push(format!("{page}: the rig has no test {name}"));
                }
                if rest.next().is_none_or(|between| between.trim() != ",") {
                    break;
                }
            }
        }
    }
    assert_none(&found);
    assert!(is_module_or_function(&modules, "it::document_names::what_the_documents_name_exists"));
    assert!(!is_module_or_function(&modules, "it::imports::what_the_documents_name_exists"));
}
