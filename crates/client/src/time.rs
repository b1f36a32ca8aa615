//! Moments: as people read them, and as they give them.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970, now.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// Milliseconds since 1970 as people read them.
pub fn utc(ms: u64) -> String {
    let (days, seconds) = (ms / 86_400_000, ms / 1_000 % 86_400);
    // Days since 0000-03-01, in the Gregorian calendar's eras of 400 years.
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
    format!("{year}-{month:02}-{day:02} {hours:02}:{minutes:02}:{:02} UTC", seconds % 60)
}

/// Reads a moment such as 2027-01-31T12:00:00Z or 2027-01-31T12:00:00+02:00 (RFC 3339): milliseconds since 1970.
///
/// Errors: what was expected and found.
pub fn moment(text: &str) -> Result<u64, String> {
    parse(text).ok_or_else(|| format!("expected as 2027-01-31T12:00:00Z, found {text:?}"))
}

fn parse(text: &str) -> Option<u64> {
    let (date, rest) = text.split_at_checked(10)?;
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (time, rest) = rest.split_at_checked(8)?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hours, minutes, seconds] = numbers(time, ':', [2, 2, 2])?;
    let (millis, zone) = match rest.strip_prefix('.') {
        Some(rest) => {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|n| *n > 0)?;
            let three: String = rest[..digits].chars().chain("00".chars()).take(3).collect();
            (three.parse::<u64>().ok()?, &rest[digits..])
        }
        None => (0, rest),
    };
    let offset = match zone {
        "Z" | "z" => 0,
        _ => {
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            let [h, m] = numbers(zone.strip_prefix(['+', '-'])?, ':', [2, 2])?;
            (h < 24 && m < 60).then_some(sign * (h * 60 + m) as i64)?
        }
    };
    let leap = |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    let length = |m: u64| match m {
        2 => 28 + u64::from(leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if year < 1970 || !(1..=12).contains(&month) || day < 1 || day > length(month) {
        return None;
    }
    if hours > 23 || minutes > 59 || seconds > 59 {
        return None;
    }
    let years: u64 = (1970..year).map(|y| 365 + u64::from(leap(y))).sum();
    let days = years + (1..month).map(length).sum::<u64>() + day - 1;
    let minutes = (days * 1_440 + hours * 60 + minutes) as i64 - offset;
    Some(u64::try_from(minutes).ok()? * 60_000 + seconds * 1_000 + millis)
}

/// Numbers of exactly these many digits.
fn numbers<const N: usize>(text: &str, between: char, digits: [usize; N]) -> Option<[u64; N]> {
    let mut parts = text.split(between);
    let mut found = [0; N];
    for (number, digits) in found.iter_mut().zip(digits) {
        let part = parts.next().filter(|p| p.len() == digits && p.bytes().all(|b| b.is_ascii_digit()))?;
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_and_shown() {
        let shown = [
            (0, "1970-01-01 00:00:00"),
            (951_782_399_999, "2000-02-28 23:59:59"),
            (951_782_400_000, "2000-02-29 00:00:00"),
            (1_798_761_599_000, "2026-12-31 23:59:59"),
        ];
        for (ms, text) in shown {
            assert_eq!(utc(ms), format!("{text} UTC"));
            assert_eq!(moment(&format!("{}Z", text.replace(' ', "T"))), Ok(ms / 1_000 * 1_000));
        }
        assert_eq!(moment("2026-12-31T23:59:59.5+01:30"), Ok(1_798_761_599_500 - 90 * 60_000));
        assert_eq!(moment("1970-01-01T00:00:00.1239-00:01"), Ok(60_123));
        let bad = [
            "",
            "now",
            "2026-12-31",
            "2026-12-31T23:59:59",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-04-31T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00+1:00",
            "2026-01-01T00:00:00+24:00",
            "1970-01-01T00:00:00+01:00",
            "+026-01-01T00:00:00Z",
            "2026-01-01T00:00:00Zz",
            "20\u{e9}6-01-01T00:00:00Z",
        ];
        for text in bad {
            assert!(moment(text).is_err(), "{text}");
        }
    }
}
