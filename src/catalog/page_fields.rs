//! Reads the `pages` and `end` of a list: its pagination style, and what proves its end. Called by [`super::reader`].

use super::definition::{Ends, PageStyle, Pages, Proof};
use super::page_style::EndProof;
use super::toml_fields::{TomlFields, did_you_mean};

/// Statuses about the call or the client, which never mean the end of a list.
const NEVER_ENDS: [u64; 5] = [401, 403, 408, 425, 429];

/// Reads `pages`. None: `style` is missing or unknown, and all other keys depend on it.
pub(super) fn pages(fields: TomlFields<'_>) -> Option<(Pages, Proof)> {
    let style = style(&fields)?;
    let parameter = |example: &str| {
        let hint = format!("give the parameter that selects the page, like parameter = \"{example}\"");
        fields.needed("parameter", fields.text("parameter"), &hint)
    };
    let first = || fields.number("first").unwrap_or(1);
    let mut proof = Proof { total: fields.pointer_to_one("total", false), ..Proof::default() };
    let pages = match style {
        PageStyle::Number => {
            let (parameter, first) = (parameter("page"), first());
            parameter.map(|parameter| Pages::Number { parameter, first })
        }
        PageStyle::HasMoreFlag => {
            let (parameter, first) = (parameter("page"), first());
            let hint = "give the pointer to the flag, like flag = \"/hasNextPage\"";
            let flag = fields.needed("flag", fields.pointer_to_one("flag", false), hint);
            parameter.map(|parameter| Pages::HasMoreFlag { parameter, first, flag: flag.unwrap_or_default() })
        }
        PageStyle::Cursor => {
            let parameter = parameter("cursor");
            let hint = "give the pointers to the next cursor, like next = [\"/page/nextCursor\"]";
            let next = fields.needed("next", fields.some_texts("next"), hint);
            for pointer in next.iter().flatten() {
                fields.is_pointer("next", pointer, false);
                fields.is_to_one("next", pointer);
            }
            parameter.map(|parameter| Pages::Cursor { parameter, next: next.unwrap_or_default() })
        }
        PageStyle::Offset => {
            let (parameter, limit) = (parameter("offset"), fields.text("limit"));
            let size = fields.needed("size", fields.number("size"), "say how many rows a page has, like size = 100");
            if size == Some(0) {
                fields.problem("size", "must not be 0; give the number of rows of a page");
            }
            parameter.map(|parameter| Pages::Offset { parameter, limit, size: size.unwrap_or_default() })
        }
        PageStyle::NextLink => {
            let at = fields.pointer_to_one("at", false);
            Some(Pages::NextLink { at })
        }
        PageStyle::None => Some(Pages::None),
    };
    match style.end_proof() {
        EndProof::Own => {}
        EndProof::Optional => proof = whole_proof(&fields, proof),
        EndProof::Required => {
            proof = whole_proof(&fields, proof);
            needs_proof(&fields);
        }
    }
    fields.end();
    pages.map(|pages| (pages, proof))
}

/// Reads `style`. None: reported.
fn style(fields: &TomlFields<'_>) -> Option<PageStyle> {
    let names: Vec<&str> = PageStyle::ALL.iter().map(|style| style.name()).collect();
    let Some(text) = fields.text("style") else {
        if !fields.has("style") {
            fields.problem("", format!("`style` is missing; use one of {}", names.join(", ")));
        }
        return None;
    };
    let style = PageStyle::ALL.iter().find(|style| style.name() == text);
    if style.is_none() {
        let (hint, all) = (did_you_mean(&text, names.iter().copied()), names.join(", "));
        fields.problem("style", format!("`{text}` is not a style{hint} There are {all}"));
    }
    style.copied()
}

/// Adds the proofs for styles that do not end with an empty page.
fn whole_proof(fields: &TomlFields<'_>, proof: Proof) -> Proof {
    let size = fields.number("size");
    if size == Some(0) {
        fields.problem("size", "must not be 0; give the number of rows of a full page");
    }
    Proof { more: fields.pointer_to_one("more", false), size, ..proof }
}

/// Requires a proof of the end: a page without a next one may be the last, or the pointer may be misspelt.
fn needs_proof(fields: &TomlFields<'_>) {
    if !["total", "more", "size"].iter().any(|key| fields.has(key)) {
        fields.problem(
            "",
            "nothing proves that the list was read to its end: a page without a next one may not be the last. Name at \
             least one of `total` (pointer to the count of all rows: total = \"/meta/total\"), `more` (pointer to \
             whether more pages follow: more = \"/hasMore\") and `size` (rows of a full page: size = 100)",
        );
    }
}

/// Reads `end`.
pub(super) fn ends(fields: &TomlFields<'_>) -> Ends {
    let mut statuses = Vec::new();
    for status in fields.numbers("status").unwrap_or_default() {
        match u16::try_from(status) {
            Ok(known) if known == 204 || (400..500).contains(&status) && !NEVER_ENDS.contains(&status) => {
                statuses.push(known);
            }
            _ => fields.problem(
                "status",
                format!(
                    "{status} never means that a list has ended; name the status of a page after the last one, like \
                     status = [404]"
                ),
            ),
        }
    }
    let flag = |key| fields.flag(key).unwrap_or(false);
    let ends = Ends { statuses, null: flag("null"), empty_array: flag("empty_array"), repeat: flag("repeat") };
    fields.end();
    ends
}
