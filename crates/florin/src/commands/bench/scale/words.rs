//! What the points of one dimension say, in words.

use super::Row;

/// How far apart two points may be and still be called alike: what repeats of one point differ by.
const ALIKE: f64 = 0.05;
/// Parts of the cost that are named.
const NAMED: usize = 2;
/// Parts that changed by less are not named, us.
const WORTH_NAMING_US: f64 = 0.2;

/// Where the cost bends, in one sentence or a few, and what of it grows there. `bar` is the largest ratio that is asked for.
pub fn words(rows: &[Row], base: usize, bar: Option<(usize, f64)>) -> String {
    let mut said = Vec::new();
    let ends = flat_around(rows, base);
    if ends.0 < ends.1 {
        let off = rows[ends.0..=ends.1].iter().map(|row| (row.ratio - 1.0).abs()).fold(0.0, f64::max);
        said.push(format!("flat to {:.0} % from {} to {}", off * 100.0, rows[ends.0].at, rows[ends.1].at));
    }
    for (i, row) in rows.iter().enumerate() {
        if (ends.0..=ends.1).contains(&i) {
            continue;
        }
        said.push(format!("{} at {}{}", change(row.ratio), row.at, reasons(row, &rows[base])));
    }
    if let Some((at, most)) = bar {
        let ratio = rows[at].ratio;
        let met = if ratio <= most { "met" } else { "missed" };
        said.push(format!("bar: {} at most {most:.2} times {}: {ratio:.2}, {met}", rows[at].at, rows[base].at));
    }
    said.join("; ")
}

/// First and last of the points around the base that are like it, with none between that isn't.
fn flat_around(rows: &[Row], base: usize) -> (usize, usize) {
    let alike = |row: &Row| (row.ratio - 1.0).abs() <= ALIKE;
    let first = rows[..base].iter().rposition(|row| !alike(row)).map_or(0, |i| i + 1);
    let last = rows[base..].iter().position(|row| !alike(row)).map_or(rows.len(), |i| base + i);
    (first, last - 1)
}

fn change(ratio: f64) -> String {
    match ratio {
        r if r >= 2.0 => format!("{r:.1} times"),
        r => format!("{:+.0} %", (r - 1.0) * 100.0),
    }
}

/// The parts that changed most.
fn reasons(row: &Row, base: &Row) -> String {
    let of_base = |kind: &str| base.measured.split_us.iter().find(|(k, _)| k == kind).map_or(0.0, |(_, us)| *us);
    let parts = row.measured.split_us.iter();
    let mut parts: Vec<(&str, f64)> = parts.map(|(kind, us)| (kind.as_str(), us - of_base(kind))).collect();
    parts.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    let named = parts.into_iter().take(NAMED).filter(|(_, us)| us.abs() >= WORTH_NAMING_US);
    let named: Vec<String> = named.map(|(kind, us)| format!("{kind} {us:+.1} us")).collect();
    if named.is_empty() { String::new() } else { format!(" ({})", named.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::super::point::Measured;
    use super::*;

    fn row(at: &str, ratio: f64, state: f64) -> Row {
        let measured = Measured {
            history: 0,
            cpu_us: 10.0 * ratio,
            split_us: vec![("signatures".into(), 7.0), ("state".into(), state)],
            rounds_us: Vec::new(),
            ceiling_us: 7.0,
            plain_us: 7.0,
            syncs: 0.0,
            tree_reads: 0.0,
            written_bytes: 0.0,
            disk_bytes: 0,
            resident_bytes: 0,
            whole_merge_s: 0.0,
        };
        Row { at: at.into(), x: 0.0, ratio, measured }
    }

    #[test]
    fn where_it_bends_is_named_with_what_grows() {
        let rows = [row("10^4", 1.0, 3.0), row("10^5", 0.98, 2.8), row("10^6", 1.18, 4.8), row("10^7", 2.5, 18.0)];
        let said = words(&rows, 0, Some((3, 1.2)));
        assert_eq!(
            said,
            "flat to 2 % from 10^4 to 10^5; +18 % at 10^6 (state +1.8 us); 2.5 times at 10^7 (state +15.0 us); \
             bar: 10^7 at most 1.20 times 10^4: 2.50, missed"
        );
    }

    #[test]
    fn a_base_in_the_middle_has_two_sides() {
        let rows = [row("1", 30.0, 290.0), row("1000", 1.0, 3.0), row("4096", 0.9, 2.9)];
        assert_eq!(words(&rows, 1, None), "30.0 times at 1 (state +287.0 us); -10 % at 4096");
        assert_eq!(words(&rows[1..2], 0, Some((0, 1.1))), "bar: 1000 at most 1.10 times 1000: 1.00, met");
    }
}
