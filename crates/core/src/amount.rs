//! Amounts as people write them: minor units with a decimal point.

use crate::limits::{AMOUNT_MAX, DECIMALS_MAX};
use crate::{Code, Error, Result};

/// Minor units as text, with exactly `decimals` digits after the point (none and no point for 0):
/// 1250 with 2 decimals is "12.50".
pub fn format_amount(minor: i128, decimals: u8) -> String {
    let sign = if minor < 0 { "-" } else { "" };
    let decimals = usize::from(decimals);
    if decimals == 0 {
        return minor.to_string();
    }
    let digits = format!("{:0>width$}", minor.unsigned_abs(), width = decimals + 1);
    let (whole, fraction) = digits.split_at(digits.len() - decimals);
    format!("{sign}{whole}.{fraction}")
}

/// Reads an amount to pay, in minor units: digits, then at most one point and 1 to `decimals` digits.
/// `BAD_AMOUNT` for anything else, for zero, and above [`AMOUNT_MAX`].
pub fn parse_amount(text: &str, decimals: u8) -> Result<u64> {
    let bad = |expected: &str, found: String| Err(Error::expected(Code::BadAmount, "amount", expected, found));
    if decimals > DECIMALS_MAX {
        let found = format!("{decimals}");
        return Err(Error::expected(
            Code::BadAmount,
            "decimals of the currency",
            format!("0 to {DECIMALS_MAX}"),
            found,
        ));
    }
    if text.starts_with('-') {
        return bad("more than zero", shown(text));
    }
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !number(whole) || !fraction.is_none_or(number) {
        return bad("digits with at most one point, such as 12 or 12.5", shown(text));
    }
    let fraction = fraction.unwrap_or("");
    let missing = match usize::from(decimals).checked_sub(fraction.len()) {
        Some(missing) => missing,
        None => {
            let expected = format!("at most {decimals} digits after the point");
            return bad(&expected, format!("{} in {}", fraction.len(), shown(text)));
        }
    };
    let digits = whole.bytes().chain(fraction.bytes()).chain(std::iter::repeat_n(b'0', missing));
    let mut minor: u64 = 0;
    for digit in digits {
        let next = minor.checked_mul(10).and_then(|m| m.checked_add(u64::from(digit - b'0')));
        minor = match next {
            Some(next) if next <= AMOUNT_MAX => next,
            _ => return bad(&format!("at most {}", format_amount(AMOUNT_MAX.into(), decimals)), shown(text)),
        };
    }
    if minor == 0 {
        return bad("more than zero", shown(text));
    }
    Ok(minor)
}

/// Text for an error message, quoted and not longer than a line.
fn shown(text: &str) -> String {
    const CHARS_MAX: usize = 40;
    let short: String = text.chars().take(CHARS_MAX).collect();
    let rest = if short.len() < text.len() { "..." } else { "" };
    format!("{short:?}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refusal(text: &str, decimals: u8) -> String {
        let error = parse_amount(text, decimals).unwrap_err();
        assert_eq!(error.code, Code::BadAmount, "{text}");
        error.message
    }

    #[test]
    fn a_long_text_is_shown_cut() {
        assert!(refusal(&"x".repeat(40), 2).ends_with(&format!("{:?}", "x".repeat(40))));
        assert!(refusal(&"x".repeat(41), 2).ends_with(&format!("{:?}...", "x".repeat(40))));
    }

    #[test]
    fn amounts_as_people_read_them() {
        for (minor, decimals, text) in [
            (1_250, 2, "12.50"),
            (-1, 2, "-0.01"),
            (0, 2, "0.00"),
            (12, 0, "12"),
            (-12, 0, "-12"),
            (5, 18, "0.000000000000000005"),
            (i128::MIN, 0, "-170141183460469231731687303715884105728"),
            (i128::MAX, 2, "1701411834604692317316873037158841057.27"),
        ] {
            assert_eq!(format_amount(minor, decimals), text);
        }
        for (text, decimals, minor) in [
            ("12", 2, 1_200),
            ("12.5", 2, 1_250),
            ("12.50", 2, 1_250),
            ("0.01", 2, 1),
            ("007", 0, 7),
            ("9223372036854775807", 0, AMOUNT_MAX),
            ("9.223372036854775807", 18, AMOUNT_MAX),
        ] {
            assert_eq!(parse_amount(text, decimals).unwrap(), minor, "{text}");
        }
    }

    #[test]
    fn refusals_name_expected_and_found() {
        assert_eq!(refusal("12.345", 2), "amount: expected at most 2 digits after the point, found 3 in \"12.345\"");
        assert_eq!(refusal("12.0", 0), "amount: expected at most 0 digits after the point, found 1 in \"12.0\"");
        assert_eq!(refusal("0.00", 2), "amount: expected more than zero, found \"0.00\"");
        assert_eq!(refusal("-5", 2), "amount: expected more than zero, found \"-5\"");
        let too_large = "amount: expected at most 92233720368547758.07, found \"92233720368547758.08\"";
        assert_eq!(refusal("92233720368547758.08", 2), too_large);
        refusal("9223372036854775808", 0);
        refusal("1", 19);
        assert!(refusal(&"9".repeat(100_000), 2).len() < 150);
    }

    #[test]
    fn junk_is_refused() {
        for text in ["", ".", "1.", ".5", "1.2.3", "1,000", "1_000", "1e3", "+1", " 1", "1 ", "0x1", "١", "1.-5", "NaN"]
        {
            assert!(refusal(text, 2).contains("digits with at most one point"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(minor in 1..=AMOUNT_MAX, decimals in 0..=DECIMALS_MAX) {
            prop_assert_eq!(parse_amount(&format_amount(minor.into(), decimals), decimals).unwrap(), minor);
        }

        #[test]
        fn any_text_is_answered(text: String, decimals: u8) {
            let _ = parse_amount(&text, decimals);
            let _ = format_amount(text.len() as i128, decimals);
        }
    }
}
