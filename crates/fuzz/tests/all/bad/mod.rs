//! The rules: for each decoder and handler a valid value, and every rule about it broken one at a time.

mod bearers;
mod contents;
mod files;
mod handlers;
mod orders;
mod proofs;
mod proto;

use florin_core::Code;

use crate::bad_input::Case;

/// Those whose input is text, as long as it is UTF-8.
pub const IS_TEXT: &[&str] = &[
    "address",
    "currency",
    "amount",
    "key-text",
    "authority-key",
    "eosio-public",
    "eosio-private",
    "eosio-signature",
    "note-text",
    "key-to-lock",
    "voucher-text",
    "permit-text",
    "invoice-text",
    "qr-frames",
    "seed-words",
    "committee-file",
    "authority-file",
    "authority-secret",
    "genesis-file",
    "envelopes-file",
    "receipt-file",
    "wallet-file",
    "journal-file",
];

/// Cases, and the whole values that they were made of.
#[derive(Default)]
pub struct Cases {
    bad: Vec<Case>,
    whole: Vec<(&'static str, String, Vec<u8>)>,
}

impl Cases {
    /// A bad input; `rule` is in words, and its letters are the file's name.
    pub fn bad(&mut self, of: &'static str, code: Code, rule: impl Into<String>, bytes: impl AsRef<[u8]>) {
        let rule = rule.into();
        let letters = rule.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let name = letters.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-");
        self.bad.push(Case { of, name, code, rule, bytes: bytes.as_ref().to_vec() });
    }

    /// A value that is good.
    pub fn whole(&mut self, of: &'static str, name: impl Into<String>, bytes: impl AsRef<[u8]>) {
        self.whole.push((of, name.into(), bytes.as_ref().to_vec()));
    }
}

fn all() -> Cases {
    let mut cases = Cases::default();
    orders::add(&mut cases);
    contents::add(&mut cases);
    bearers::add(&mut cases);
    proofs::add(&mut cases);
    files::add(&mut cases);
    handlers::add(&mut cases);
    cases
}

/// All bad inputs.
pub fn cases() -> Vec<Case> {
    all().bad
}

/// All good ones.
pub fn whole() -> Vec<(&'static str, String, Vec<u8>)> {
    all().whole
}
