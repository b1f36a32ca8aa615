//! Addresses: what you pay to. 32 bytes; as text bech32m with the currency as prefix.

use std::fmt;

use bech32::primitives::decode::{CharError, UncheckedHrpstring, UncheckedHrpstringError};
use bech32::{Bech32, Bech32m, Hrp};

use crate::limits::ID_MAX;
use crate::{Code, Error, Result};

/// Bytes of an address.
pub const ADDRESS_BYTES: usize = 32;
/// Characters of a currency code.
pub const CURRENCY_CHARS_MAX: usize = 16;

/// Where a credit goes: the hash of an account's first permission, or of a managed actor's id.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct Address([u8; ADDRESS_BYTES]);

impl Address {
    /// The address with these bytes.
    pub const fn new(bytes: [u8; ADDRESS_BYTES]) -> Self {
        Address(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; ADDRESS_BYTES] {
        &self.0
    }

    /// The address in a field of a message. `BAD_ADDRESS` unless there are 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Result<Self> {
        let Ok(bytes) = bytes.try_into() else {
            return Err(Error::expected(Code::BadAddress, "bytes of an address", ADDRESS_BYTES, bytes.len()));
        };
        Ok(Address(bytes))
    }

    /// The actor id that belongs to the address: the first 8 bytes, big-endian, top bit clear.
    pub fn actor(&self) -> u64 {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        u64::from_be_bytes(first) & ID_MAX
    }

    /// The shard that keeps the account, of `shards` (at least 1).
    pub fn shard(&self, shards: u32) -> u32 {
        assert!(shards > 0, "a committee has at least one shard");
        u32::try_from(self.actor() % u64::from(shards)).expect("a remainder is below its u32 divisor")
    }

    /// The text form: bech32m, its prefix the currency code in lower case. A code that
    /// [`check_currency`] refuses gives hex, which nothing takes for an address.
    pub fn to_text(&self, currency: &str) -> String {
        if check_currency(currency).is_err() {
            return hex::encode(self.0);
        }
        Hrp::parse(&currency.to_ascii_lowercase())
            .ok()
            .and_then(|prefix| bech32::encode::<Bech32m>(prefix, &self.0).ok())
            .expect("letters and digits make a prefix, and 32 bytes are far below bech32m's limit")
    }

    /// Reads the text form. `BAD_ADDRESS` for a mistyped one and for one of another currency.
    pub fn from_text(text: &str, currency: &str) -> Result<Self> {
        check_currency(currency)?;
        let bad = |message: String| Error::new(Code::BadAddress, message);
        let parsed = parse(text)?;
        if !parsed.has_valid_checksum::<Bech32m>() {
            return Err(bad(if parsed.has_valid_checksum::<Bech32>() {
                "checksum: expected bech32m, found bech32, so this is the address of something else".into()
            } else {
                "the address was mistyped or cut: its checksum does not match".into()
            }));
        }
        let (expected, found) = (currency.to_ascii_lowercase(), parsed.hrp().to_lowercase());
        if expected != found {
            return Err(Error::expected(Code::BadAddress, "currency of the address", expected, found));
        }
        let data = parsed.remove_checksum::<Bech32m>();
        let bytes: Vec<u8> = data.byte_iter().collect();
        let address = Address::from_slice(&bytes)?;
        // 32 bytes leave padding in the last character; only zero bits, or one address has two texts.
        if !text.eq_ignore_ascii_case(&address.to_text(currency)) {
            return Err(bad("the address is not in its only valid form: its padding is not zero".into()));
        }
        Ok(address)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// The currency prefix of an address in text form, in lower case; the rest is not checked.
pub fn hrp_of(text: &str) -> Result<String> {
    Ok(parse(text)?.hrp().to_lowercase())
}

/// Whether a currency code can be an address's prefix: a letter, then letters or digits but no `1`
/// (the separator), 16 at most. `BAD_CONFIG` if not.
pub fn check_currency(currency: &str) -> Result<()> {
    let good = currency.starts_with(|c: char| c.is_ascii_alphabetic())
        && currency.len() <= CURRENCY_CHARS_MAX
        && currency.chars().all(|c| c.is_ascii_alphanumeric() && c != '1');
    if good {
        return Ok(());
    }
    let expected = format!("1 to {CURRENCY_CHARS_MAX} letters or digits other than 1, a letter first");
    Err(Error::expected(Code::BadConfig, "currency code", expected, format!("{currency:?}")))
}

fn parse(text: &str) -> Result<UncheckedHrpstring<'_>> {
    UncheckedHrpstring::new(text).map_err(|e| {
        let message = match e {
            UncheckedHrpstringError::Char(CharError::MissingSeparator) => {
                "form: expected the currency, `1` and the address, found no `1`".into()
            }
            UncheckedHrpstringError::Char(CharError::NothingAfterSeparator) => "nothing follows the prefix".into(),
            UncheckedHrpstringError::Char(CharError::InvalidChar(c)) => format!("the character {c:?} is in no address"),
            UncheckedHrpstringError::Char(CharError::MixedCase) => {
                "case: expected all lower or all upper case, found both".into()
            }
            other => format!("not an address: {other}"),
        };
        Error::new(Code::BadAddress, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "flr1qqqsyqcyq5rqwzqfpg9scrgwpugpzysnzs23v9ccrydpk8qarc0shk3s80";

    fn sample() -> Address {
        Address::new(std::array::from_fn(|i| i as u8))
    }

    fn refusal(text: &str, currency: &str) -> String {
        let error = Address::from_text(text, currency).unwrap_err();
        assert_eq!(error.code, Code::BadAddress);
        error.message
    }

    #[test]
    fn text_form_is_pinned_and_takes_any_one_case() {
        assert_eq!(sample().to_text("FLR"), TEXT);
        assert_eq!(Address::from_text(TEXT, "FLR").unwrap(), sample());
        assert_eq!(Address::from_text(&TEXT.to_uppercase(), "flr").unwrap(), sample());
        assert!(refusal(&TEXT.replacen('f', "F", 1), "flr").contains("case"));
    }

    #[test]
    fn every_mistyped_character_is_noticed() {
        for (i, old) in TEXT.char_indices().skip(4) {
            let new = if old == 'q' { "p" } else { "q" };
            let mut text = TEXT.to_string();
            text.replace_range(i..=i, new);
            assert!(refusal(&text, "flr").contains("mistyped"), "{text}");
        }
        for end in 0..TEXT.len() {
            refusal(&TEXT[..end], "flr");
        }
    }

    #[test]
    fn another_currency_is_named() {
        assert_eq!(refusal(TEXT, "EUR"), "currency of the address: expected eur, found flr");
        assert_eq!(hrp_of(TEXT).unwrap(), "flr");
        assert_eq!(hrp_of(&TEXT.to_uppercase()).unwrap(), "flr");
        assert_eq!(hrp_of("nothing here").unwrap_err().code, Code::BadAddress);
    }

    #[test]
    fn plain_bech32_wrong_length_and_padding_are_refused() {
        let prefix = Hrp::parse("flr").unwrap();
        let plain = bech32::encode::<Bech32>(prefix, sample().as_bytes()).unwrap();
        assert!(refusal(&plain, "flr").contains("expected bech32m, found bech32"));
        for length in [0, 20, 31, 33, 64] {
            let text = bech32::encode::<Bech32m>(prefix, &vec![7; length]).unwrap();
            assert_eq!(refusal(&text, "flr"), format!("bytes of an address: expected 32, found {length}"));
        }
        // The same 32 bytes with a set bit in the padding, and with a whole character of padding.
        use bech32::Fe32;
        use bech32::primitives::iter::{ByteIterExt, Fe32IterExt};
        let mut fes: Vec<Fe32> = sample().as_bytes().iter().copied().bytes_to_fes().collect();
        let text = |fes: &[Fe32]| -> String { fes.iter().copied().with_checksum::<Bech32m>(&prefix).chars().collect() };
        assert_eq!(text(&fes), TEXT);
        let last = fes.len() - 1;
        fes[last] = Fe32::try_from(fes[last].to_u8() | 1).unwrap();
        assert!(refusal(&text(&fes), "flr").contains("padding"));
        fes[last] = Fe32::try_from(fes[last].to_u8() & 0b10000).unwrap();
        fes.push(Fe32::Q);
        Address::from_text(&text(&fes), "flr").unwrap_err();
    }

    #[test]
    fn odd_text_is_an_error() {
        for text in ["", "1", "flr1", "1flr", "flr", "flr1bio", "flr1 qq", "flr1é", "\u{0}", &"q1".repeat(3_000)] {
            refusal(text, "flr");
        }
        assert_eq!(Address::from_slice(&[0; 31]).unwrap_err().code, Code::BadAddress);
        assert_eq!(Address::from_slice(sample().as_bytes()).unwrap(), sample());
    }

    #[test]
    fn bad_currency_codes_neither_panic_nor_make_addresses() {
        for currency in ["", "1", "a1", "9a", "é", "a b", &"a".repeat(17)] {
            assert_eq!(check_currency(currency).unwrap_err().code, Code::BadConfig, "{currency}");
            assert_eq!(sample().to_text(currency), hex::encode(sample().as_bytes()));
            Address::from_text(TEXT, currency).unwrap_err();
        }
        check_currency("EURX2").unwrap();
    }

    #[test]
    fn for_whoever_debugs_it_is_hex() {
        assert_eq!(format!("{:?}", sample()), hex::encode(sample().as_bytes()));
    }

    #[test]
    fn actor_and_shard() {
        let address = Address::new([0xff; 32]);
        assert_eq!(address.actor(), ID_MAX);
        assert_eq!(address.shard(1_024), 1_023);
        assert_eq!(sample().actor(), 0x0001_0203_0405_0607);
        assert_eq!(sample().shard(1), 0);
    }

    proptest! {
        #[test]
        fn round_trip(bytes: [u8; 32], currency in "[a-zA-Z][a-zA-Z02-9]{0,15}") {
            let address = Address::new(bytes);
            prop_assert_eq!(Address::from_text(&address.to_text(&currency), &currency).unwrap(), address);
        }

        #[test]
        fn any_text_is_answered(text: String) {
            prop_assert!(Address::from_text(&text, "flr").is_err());
        }
    }
}
