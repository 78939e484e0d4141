//! A listing in slices: each reads on from where the one before it ended, for a short time.

use std::collections::VecDeque;

use super::page::PageBuilder;
use super::{ItemPage, ListQuery};
use crate::domain::ShopId;

/// What has been found of a page, and where the next slice begins.
pub(super) struct Scan {
    /// The caller's, but for `after`: up to there everything was looked at.
    pub(super) query: ListQuery,
    pub(super) found: PageBuilder,
    /// Rows that the next slice looks at, if it cannot tell beforehand which match.
    pub(super) window: usize,
    /// Shops up to this one have nothing more.
    pub(super) finished: Option<ShopId>,
    /// Documents that the index found, to be looked at.
    pub(super) ahead: Ahead,
}

/// Documents of one shop to be looked at.
#[derive(Default)]
pub(super) struct Ahead {
    pub(super) shop: Option<ShopId>,
    pub(super) ids: VecDeque<String>,
    /// There may be more above this id.
    pub(super) more: Option<String>,
}

/// Whether a slice was the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    More,
    Done,
}

impl Scan {
    /// Begins at the query's cursor.
    pub(super) fn new(query: &ListQuery) -> Scan {
        let found = PageBuilder::default();
        Scan { query: query.clone(), found, window: 0, finished: None, ahead: Ahead::default() }
    }

    /// Items that are missing, and the one behind them that shows whether there is another page.
    pub(super) fn wanted(&self) -> usize {
        (self.query.limit.max(1) + 1).saturating_sub(self.found.page.items.len())
    }

    /// Everything up to here was looked at.
    pub(super) fn reached(&mut self, last: (ShopId, String)) {
        self.query.after = Some(last);
    }

    /// The page.
    pub(super) fn page(self) -> ItemPage {
        self.found.page
    }
}
