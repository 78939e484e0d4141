//! The pagination styles, and how they differ but for the calls that they make.
//!
//! A style is added to [`PageStyle`] and [`Pages`]. The compiler then asks for its properties here, its keys
//! ([`super::page_fields`]), the query of its pages (`source/position.rs`) and its step to the next page (`source/paging.rs`); a
//! test asks for its line in docs/resources.md. Nothing asks for its rows in `tests/it/whole_list.rs`, nor for a guess at it
//! in `catalog/infer/guess.rs`. A next page that is asked for like the one before is refused (`Position::is_at`).

use crate::domain::variants::with_all;

with_all! {
    /// How the pages of a list are requested.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum PageStyle {
        /// `?page=1`, `?page=2`, ... until an empty answer.
        Number,
        /// The same, while a flag is true.
        HasMoreFlag,
        /// A page has the cursor of the next one.
        Cursor,
        /// `?offset=0&limit=100`, ... until an empty answer.
        Offset,
        /// A page has the address of the next one.
        NextLink,
        /// A single page.
        None,
    }
}

/// What proves that a list of a style was read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndProof {
    /// An empty page, or a flag that the style has.
    Own,
    /// `more` or `size`, where a definition names them.
    Optional,
    /// A definition must name `total`, `more` or `size`: nothing else shows the end.
    Required,
}

impl PageStyle {
    /// As definitions write it.
    pub fn name(self) -> &'static str {
        match self {
            PageStyle::Number => "number",
            PageStyle::HasMoreFlag => "has-more-flag",
            PageStyle::Cursor => "cursor",
            PageStyle::Offset => "offset",
            PageStyle::NextLink => "next-link",
            PageStyle::None => "none",
        }
    }

    /// What proves that a list was read to its end.
    pub fn end_proof(self) -> EndProof {
        match self {
            PageStyle::Number | PageStyle::HasMoreFlag | PageStyle::Offset => EndProof::Own,
            PageStyle::None => EndProof::Optional,
            PageStyle::Cursor | PageStyle::NextLink => EndProof::Required,
        }
    }

    /// Whether the pages after an unreadable one can be requested.
    pub fn can_pass_over_a_page(self) -> bool {
        match self {
            PageStyle::Number | PageStyle::HasMoreFlag | PageStyle::Offset => true,
            PageStyle::Cursor | PageStyle::NextLink | PageStyle::None => false,
        }
    }

    /// Whether a list is always a single page.
    pub fn is_one_page(self) -> bool {
        match self {
            PageStyle::None => true,
            PageStyle::Number
            | PageStyle::HasMoreFlag
            | PageStyle::Cursor
            | PageStyle::Offset
            | PageStyle::NextLink => false,
        }
    }

    /// Whether only an empty page shows the end, which so costs a call of its own.
    pub fn ends_with_an_empty_page(self) -> bool {
        match self {
            PageStyle::Number | PageStyle::Offset => true,
            PageStyle::HasMoreFlag | PageStyle::Cursor | PageStyle::NextLink | PageStyle::None => false,
        }
    }

    /// Whether a page is found by the number of rows before it.
    pub fn counts_rows(self) -> bool {
        match self {
            PageStyle::Offset => true,
            PageStyle::Number | PageStyle::HasMoreFlag | PageStyle::Cursor | PageStyle::NextLink | PageStyle::None => {
                false
            }
        }
    }

    /// Whether later pages keep the query of the first one, so that none of its parameters may depend on the time of the
    /// call.
    pub fn keeps_the_first_query(self) -> bool {
        match self {
            PageStyle::Cursor => true,
            PageStyle::Number | PageStyle::HasMoreFlag | PageStyle::Offset | PageStyle::NextLink | PageStyle::None => {
                false
            }
        }
    }
}

/// A pagination style with what a definition says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pages {
    /// [`PageStyle::Number`].
    Number { parameter: String, first: u64 },
    /// [`PageStyle::HasMoreFlag`]; the flag is at the pointer.
    HasMoreFlag { parameter: String, first: u64, flag: String },
    /// [`PageStyle::Cursor`], at the first of these pointers that has a value.
    Cursor { parameter: String, next: Vec<String> },
    /// [`PageStyle::Offset`]; `limit` is the parameter for the size, if there is one.
    Offset { parameter: String, limit: Option<String>, size: u64 },
    /// [`PageStyle::NextLink`], at the pointer, or in the header `Link`.
    NextLink { at: Option<String> },
    /// [`PageStyle::None`].
    None,
}

impl Pages {
    pub fn style(&self) -> PageStyle {
        match self {
            Pages::Number { .. } => PageStyle::Number,
            Pages::HasMoreFlag { .. } => PageStyle::HasMoreFlag,
            Pages::Cursor { .. } => PageStyle::Cursor,
            Pages::Offset { .. } => PageStyle::Offset,
            Pages::NextLink { .. } => PageStyle::NextLink,
            Pages::None => PageStyle::None,
        }
    }

    /// The query parameters that it sends, each with its key in `pages`.
    pub(super) fn sent(&self) -> Vec<(&'static str, &str)> {
        match self {
            Pages::Number { parameter, .. }
            | Pages::HasMoreFlag { parameter, .. }
            | Pages::Cursor { parameter, .. } => vec![("parameter", parameter.as_str())],
            Pages::Offset { parameter, limit, .. } => {
                let limit = limit.iter().map(|limit| ("limit", limit.as_str()));
                [("parameter", parameter.as_str())].into_iter().chain(limit).collect()
            }
            Pages::NextLink { .. } | Pages::None => Vec::new(),
        }
    }

    /// The number of rows that each page is asked for; none: the API decides, or a list parameter.
    pub fn size(&self) -> Option<u64> {
        match self {
            Pages::Offset { size, .. } => Some(*size),
            Pages::Number { .. }
            | Pages::HasMoreFlag { .. }
            | Pages::Cursor { .. }
            | Pages::NextLink { .. }
            | Pages::None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::PageStyle;
    use crate::catalog::reader;

    #[test]
    fn each_style_is_read_as_the_documents_write_it() {
        let table = include_str!("../../docs/resources.md").lines().filter_map(|line| line.strip_prefix("| `{ style"));
        let read = |line: &str| {
            let pages = line.split('`').next().unwrap();
            let list = format!("{{ path = \"/things\", items = \"/things\", pages = {{ style{pages} }}");
            let text = format!("id = \"/id\"\nlist = {list}\ntable = {{}}");
            reader::read("things", &toml::from_str(&text).unwrap()).unwrap().list.pages.style()
        };
        assert_eq!(table.map(read).collect::<Vec<_>>(), PageStyle::ALL);
    }
}
