//! Finds columns that sample documents never fill: pointers that no document has, and types that no value fits.
//!
//! `coverage` looks from the other side, at values that no column takes. Only names of keys are kept, never values. Pure;
//! called by `waybill check`.

use std::collections::BTreeSet;

use jiff::tz::TimeZone;

use super::cell::fits;
use super::columns::{Column, ColumnKind, Table};
use super::coverage::place_in;
use super::definition::Definition;
use super::field_drift::{KindName, WITHOUT_OFFSET, is_name, kind, kind_for_time};
use super::infer::{Form, Shape};
use super::resolve::shipped;
use crate::domain::Json;

/// Documents after which a pointer that none of them has is reported although no key is similar to it. APIs leave out
/// what is optional.
const DOCUMENTS_ENOUGH: usize = 20;
/// Places of the documents whose names are kept. More than this means dynamic keys.
const PATHS_MAX: usize = 2_000;
/// Elements of an array whose keys are kept.
const ELEMENTS_MAX: usize = 50;
/// Other keys that a report names.
const OTHERS_MAX: usize = 8;
/// Shortest key for which another spelling may be meant; among shorter ones nearly all are similar.
const SIMILAR_LENGTH: usize = 4;

/// What sample documents of one resource have at the places of its columns.
pub struct ColumnFill {
    documents: usize,
    probes: Vec<Probe>,
    /// Pointers of all probes, `*` for any element of an array.
    taken: BTreeSet<String>,
    /// Pointers to everything in the documents whose keys are names, in the same form.
    paths: BTreeSet<String>,
}

/// The place of a column's values, or of a child table's array.
struct Probe {
    /// As in the definition: `table.columns.price`.
    key: String,
    /// `things.price`; the name of a child table for its array.
    name: String,
    /// From the document, `*` for each element of an array.
    tokens: Vec<String>,
    /// How many of them lead to the element that the column's pointer begins at.
    scope: usize,
    /// None: an array.
    column: Option<ColumnType>,
    /// The catalog has the same column, so its pointer is right, and what is optional in the API may be absent.
    is_shipped: bool,
    /// Documents without the key, with it, and with a value that fits.
    absent: usize,
    present: usize,
    filled: usize,
    /// With a value that does not.
    misfits: usize,
    kinds: BTreeSet<KindName>,
    /// Of the values that do not fit.
    shape: Shape,
}

#[derive(Clone)]
struct ColumnType {
    kind: ColumnKind,
    zone: Option<TimeZone>,
}

/// A column, or a child table's array, that is never filled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnfilledColumn {
    /// Its key in the definition: `table.columns.price`.
    pub key: String,
    /// `things.price`, or the name of a child table.
    pub name: String,
    /// As written in the definition.
    pub pointer: String,
    pub why: Unfilled,
}

/// Why a column is never filled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfilled {
    /// So many documents were looked at, and none has the pointer.
    Absent {
        documents: usize,
        /// A similar pointer that documents have, and no column takes.
        near: Option<String>,
        /// Keys beside it that no column takes.
        others: Vec<String>,
    },
    /// As many documents have a value there, and none fits the type.
    Misfit {
        documents: usize,
        /// The column's type; None: a child table needs an array.
        column: Option<ColumnKind>,
        kinds: Vec<KindName>,
        /// The type that holds all these values.
        fitting: Option<String>,
    },
    /// Some times have no offset, and no time zone is configured.
    WithoutOffset,
}

/// What was found about all columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FillReport {
    pub documents: usize,
    /// Columns at places that documents have or could have, and those of them with a value in at least one.
    pub columns: usize,
    pub filled: usize,
    pub unfilled: Vec<UnfilledColumn>,
    /// Absent so far, in too few documents to call it wrong: names and pointers.
    pub unseen: Vec<(String, String)>,
}

impl ColumnFill {
    /// Nothing was looked at yet.
    pub fn new(definition: &Definition) -> ColumnFill {
        let mut probes = probes(&definition.table);
        let shipped = shipped(&definition.name).map(|shipped| self::probes(&shipped.table)).unwrap_or_default();
        for probe in &mut probes {
            probe.is_shipped = shipped.iter().any(|known| known.name == probe.name && known.tokens == probe.tokens);
        }
        let mut taken: BTreeSet<String> = probes.iter().map(|probe| pattern(&probe.tokens)).collect();
        taken.insert(definition.id.clone());
        ColumnFill { documents: 0, probes, taken, paths: BTreeSet::new() }
    }

    /// Looks at one document; passes over what is no JSON.
    pub fn add(&mut self, document: &[u8]) {
        let Ok(document) = Json::parse(document) else { return };
        self.documents += 1;
        self.probes.iter_mut().for_each(|probe| probe.look(&document));
        self.note(&document, &mut String::new());
    }

    /// Keeps the places of a value.
    fn note(&mut self, value: &Json<'_>, path: &mut String) {
        let length = path.len();
        match value {
            Json::Object(members) => {
                for (key, member) in members.iter().filter(|(key, _)| is_name(key)) {
                    path.push('/');
                    path.push_str(key);
                    self.keep(path);
                    self.note(member, path);
                    path.truncate(length);
                }
            }
            Json::Array(elements) => {
                path.push_str("/*");
                for element in elements.iter().take(ELEMENTS_MAX) {
                    self.keep(path);
                    self.note(element, path);
                }
                path.truncate(length);
            }
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::Text(_) => {}
        }
    }

    fn keep(&mut self, path: &str) {
        if self.paths.len() < PATHS_MAX && !self.paths.contains(path) {
            self.paths.insert(path.to_owned());
        }
    }

    /// What was found.
    pub fn report(&self) -> FillReport {
        let mut report = FillReport { documents: self.documents, ..FillReport::default() };
        for probe in &self.probes {
            if probe.column.is_some() && probe.absent + probe.present > 0 {
                report.columns += 1;
                report.filled += usize::from(probe.filled > 0);
            }
            let why = if probe.kinds.contains(WITHOUT_OFFSET) {
                Unfilled::WithoutOffset
            } else if !probe.kinds.is_empty() && probe.filled == 0 {
                probe.misfit()
            } else if probe.absent > 0 && probe.present == 0 && !probe.is_shipped {
                let similar = self.similar(probe);
                let is_sure = similar.is_some() || probe.absent >= DOCUMENTS_ENOUGH;
                if !is_sure {
                    report.unseen.push((probe.name.clone(), probe.pointer()));
                    continue;
                }
                let near = similar.or_else(|| self.elsewhere(probe));
                Unfilled::Absent { documents: probe.absent, near, others: self.others(probe) }
            } else {
                continue;
            };
            let (key, name, pointer) = (probe.key.clone(), probe.name.clone(), probe.pointer());
            report.unfilled.push(UnfilledColumn { key, name, pointer, why });
        }
        report
    }

    /// How many tokens of a probe documents have, of those behind its scope.
    fn depth(&self, probe: &Probe) -> usize {
        let is_known = |depth: &usize| self.paths.contains(&pattern(probe.tokens.get(..*depth).unwrap_or_default()));
        let known = (probe.scope + 1..probe.tokens.len()).take_while(is_known).last();
        known.unwrap_or(probe.scope)
    }

    /// The keys at a place.
    fn keys<'a>(&'a self, holder: &str) -> impl Iterator<Item = &'a str> {
        let begin = format!("{holder}/");
        let paths = self.paths.range(begin.clone()..);
        let keys = paths.map_while(move |path| path.strip_prefix(&begin));
        keys.filter(|key| !key.contains('/') && *key != "*")
    }

    /// A pointer that differs from a probe's in the spelling of one key.
    fn similar(&self, probe: &Probe) -> Option<String> {
        let depth = self.depth(probe);
        let (known, rest) = probe.tokens.split_at_checked(depth)?;
        let (wrong, rest) = rest.split_first()?;
        let holder = pattern(known);
        let is_free = |key: &&str| {
            let whole = format!("{holder}/{key}{}", pattern(rest));
            self.paths.contains(&whole) && !self.taken.contains(&whole)
        };
        let distances = self.keys(&holder).filter(is_free).filter_map(|key| Some((distance(wrong, key)?, key)));
        let (_, near) = distances.min()?;
        let mut tokens = probe.tokens.clone();
        near.clone_into(tokens.get_mut(depth)?);
        Some(probe.shown(&tokens))
    }

    /// A pointer of the same element to a key of the same name in another place.
    fn elsewhere(&self, probe: &Probe) -> Option<String> {
        let (scope, last) = (pattern(probe.tokens.get(..probe.scope)?), plain(probe.tokens.last()?));
        let is_same = |path: &&&str| path.rsplit('/').next().is_some_and(|key| plain(key) == last);
        let below: Vec<&str> = self.paths.iter().filter_map(|path| path.strip_prefix(&scope)).collect();
        let found = below.iter().filter(|path| path.starts_with('/') && !path.contains('*')).filter(is_same);
        let free = found.copied().find(|path| !self.taken.contains(&format!("{scope}{path}")))?;
        Some(if probe.column.is_some() { free.to_owned() } else { format!("{scope}{free}") })
    }

    /// Keys beside the one that is missing, which no column takes.
    fn others(&self, probe: &Probe) -> Vec<String> {
        let holder = pattern(probe.tokens.get(..self.depth(probe)).unwrap_or_default());
        let is_free = |key: &&str| !self.taken.contains(&format!("{holder}/{key}"));
        self.keys(&holder).filter(is_free).take(OTHERS_MAX).map(str::to_owned).collect()
    }
}

impl Probe {
    fn look(&mut self, document: &Json<'_>) {
        let (mut is_absent, mut is_present, mut is_filled, mut is_misfit) = (false, false, false, false);
        let Probe { tokens, scope, column, kinds, shape, .. } = self;
        each(document, tokens, *scope, &mut |found| match found {
            None => is_absent = true,
            Some(value) => {
                is_present = true;
                match misfit(column.as_ref(), value) {
                    Fit::None => {}
                    Fit::Fits => is_filled = true,
                    Fit::Misfit(kind) => {
                        is_misfit = true;
                        kinds.insert(kind);
                        shape.add(value);
                    }
                }
            }
        });
        self.present += usize::from(is_present);
        self.absent += usize::from(is_absent && !is_present);
        self.filled += usize::from(is_filled);
        self.misfits += usize::from(is_misfit);
    }

    fn misfit(&self) -> Unfilled {
        let fitting = match self.shape.form() {
            Form::Value(kind) => Some(kind),
            Form::Nothing | Form::Object | Form::Array => None,
        };
        Unfilled::Misfit {
            documents: self.misfits,
            column: self.column.as_ref().map(|column| column.kind),
            kinds: self.kinds.iter().copied().collect(),
            fitting,
        }
    }

    /// Its pointer as in the definition.
    fn pointer(&self) -> String {
        self.shown(&self.tokens)
    }

    /// Tokens in the form of its pointer in the definition.
    fn shown(&self, tokens: &[String]) -> String {
        let from = if self.column.is_some() { self.scope } else { 0 };
        tokens.iter().skip(from).map(|token| format!("/{token}")).collect()
    }
}

enum Fit {
    /// No value.
    None,
    Fits,
    Misfit(KindName),
}

fn misfit(column: Option<&ColumnType>, value: &Json<'_>) -> Fit {
    match (column, value) {
        (_, Json::Null) => Fit::None,
        (None, Json::Array(_)) => Fit::Fits,
        (None, value) => Fit::Misfit(kind(value)),
        (Some(column), value) if fits(column.kind, column.zone.as_ref(), value) => Fit::Fits,
        // Some APIs write "" where there is nothing.
        (Some(_), Json::Text(text)) if text.is_empty() => Fit::None,
        (Some(column), value) if column.kind == ColumnKind::Datetime => Fit::Misfit(kind_for_time(value)),
        (Some(_), value) => Fit::Misfit(kind(value)),
    }
}

/// The probes of a table and its children.
fn probes(table: &Table) -> Vec<Probe> {
    let mut found: Vec<Probe> = Vec::new();
    let of = |column: &Column, key: &str, table: &str, within: &str| {
        let (holder, pointer) = place_in(&column.source, within)?;
        let kind = ColumnType { kind: column.kind, zone: column.zone.clone() };
        let (key, name) = (format!("{key}.columns.{}", column.name), format!("{table}.{}", column.name));
        Some(Probe::new([key, name], holder, pointer, Some(kind)))
    };
    found.extend(table.columns.iter().filter_map(|column| of(column, "table", &table.name, "")));
    for child in &table.children {
        let key = format!("table.children.{}", child.name);
        // Each array on the way.
        let ends = child.from.match_indices("/*").map(|(at, _)| at).chain([child.from.len()]);
        for array in ends.filter_map(|end| child.from.get(..end)) {
            let (holder, pointer) = array.rfind("/*").map_or(("", array), |at| array.split_at(at + 2));
            found.push(Probe::new([key.clone(), child.name.clone()], holder, pointer, None));
        }
        let within = format!("{}/*", child.from);
        found.extend(child.columns.iter().filter_map(|column| of(column, &key, &child.name, &within)));
    }
    found
}

impl Probe {
    fn new([key, name]: [String; 2], holder: &str, pointer: &str, column: Option<ColumnType>) -> Probe {
        let tokens = |path: &str| path.split('/').skip(1).map(str::to_owned).collect::<Vec<_>>();
        let scope = tokens(holder);
        Probe {
            key,
            name,
            scope: scope.len(),
            tokens: [scope, tokens(pointer)].concat(),
            column,
            is_shipped: false,
            absent: 0,
            present: 0,
            filled: 0,
            misfits: 0,
            kinds: BTreeSet::new(),
            shape: Shape::default(),
        }
    }
}

/// Visits the value at the tokens, `*` for each element of an array; None: an object lacks a key behind the `scope`.
/// A null or empty parent says nothing about the key, and an array that is missing has a probe of its own.
fn each(value: &Json<'_>, tokens: &[String], scope: usize, visit: &mut dyn FnMut(Option<&Json<'_>>)) {
    let Some((token, rest)) = tokens.split_first() else { return visit(Some(value)) };
    let inner = scope.saturating_sub(1);
    match value {
        Json::Array(elements) if token == "*" => {
            elements.iter().for_each(|element| each(element, rest, inner, visit));
        }
        _ if token == "*" => {}
        _ => match value.pointer(&format!("/{token}")) {
            Some(found) => each(found, rest, inner, visit),
            None if scope > 0 || is_empty(value) => {}
            None => visit(None),
        },
    }
}

fn is_empty(value: &Json<'_>) -> bool {
    match value {
        Json::Null => true,
        Json::Array(elements) => elements.is_empty(),
        Json::Object(_) | Json::Bool(_) | Json::Number(_) | Json::Text(_) => false,
    }
}

/// Tokens as a pointer in which `*` is any element of an array.
fn pattern(tokens: &[String]) -> String {
    let is_index = |token: &str| {
        let digits = token.strip_prefix('-').unwrap_or(token);
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    tokens.iter().map(|token| if is_index(token) { "/*".to_owned() } else { format!("/{token}") }).collect()
}

/// A key without what spellings differ in.
fn plain(key: &str) -> String {
    key.chars().filter(|letter| !matches!(letter, '_' | '-')).flat_map(char::to_lowercase).collect()
}

/// How far two keys are apart; None: they are not similar.
fn distance(wrong: &str, key: &str) -> Option<usize> {
    let (wrong, key) = (plain(wrong), plain(key));
    let length = wrong.chars().count();
    let most = if length < SIMILAR_LENGTH { 0 } else { (length / 3).clamp(1, 2) };
    Some(strsim::osa_distance(&wrong, &key)).filter(|distance| *distance <= most)
}
