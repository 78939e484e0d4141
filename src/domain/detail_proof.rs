//! Whether "not found" is believed of a document: only while the call that asked for it is known to work.
//!
//! A wrong path, lost rights and a moved API answer 404 for every document, as a document that is gone does. So the call
//! must have sent a document since its definition last changed, and must not have answered [`IN_A_ROW`] others with "not
//! found" since it last sent one. Pure; kept by `store::records::detail_proofs`, one record for each shop's resource.

use serde::{Deserialize, Serialize};

use super::cause::{Cause, ErrorClass};
use super::job::FetchDetail;

/// Documents that may be "not found" in a row before the call itself is doubted.
pub const IN_A_ROW: usize = 5;

/// A resource's detail call, as its definition describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetailEndpoint {
    /// Of everything that decides which documents are asked for.
    pub digest: u64,
    /// With its placeholders.
    pub path: String,
}

/// The API's answer that it does not know a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotFound {
    pub endpoint: DetailEndpoint,
    /// 404 or 410.
    pub status: u16,
}

/// What is known of a detail call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProofState {
    /// It was not made yet, or its definition was changed since.
    #[default]
    Untried,
    /// It sends documents.
    Answered,
    /// It sent none yet, or stopped to.
    Doubted,
}

/// Whether a resource's detail call of one shop works.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetailProof {
    /// Digest of the call that this is about.
    pub endpoint: u64,
    pub state: ProofState,
    /// It sent a document once.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub has_answered: bool,
    /// The reads that were "not found" since its last document, at most [`IN_A_ROW`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_found: Vec<FetchDetail>,
    /// Reads may be parked until it is proved to work.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub parked: bool,
}

/// What "not found" means for a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The API does not know the document.
    Gone,
    /// The call may be wrong: the document is to be read again, and so are these, which were believed to be gone.
    Doubtful { earlier: Vec<FetchDetail> },
}

impl DetailProof {
    /// A call that works, by what is known from before it was recorded.
    pub fn of_the_past(endpoint: u64) -> DetailProof {
        DetailProof { endpoint, state: ProofState::Answered, has_answered: true, ..DetailProof::default() }
    }

    /// The same record for the call as it is defined now; a changed one has to be proved again.
    #[must_use]
    pub fn for_endpoint(self, endpoint: u64) -> DetailProof {
        if self.endpoint == endpoint {
            return self;
        }
        DetailProof { endpoint, parked: self.parked, ..DetailProof::default() }
    }

    /// Records a document.
    pub fn answered(&mut self) {
        (self.state, self.has_answered) = (ProofState::Answered, true);
        self.not_found.clear();
    }

    /// Records that a document is "not found". `is_news`: it was not so before.
    pub fn not_found(&mut self, read: &FetchDetail, is_news: bool) -> Verdict {
        let is_counted = self.not_found.iter().any(|other| other.id == read.id);
        if self.state == ProofState::Answered {
            if !is_news || is_counted {
                return Verdict::Gone;
            }
            if self.not_found.len() + 1 < IN_A_ROW {
                self.not_found.push(read.clone());
                return Verdict::Gone;
            }
        }
        let was_believed = self.state == ProofState::Answered;
        let earlier = if was_believed { self.not_found.clone() } else { Vec::new() };
        (self.state, self.parked) = (ProofState::Doubted, true);
        if !is_counted && self.not_found.len() < IN_A_ROW {
            self.not_found.push(read.clone());
        }
        Verdict::Doubtful { earlier }
    }

    /// Why a document that is "not found" is not believed to be gone.
    pub fn doubt(&self, resource: &str, NotFound { endpoint, status }: &NotFound) -> Cause {
        let path = &endpoint.path;
        let text = match self.has_answered {
            false => format!(
                "the API answered {status} for it, and no call of {path} was ever answered with a document: is \
                 resource.{resource}.detail.path right?"
            ),
            true => format!(
                "the API answered {status} for it, as for every document that it was asked for since {path} last sent \
                 one: has the path moved, or may the account no longer read {resource}? It is resource.{resource}.detail.path"
            ),
        };
        // A few documents may really be gone.
        let class = if self.not_found.len() >= IN_A_ROW { ErrorClass::AllNotFound } else { ErrorClass::NotFound };
        Cause::new(class, text)
    }
}

#[cfg(test)]
mod tests {
    use super::{DetailEndpoint, DetailProof, IN_A_ROW, NotFound, ProofState, Verdict};
    use crate::domain::{ErrorClass, FetchDetail, ListParams};

    fn read(id: usize) -> FetchDetail {
        FetchDetail { run: None, combination: ListParams::default(), id: id.to_string() }
    }

    fn answer() -> NotFound {
        NotFound { endpoint: DetailEndpoint { digest: 1, path: "/things/{id}".into() }, status: 404 }
    }

    #[test]
    fn nothing_is_gone_before_the_call_has_sent_a_document() {
        let mut proof = DetailProof::default().for_endpoint(1);
        for id in 0..9 {
            assert_eq!(proof.not_found(&read(id), true), Verdict::Doubtful { earlier: vec![] });
            let class = if id + 1 < IN_A_ROW { ErrorClass::NotFound } else { ErrorClass::AllNotFound };
            let doubt = proof.doubt("things", &answer());
            assert_eq!(doubt.class, class, "{id}");
            assert!(doubt.text.contains("no call of /things/{id} was ever answered"), "{doubt}");
            assert!(doubt.text.contains("resource.things.detail.path"), "{doubt}");
        }
        proof.answered();
        assert_eq!(proof.not_found(&read(0), false), Verdict::Gone);
        assert_eq!(proof.not_found(&read(9), true), Verdict::Gone);
    }

    #[test]
    fn one_document_that_is_asked_for_again_and_again_is_one() {
        let mut proof = DetailProof::default();
        for _ in 0..9 {
            assert!(matches!(proof.not_found(&read(1), true), Verdict::Doubtful { .. }));
        }
        assert_eq!(proof.doubt("things", &answer()).class, ErrorClass::NotFound);
    }

    #[test]
    fn the_call_is_doubted_with_those_before_when_too_many_in_a_row_are_not_found() {
        let mut proof = DetailProof::of_the_past(1);
        for id in 0..IN_A_ROW - 1 {
            assert_eq!(proof.not_found(&read(id), true), Verdict::Gone);
        }
        // Known before: they say nothing new.
        assert_eq!(proof.not_found(&read(77), false), Verdict::Gone);
        let earlier: Vec<FetchDetail> = (0..IN_A_ROW - 1).map(read).collect();
        assert_eq!(proof.not_found(&read(8), true), Verdict::Doubtful { earlier });
        assert!(proof.doubt("things", &answer()).text.contains("since /things/{id} last sent one"));
        assert_eq!(proof.not_found(&read(9), true), Verdict::Doubtful { earlier: vec![] });
        proof.answered();
        assert_eq!(proof.not_found(&read(8), false), Verdict::Gone);
    }

    #[test]
    fn a_document_in_between_restarts_the_count() {
        let mut proof = DetailProof::of_the_past(1);
        for id in 0..99 {
            assert_eq!(proof.not_found(&read(id), true), Verdict::Gone, "{id}");
            proof.answered();
        }
    }

    #[test]
    fn a_changed_definition_has_to_be_proved_again() {
        let mut proof = DetailProof::of_the_past(1);
        proof.parked = true;
        let kept = proof.clone().for_endpoint(1);
        assert_eq!(kept, proof);
        let mut changed = proof.for_endpoint(2);
        assert_eq!((changed.state, changed.parked), (ProofState::Untried, true));
        assert!(matches!(changed.not_found(&read(1), true), Verdict::Doubtful { .. }));
    }
}
