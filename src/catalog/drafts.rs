//! Definitions side by side: what the configuration says laid over what ships, each with a rate rule for its calls, and
//! all of them fitting together.
//!
//! Called by the configuration, which reads on after a problem, so that one look shows all that is wrong. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Definition, RESOURCES, Rule, RuleTable, did_you_mean, nearest, reader, source_defaults};

/// How the names of tables begin that no resource owns.
const RESERVED_TABLES: &str = "waybill_";

/// A definition as far as it could be read.
#[derive(Clone, Debug)]
pub struct Draft {
    pub definition: Arc<Definition>,
    /// Nothing was wrong with it by itself.
    pub is_whole: bool,
    /// It is among the resources to sync.
    pub is_wanted: bool,
}

/// The definitions of the wanted resources: from the catalog, overlaid with or added by `own`
/// (the configuration's `[resource.*]` tables).
///
/// # Errors
/// Every problem of every definition at once.
pub fn resources(wanted: &[String], own: &toml::Table, rules: &RuleTable) -> Result<Vec<Arc<Definition>>, Vec<String>> {
    let (drafts, problems) = drafts(wanted, own, rules);
    if problems.is_empty() { Ok(wanted_of(&drafts)) } else { Err(problems) }
}

/// Those among the resources to sync.
pub fn wanted_of(drafts: &[Draft]) -> Vec<Arc<Definition>> {
    drafts.iter().filter(|draft| draft.is_wanted).map(|draft| Arc::clone(&draft.definition)).collect()
}

/// The same as far as they can be read, and every problem. Those in `own` that are not wanted are checked too, so that
/// a misspelt name shows itself.
pub fn drafts(wanted: &[String], own: &toml::Table, rules: &RuleTable) -> (Vec<Draft>, Vec<String>) {
    let (mut drafts, mut problems) = (Vec::new(), Vec::new());
    let is_key = |name: &str| reader::KEYS.contains(&name);
    let is_nameless = own.iter().any(|(name, value)| is_key(name) && !value.is_table());
    if is_nameless {
        problems.push("resource: the name is missing; write [resource.NAME]".to_owned());
    }
    let written = own.keys().filter(|name| !(wanted.contains(name) || is_nameless && is_key(name)));
    let names: Vec<String> = wanted.iter().chain(written).cloned().collect();
    for name in &names {
        match written_or_built_in(name, own) {
            Ok(table) => {
                let (definition, found) = reader::draft(name, &table);
                let is_whole = found.is_empty();
                problems.extend(found);
                problems.extend(unruled(&definition, rules));
                drafts.push(Draft { definition: Arc::new(definition), is_whole, is_wanted: wanted.contains(name) });
            }
            Err(problem) => problems.push(problem),
        }
    }
    for Draft { definition, is_wanted, .. } in &drafts {
        let around = if *is_wanted { wanted } else { &names };
        problems.extend(orphaned(definition, around, own.contains_key(&definition.name)));
    }
    // Of two that clash, the one that somebody wrote is told of.
    let (written, built_in): (Vec<&Draft>, Vec<&Draft>) =
        drafts.iter().partition(|draft| own.contains_key(&draft.definition.name));
    let all: Vec<&Definition> = built_in.into_iter().chain(written).map(|draft| draft.definition.as_ref()).collect();
    problems.extend(unfit(&all));
    (drafts, problems)
}

/// The rules that somebody wrote and that no call of these definitions falls under, each with the rule that may have
/// been meant.
///
/// # Errors
/// As [`source_defaults`].
pub fn idle_rules(rules: &RuleTable, drafts: &[Draft]) -> Result<Vec<(String, String)>, String> {
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

/// Its paths that have no rate rule.
fn unruled(definition: &Definition, rules: &RuleTable) -> Vec<String> {
    // An empty one could not be read.
    let lacks = |(_, path): &(&str, &str)| !path.is_empty() && rules.find("GET", path).is_none();
    let told = |(key, path): (&str, &str)| {
        let (name, rule) = (&definition.name, Rule::name_for("GET", path));
        format!(
            "resource.{name}.{key}: no rate rule for GET {path}; add it under [source.limits], like \"{rule}\" = \"20/min\""
        )
    };
    definition.keyed_paths().filter(lacks).map(told).collect()
}

/// What is wrong with a definition whose parent is not there: its list is asked for by the parent's ids.
fn orphaned(Definition { name, parent, .. }: &Definition, around: &[String], is_written: bool) -> Option<String> {
    let parent = parent.as_ref().filter(|parent| !around.contains(parent))?;
    Some(if is_written {
        format!("resource.{name}.parent: `{parent}` is not among `resources`; add it there, its list is needed")
    } else {
        format!("resources: `{name}` has a list for each of `{parent}`, which is not there; add it")
    })
}

/// What is wrong with definitions side by side.
fn unfit(definitions: &[&Definition]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut tables: BTreeMap<&str, String> = BTreeMap::new();
    for definition in definitions {
        let name = &definition.name;
        if let Some(parent) = &definition.parent
            && parent != name
            && definitions.iter().any(|other| other.name == *parent && other.parent.is_some())
        {
            problems.push(format!("resource.{name}.parent: `{parent}` has a parent itself; only one step is possible"));
        }
        let children =
            definition.table.children.iter().map(|child| (format!("table.children.{}", child.name), &child.name));
        for (key, table) in std::iter::once(("table.name".to_owned(), &definition.table.name)).chain(children) {
            if table.starts_with(RESERVED_TABLES) {
                problems.push(format!(
                    "resource.{name}.{key}: tables that begin with `{RESERVED_TABLES}` are Waybill's own; choose another name"
                ));
            }
            let other = tables.insert(table, format!("resource.{name}.{key}"));
            // That a child has the name of its own table was told.
            if let Some(other) = other.filter(|other| !other.starts_with(&format!("resource.{name}."))) {
                problems
                    .push(format!("resource.{name}.{key}: `{table}` is the table of {other} too; choose another name"));
            }
        }
    }
    problems
}

/// A definition's text, to be read.
///
/// # Errors
/// There is none of that name.
fn written_or_built_in(name: &str, own: &toml::Table) -> Result<toml::Table, String> {
    let known = RESOURCES.map(|(known, _)| known);
    let built_in = RESOURCES.iter().find(|(known, _)| *known == name);
    let mut table = toml::Table::new();
    if let Some((_, text)) = built_in {
        let file: toml::Table = toml::from_str(text).map_err(|error| format!("catalog/{name}.toml: {error}"))?;
        table = subtable(&file, name).unwrap_or_default();
    }
    if let Some(written) = own.get(name) {
        let own =
            written.as_table().ok_or_else(|| format!("resource.{name}: must be a table, like [resource.{name}]"))?;
        reader::merge(&mut table, own);
        if built_in.is_none()
            && !table.contains_key("id")
            && let Some(near) = nearest(name, known)
        {
            let lacks = "is not in the catalog, and has no `id` to be one of your own";
            return Err(format!("resource.{name}: {lacks}; did you mean [resource.{near}]?"));
        }
    } else if built_in.is_none() {
        let own = own.keys().map(String::as_str);
        let (hint, all) = (did_you_mean(name, known.into_iter().chain(own)), known.join(", "));
        return Err(format!(
            "resources: `{name}` is not in the catalog and there is no [resource.{name}]{hint} The catalog has {all}"
        ));
    }
    Ok(table)
}

fn subtable(file: &toml::Table, name: &str) -> Option<toml::Table> {
    file.get("resource")?.get(name)?.as_table().cloned()
}
