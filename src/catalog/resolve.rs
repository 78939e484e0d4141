//! Resolves the resources to sync: built-in definitions merged with the configuration's, checked against each other and
//! against the rate rules.
//!
//! Called by the configuration, which continues after a problem, so that all are reported at once. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{
    Definition, DefinitionProblem, Problems, RESOURCES, Rule, RuleTable, did_you_mean, nearest, reader, source_defaults,
};

/// Prefix of Waybill's own tables.
const RESERVED_TABLES: &str = "waybill_";

/// A definition that may be incomplete.
#[derive(Clone, Debug)]
pub struct DefinitionDraft {
    pub definition: Arc<Definition>,
    /// It was read without problems of its own.
    pub is_whole: bool,
    /// It is one of the resources to sync.
    pub is_wanted: bool,
}

/// The definitions of the wanted resources: from the catalog, from `own` (the configuration's `[resource.*]` tables), or
/// both merged.
///
/// # Errors
/// Every problem of every definition at once.
pub fn resources(wanted: &[String], own: &toml::Table, rules: &RuleTable) -> Result<Vec<Arc<Definition>>, Problems> {
    let (drafts, problems) = drafts(wanted, own, rules);
    if problems.is_empty() { Ok(wanted_of(&drafts)) } else { Err(Problems(problems)) }
}

/// The definitions of the resources to sync.
pub fn wanted_of(drafts: &[DefinitionDraft]) -> Vec<Arc<Definition>> {
    drafts.iter().filter(|draft| draft.is_wanted).map(|draft| Arc::clone(&draft.definition)).collect()
}

/// Like [`resources`], but returns the incomplete definitions too, and every problem. Definitions in `own` that are not
/// wanted are checked as well, so that a misspelt name is noticed.
pub fn drafts(
    wanted: &[String],
    own: &toml::Table,
    rules: &RuleTable,
) -> (Vec<DefinitionDraft>, Vec<DefinitionProblem>) {
    let (mut drafts, mut problems) = (Vec::new(), Vec::new());
    let is_key = |name: &str| reader::KEYS.contains(&name);
    let is_nameless = own.iter().any(|(name, value)| is_key(name) && !value.is_table());
    if is_nameless {
        problems.push(DefinitionProblem::new("resource", "the name is missing; write [resource.NAME]"));
    }
    let written = own.keys().filter(|name| !(wanted.contains(name) || is_nameless && is_key(name)));
    let names: Vec<String> = wanted.iter().chain(written).cloned().collect();
    for name in &names {
        match merged_table(name, own) {
            Ok(table) => {
                let (definition, found) = reader::draft(name, &table);
                let is_whole = found.is_empty();
                problems.extend(found);
                problems.extend(unruled(&definition, rules));
                drafts.push(DefinitionDraft {
                    definition: Arc::new(definition),
                    is_whole,
                    is_wanted: wanted.contains(name),
                });
            }
            Err(problem) => problems.push(problem),
        }
    }
    for DefinitionDraft { definition, is_wanted, .. } in &drafts {
        let around = if *is_wanted { wanted } else { &names };
        problems.extend(orphaned(definition, around, own.contains_key(&definition.name)));
    }
    // Of two that clash, the user's definition is reported, not the built-in one.
    let (written, built_in): (Vec<&DefinitionDraft>, Vec<&DefinitionDraft>) =
        drafts.iter().partition(|draft| own.contains_key(&draft.definition.name));
    let all: Vec<&Definition> = built_in.into_iter().chain(written).map(|draft| draft.definition.as_ref()).collect();
    problems.extend(clashes(&all));
    (drafts, problems)
}

/// The user's rate rules that match no call of these definitions, each with the rule that may have been meant.
///
/// # Errors
/// As [`source_defaults`].
pub fn idle_rules(rules: &RuleTable, drafts: &[DefinitionDraft]) -> Result<Vec<(String, String)>, String> {
    let built_in = source_defaults()?.limits;
    let paths = || drafts.iter().flat_map(|draft| draft.definition.paths());
    let used: Vec<&str> = paths().filter_map(|path| rules.find("GET", path)).map(|rule| rule.name.as_str()).collect();
    let wanted: Vec<String> = paths().map(|path| Rule::name_for("GET", path)).collect();
    let names = rules.rules().iter().map(|rule| &rule.name);
    let idle = names.filter(|name| !built_in.contains_key(*name) && !used.contains(&name.as_str()));
    let is_free = |name: &&String| built_in.contains_key(*name) || rules.rules().iter().all(|rule| rule.name != **name);
    let known = || built_in.keys().chain(&wanted).filter(is_free).map(String::as_str);
    Ok(idle.map(|name| (name.clone(), did_you_mean(name, known()))).collect())
}

/// Reports paths without a rate rule.
fn unruled(definition: &Definition, rules: &RuleTable) -> Vec<DefinitionProblem> {
    // An empty path could not be read, which was already reported.
    let is_unruled = |(_, path): &(&str, &str)| !path.is_empty() && rules.find("GET", path).is_none();
    let problem = |(key, path): (&str, &str)| {
        let rule = Rule::name_for("GET", path);
        let what = format!("no rate rule for GET {path}; add it under [source.limits], like \"{rule}\" = \"20/min\"");
        DefinitionProblem::new(format!("resource.{}.{key}", definition.name), what)
    };
    definition.keyed_paths().filter(is_unruled).map(problem).collect()
}

/// Reports a missing parent: a child's list is requested by the parent's ids.
fn orphaned(
    Definition { name, parent, .. }: &Definition,
    around: &[String],
    is_written: bool,
) -> Option<DefinitionProblem> {
    let parent = parent.as_ref().filter(|parent| !around.contains(parent))?;
    Some(if is_written {
        let what = format!("`{parent}` is not among `resources`; add it there, its list is needed");
        DefinitionProblem::new(format!("resource.{name}.parent"), what)
    } else {
        DefinitionProblem::new(
            "resources",
            format!("`{name}` needs the list of `{parent}`, which is not there; add it"),
        )
    })
}

/// Reports conflicts between definitions.
fn clashes(definitions: &[&Definition]) -> Vec<DefinitionProblem> {
    let mut problems = Vec::new();
    let mut tables: BTreeMap<&str, String> = BTreeMap::new();
    for definition in definitions {
        let name = &definition.name;
        if let Some(parent) = &definition.parent
            && parent != name
            && definitions.iter().any(|other| other.name == *parent && other.parent.is_some())
        {
            let what = format!("`{parent}` has a parent itself; only one level is supported");
            problems.push(DefinitionProblem::new(format!("resource.{name}.parent"), what));
        }
        let children =
            definition.table.children.iter().map(|child| (format!("table.children.{}", child.name), &child.name));
        for (key, table) in std::iter::once(("table.name".to_owned(), &definition.table.name)).chain(children) {
            let key = format!("resource.{name}.{key}");
            if table.starts_with(RESERVED_TABLES) {
                let what = format!("names that begin with `{RESERVED_TABLES}` are reserved; choose another name");
                problems.push(DefinitionProblem::new(key.as_str(), what));
            }
            let other = tables.insert(table, key.clone());
            // A child with the name of its own table was already reported.
            if let Some(other) = other.filter(|other| !other.starts_with(&format!("resource.{name}."))) {
                problems.push(DefinitionProblem::new(
                    key,
                    format!("`{table}` is also the table of {other}; choose another name"),
                ));
            }
        }
    }
    problems
}

/// The built-in definition of that name.
pub(super) fn shipped(name: &str) -> Option<Definition> {
    let table = merged_table(name, &toml::Table::new()).ok()?;
    let (definition, problems) = reader::draft(name, &table);
    problems.is_empty().then_some(definition)
}

/// The built-in definition merged with the user's, as TOML.
///
/// # Errors
/// Neither exists, or one of them is not a table.
fn merged_table(name: &str, own: &toml::Table) -> Result<toml::Table, DefinitionProblem> {
    let key = || format!("resource.{name}");
    let known = RESOURCES.map(|(known, _)| known);
    let built_in = RESOURCES.iter().find(|(known, _)| *known == name);
    let mut table = toml::Table::new();
    if let Some((_, text)) = built_in {
        let file: toml::Table =
            toml::from_str(text).map_err(|error| DefinitionProblem::new(format!("catalog/{name}.toml"), error))?;
        table = subtable(&file, name).unwrap_or_default();
    }
    if let Some(written) = own.get(name) {
        let not_a_table = || DefinitionProblem::new(key(), format!("must be a table, like [resource.{name}]"));
        reader::merge(&mut table, written.as_table().ok_or_else(not_a_table)?);
        if built_in.is_none()
            && !table.contains_key("id")
            && let Some(near) = nearest(name, known)
        {
            let what = "is not in the catalog, and lacks the `id` that a definition of your own needs";
            return Err(DefinitionProblem::new(key(), format!("{what}; did you mean [resource.{near}]?")));
        }
    } else if built_in.is_none() {
        let own = own.keys().map(String::as_str);
        let (hint, all) = (did_you_mean(name, known.into_iter().chain(own)), known.join(", "));
        let what =
            format!("`{name}` is not in the catalog and there is no [resource.{name}]{hint} The catalog has {all}");
        return Err(DefinitionProblem::new("resources", what));
    }
    Ok(table)
}

fn subtable(file: &toml::Table, name: &str) -> Option<toml::Table> {
    file.get("resource")?.get(name)?.as_table().cloned()
}
