//! The sealed part of a shop's row in the sink's mirror: its data key and its client secret.
//!
//! Form 2 is JSON. Its data key is sealed under the master key and its secret under the data key, both for all that the
//! row must agree with: shop, client id, the source that accepted the secret, and the time of the row's last change. So a sealed part
//! that was put into another row, or that an earlier state of the row had, is noticed. A row that was put back as a
//! whole agrees with itself: without the data directory nothing else knows that it is old.
//!
//! The same names are in the JSON in clear, for the diagnosis alone; they count only once what is sealed for them opens.
//! Form 1, `data key \n secret`, is sealed for the shop alone, and opened for rows that older releases wrote.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::domain::clock::rfc3339;
use crate::domain::{Shop, ShopId, SourceOrigin, Timestamp};
use crate::store::crypto::{SealKey, context};
use crate::store::error::StoreError;

const FORM: u32 = 2;

/// What is wrong with the sealed part of a row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowFault {
    #[error("it is sealed with another master key ({id})")]
    OtherKey { id: String },
    /// A row of form 1 does not name its key.
    #[error("its sealed part does not open: it is damaged, or sealed with another master key")]
    KeyOrDamage,
    #[error("its sealed part is damaged")]
    Damaged,
    #[error("its sealed part is that of shop {0}")]
    OtherShop(ShopId),
    #[error("its client id was changed: its credentials belong to client id {sealed_for}")]
    OtherClient { sealed_for: String },
    #[error(
        "its sealed part is not of its last change: it is of {}, and the row of {}", rfc3339(*.sealed_at), rfc3339(*.changed_at)
    )]
    OtherVersion { sealed_at: Timestamp, changed_at: Timestamp },
}

impl RowFault {
    /// Whether another master key may open it.
    pub fn may_be_key(&self) -> bool {
        matches!(self, RowFault::OtherKey { .. } | RowFault::KeyOrDamage)
    }
}

/// Keys and secret of a row, opened.
pub(crate) struct OpenedRow {
    pub(crate) data_key: Zeroizing<[u8; 32]>,
    pub(crate) secret: Zeroizing<Vec<u8>>,
    /// The source that accepted the secret, if that is known.
    pub(crate) proved_at: Option<SourceOrigin>,
}

#[derive(Serialize, Deserialize)]
struct SealedRow {
    v: u32,
    /// The name of the master key.
    key: String,
    #[serde(flatten)]
    bound: Bound,
    data_key: String,
    secret: String,
}

/// What a row is sealed for.
#[derive(Clone, Serialize, Deserialize)]
struct Bound {
    shop: ShopId,
    client_id: String,
    /// Where the secret was proved; empty: not known.
    origin: String,
    at: Timestamp,
}

impl Bound {
    fn of(shop: &Shop, proved_at: Option<&SourceOrigin>) -> Bound {
        let origin = proved_at.map(SourceOrigin::canonical).unwrap_or_default();
        Bound { shop: shop.id.clone(), client_id: shop.client_id.clone(), origin, at: shop.updated_at }
    }

    fn context(&self, field: &str) -> String {
        let at = self.at.as_millis().to_string();
        context("mirrored shop", &[field, &self.shop, &self.client_id, &self.origin, &at])
    }
}

/// Seals the part of a row.
pub(crate) fn seal(master: &SealKey, shop: &Shop, row: &OpenedRow) -> Result<Vec<u8>, StoreError> {
    let bound = Bound::of(shop, row.proved_at.as_ref());
    let data_key = STANDARD.encode(master.seal(&bound.context("data key"), &*row.data_key)?);
    let secret = STANDARD.encode(SealKey::new(&row.data_key).seal(&bound.context("client secret"), &row.secret)?);
    let sealed = SealedRow { v: FORM, key: master.id(), bound, data_key, secret };
    serde_json::to_vec(&sealed)
        .map_err(|error| StoreError::Record { what: "a mirrored shop".to_owned(), detail: error.to_string() })
}

/// Opens the sealed part of a shop's row with the first master key that fits.
pub(crate) fn open(masters: &[SealKey], shop: &Shop, sealed: &[u8]) -> Result<OpenedRow, RowFault> {
    if !sealed.starts_with(b"{") {
        return open_first_form(masters, &shop.id, sealed);
    }
    let row: SealedRow = serde_json::from_slice(sealed).map_err(|_| RowFault::Damaged)?;
    if row.v != FORM {
        return Err(RowFault::Damaged);
    }
    let opens = |master: &SealKey| open_as(master, &row.bound.context("data key"), &row.data_key);
    let data_key = masters.iter().find_map(opens).ok_or_else(|| {
        let is_ours = masters.iter().any(|master| master.id() == row.key);
        let names_a_key = row.key.len() == 16 && row.key.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_ours || !names_a_key { RowFault::Damaged } else { RowFault::OtherKey { id: row.key.clone() } }
    })?;
    let data_key = key_of(&data_key).ok_or(RowFault::Damaged)?;
    let secret = open_as(&SealKey::new(&data_key), &row.bound.context("client secret"), &row.secret);
    let secret = secret.ok_or(RowFault::Damaged)?;
    let Bound { shop: id, client_id, origin, at } = row.bound;
    if id != shop.id {
        return Err(RowFault::OtherShop(id));
    }
    if client_id != shop.client_id {
        return Err(RowFault::OtherClient { sealed_for: client_id });
    }
    if at != shop.updated_at {
        return Err(RowFault::OtherVersion { sealed_at: at, changed_at: shop.updated_at });
    }
    let proved_at = match origin.as_str() {
        "" => None,
        origin => Some(SourceOrigin::from_canonical(origin).ok_or(RowFault::Damaged)?),
    };
    Ok(OpenedRow { data_key, secret, proved_at })
}

/// Whether a master key sealed the part, as far as it says.
pub(crate) fn is_sealed_with(master: &SealKey, sealed: &[u8]) -> bool {
    serde_json::from_slice::<SealedRow>(sealed).is_ok_and(|row| row.key == master.id())
}

fn open_first_form(masters: &[SealKey], id: &str, sealed: &[u8]) -> Result<OpenedRow, RowFault> {
    let text = std::str::from_utf8(sealed).map_err(|_| RowFault::Damaged)?;
    let (data_key, secret) = text.split_once('\n').ok_or(RowFault::Damaged)?;
    let opens = |master: &SealKey| open_as(master, &first_form_key(id), data_key);
    let data_key = masters.iter().find_map(opens).ok_or(RowFault::KeyOrDamage)?;
    let data_key = key_of(&data_key).ok_or(RowFault::Damaged)?;
    let secret = open_as(&SealKey::new(&data_key), &first_form_secret(id), secret).ok_or(RowFault::Damaged)?;
    Ok(OpenedRow { data_key, secret, proved_at: None })
}

fn open_as(key: &SealKey, context: &str, text: &str) -> Option<Zeroizing<Vec<u8>>> {
    key.open(context, &STANDARD.decode(text).ok()?).ok()
}

fn key_of(bytes: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    bytes.try_into().ok().map(Zeroizing::new)
}

/// What data keys of form 1 were sealed for.
pub(crate) fn first_form_key(shop: &str) -> String {
    format!("data key|{shop}")
}

/// What client secrets of form 1 were sealed for.
pub(crate) fn first_form_secret(shop: &str) -> String {
    format!("client secret|{shop}")
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use zeroize::Zeroizing;

    use super::{OpenedRow, RowFault, first_form_key, first_form_secret, open, seal};
    use crate::domain::{Shop, ShopState, SourceOrigin, Timestamp};
    use crate::store::crypto::SealKey;

    const ORIGIN: &str = "https://api.example.com https://login.example.com";

    fn shop(id: &str, client_id: &str, at: i64) -> Shop {
        Shop {
            id: id.into(),
            name: "Shop".into(),
            client_id: client_id.into(),
            account: client_id.into(),
            resources: Vec::new(),
            state: ShopState::Active,
            reason: None,
            created_at: Timestamp::EPOCH,
            updated_at: Timestamp::from_millis(at),
        }
    }

    fn row(secret: &[u8]) -> OpenedRow {
        let proved_at = SourceOrigin::from_canonical(ORIGIN);
        OpenedRow { data_key: Zeroizing::new([7; 32]), secret: Zeroizing::new(secret.to_vec()), proved_at }
    }

    #[test]
    fn a_row_opens_as_it_was_sealed_and_says_what_was_changed() {
        let master = SealKey::new(&[1; 32]);
        let (before, now) = (shop("a", "client-a", 1), shop("a", "client-a", 2));
        let older = seal(&master, &before, &row(b"old")).unwrap();
        let sealed = seal(&master, &now, &row(b"new")).unwrap();
        let opened =
            |of: &Shop, sealed: &[u8]| open(std::slice::from_ref(&master), of, sealed).map(|row| row.secret.to_vec());
        assert_eq!(opened(&now, &sealed), Ok(b"new".to_vec()));
        let proved_at = open(std::slice::from_ref(&master), &now, &sealed).ok().unwrap().proved_at;
        assert_eq!(proved_at.unwrap().canonical(), ORIGIN);
        let version = RowFault::OtherVersion { sealed_at: before.updated_at, changed_at: now.updated_at };
        assert_eq!(opened(&now, &older), Err(version));
        let client = RowFault::OtherClient { sealed_for: "client-a".into() };
        assert_eq!(opened(&shop("a", "client-b", 2), &sealed), Err(client));
        assert_eq!(opened(&shop("b", "client-a", 2), &sealed), Err(RowFault::OtherShop("a".into())));
        // The names in clear prove nothing: changed with the row, they fit no seal.
        let forged = String::from_utf8(sealed.clone()).unwrap().replace("client-a", "client-b").into_bytes();
        assert_eq!(opened(&shop("a", "client-b", 2), &forged), Err(RowFault::Damaged));
        let moved = String::from_utf8(sealed.clone()).unwrap().replace("login.example.com", "evil.example.com");
        assert_eq!(opened(&now, moved.as_bytes()), Err(RowFault::Damaged), "the source is part of the seal");
        let other = open(&[SealKey::new(&[2; 32])], &now, &sealed).map(drop).unwrap_err();
        assert_eq!(other, RowFault::OtherKey { id: master.id() });
        assert!(open(&[SealKey::new(&[2; 32]), master.clone()], &now, &sealed).is_ok());
    }

    #[test]
    fn each_changed_byte_is_damage_and_no_other_key_is_blamed_for_it() {
        let master = [SealKey::new(&[1; 32])];
        let now = shop("a", "client-a", 2);
        let sealed = seal(&master[0], &now, &row(b"new")).unwrap();
        let mut blamed = 0;
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            match open(&master, &now, &changed) {
                // The name of the key is a hint.
                Ok(_) => blamed += 1,
                Err(fault) => assert!(!matches!(fault, RowFault::OtherKey { .. }), "byte {at}: {fault}"),
            }
        }
        assert!(blamed <= 20, "{blamed}");
        assert!(matches!(open(&master, &now, b""), Err(RowFault::Damaged)));
    }

    #[test]
    fn a_row_of_an_older_release_opens() {
        let (master, data_key) = (SealKey::new(&[1; 32]), SealKey::new(&[7; 32]));
        let part = |sealed: Vec<u8>| STANDARD.encode(sealed);
        let key = part(master.seal(&first_form_key("a"), &[7; 32]).unwrap());
        let secret = part(data_key.seal(&first_form_secret("a"), b"secret").unwrap());
        let sealed = format!("{key}\n{secret}").into_bytes();
        let now = shop("a", "client-a", 2);
        assert_eq!(*open(&[master], &now, &sealed).ok().unwrap().secret, b"secret");
        assert!(matches!(open(&[data_key], &now, &sealed), Err(RowFault::KeyOrDamage)));
    }
}
