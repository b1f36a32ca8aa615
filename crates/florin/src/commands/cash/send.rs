//! `florin cash send`, `sent` and `cancel`.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use florin_client::cash::Sending;
use florin_client::cash::records::{Gone, Handed, Hex32, State};
use florin_client::cash::text::{decode_key, frames};
use florin_client::time::{now_ms, utc};
use florin_core::{Code, Error, Result};
use serde_json::{Value, json};

use super::purse::{Purse, PurseArgs, parse, plain};
use crate::commands::support::{PRIVATE, fields, need_vacant, table, write_new};
use crate::commands::wallet::qr;
use crate::output::Output;

/// Between two frames of a QR code.
const FRAME: Duration = Duration::from_millis(400);
/// Characters that the beginning of a frame takes.
const FRAME_HEAD: usize = 26;
/// Modules and characters (upper case, quarter of them for correction) of QR codes of versions 5 to 15.
const SIZES: [(usize, usize); 11] = [
    (37, 122),
    (41, 154),
    (45, 178),
    (49, 221),
    (53, 262),
    (57, 311),
    (61, 366),
    (65, 419),
    (69, 483),
    (73, 528),
    (77, 600),
];

/// Options of `cash send`.
#[derive(clap::Args)]
pub struct SendArgs {
    #[command(flatten)]
    purse: PurseArgs,
    /// Amount, as 12 or 12.50
    #[arg(allow_negative_numbers = true)]
    amount: String,
    /// A note for the receiver alone, at most 256 bytes
    #[arg(long, default_value = "", hide_default_value = true)]
    memo: String,
    /// Only the owner of this key can spend them, until the date of --back-after
    #[arg(long, value_name = "KEY")]
    to: Option<String>,
    /// With --to: how long nobody else can, as 30m, 24h or 7d
    #[arg(long, value_name = "DURATION", requires = "to", default_value = "24h", value_parser = span)]
    back_after: Duration,
    /// An id of your own: repeat the command with it, and the same string comes
    #[arg(long, value_name = "TEXT")]
    id: Option<String>,
    #[command(flatten)]
    form: Form,
}

/// How a string is shown.
#[derive(clap::Args)]
pub struct Form {
    /// Into a new file, instead of stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// As a QR code too; on a terminal animated until Ctrl-C if one is not enough
    #[arg(long)]
    qr: bool,
}

/// Options of `cash sent`.
#[derive(clap::Args)]
pub struct SentArgs {
    #[command(flatten)]
    purse: PurseArgs,
    /// Show the string of this number again
    number: Option<u64>,
    #[command(flatten)]
    form: Form,
}

/// Options of `cash cancel`.
#[derive(clap::Args)]
pub struct CancelArgs {
    #[command(flatten)]
    purse: PurseArgs,
    /// Its number, or the string
    #[arg(value_name = "NUMBER|STRING")]
    which: String,
}

/// Reads a span of time up to a year.
fn span(text: &str) -> std::result::Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| format!("expected as 30m, 24h or 7d, found {text:?}"))?;
    let unit = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(format!("expected the unit s, m, h or d, found {text:?}")),
    };
    let seconds = number.checked_mul(unit).filter(|s| (1..=366 * 86_400).contains(s));
    seconds.map(Duration::from_secs).ok_or_else(|| format!("expected 1s to 366d, found {text:?}"))
}

/// `cash send`.
pub fn send(args: SendArgs, out: Output) -> Result<()> {
    let committee = args.purse.place.committee()?;
    let amount = parse(&committee, &args.amount)?;
    let lock = args.to.as_deref().map(|text| decode_key(text, &committee)).transpose()?;
    let lock = lock.map(|key| (Hex32(key), now_ms() + args.back_after.as_millis() as u64));
    need_vacant(&args.form.out)?;
    args.purse.run(out, async |mut purse| {
        let sending = Sending { amount, memo: args.memo.clone(), id: args.id.clone(), lock };
        let mut progress = purse.progress();
        let number = purse.cash.send(&purse.network, &purse.secrets, &sending, &mut progress).await?;
        purse.name_liars();
        show(&purse, number, &args.form, out)
    })
}

/// Shows the string of something that was sent.
fn show(purse: &Purse, number: u64, form: &Form, out: Output) -> Result<()> {
    let text = purse.cash.string(&purse.secrets, number)?;
    let sent = &purse.cash.book().sent[&number];
    let until = until(purse, sent);
    let (total, notes) = (purse.amount(left(purse, sent)), sent.notes.len());
    let who = match until {
        None => format!("whoever has the string can spend it; `florin cash cancel {number}` takes it back"),
        Some(until) => {
            format!(
                "only the key that it is locked to can spend it before {}; after that `florin cash cancel {number}` \
                takes it back",
                utc(until)
            )
        }
    };
    out.note(format_args!("number {number}: {total} in {notes} notes; {who}"));
    let mut value = describe(purse, number, sent);
    value["notes"] = text.as_str().into();
    value["until_ms"] = until.into();
    if let Some(path) = &form.out {
        write_new(path, format!("{}\n", *text).as_bytes(), PRIVATE)?;
        value["file"] = path.display().to_string().into();
        value["notes"] = Value::Null;
    }
    match &form.out {
        Some(path) => out.data(path.display(), &value),
        None => out.data(text.as_str(), &value),
    }
    // Last, as it goes on until it is stopped.
    if form.qr && !out.json { show_qr(&text) } else { Ok(()) }
}

/// Minor units of something sent that nobody was seen to claim.
fn left(purse: &Purse, sent: &Handed) -> u128 {
    let there = |nonce: &Hex32| purse.cash.book().notes.get(nonce).is_some_and(|n| matches!(n.state, State::Sent(_)));
    sent.notes.iter().filter(|(nonce, _)| there(nonce)).map(|(_, tier)| 1u128 << tier).sum()
}

/// Until when only the receiver can spend it.
fn until(purse: &Purse, sent: &Handed) -> Option<u64> {
    let lock = |nonce: &Hex32| purse.cash.book().notes.get(nonce)?.note.origin.lock().map(|lock| lock.after_ms);
    sent.notes.iter().filter_map(|(nonce, _)| lock(nonce)).max()
}

fn describe(purse: &Purse, number: u64, sent: &Handed) -> Value {
    let (total, left) = (sent.total(), left(purse, sent));
    let claimed = |(nonce, _): &&(Hex32, u32)| matches!(purse.cash.gone(nonce), Some(Gone::Elsewhere(_)));
    let claimed: u128 = sent.notes.iter().filter(claimed).map(|(_, tier)| 1u128 << tier).sum();
    let minor = |minor: u128| minor.to_string();
    json!({"number": number, "amount": plain(&purse.committee, total), "amount_minor": minor(total),
        "waiting_minor": minor(left), "claimed_minor": minor(claimed), "count": sent.notes.len(), "memo": sent.memo,
        "id": sent.id, "time_ms": sent.time})
}

/// A QR code, or frames of it.
fn show_qr(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout();
    let (columns, rows) = size(&stdout);
    let fits = |(modules, _): &&(usize, usize)| modules + 8 <= columns && (modules + 9) / 2 + 2 <= rows;
    let chars = SIZES.iter().rfind(fits).unwrap_or(&SIZES[0]).1;
    let frames = if text.len() <= chars { vec![text.to_owned()] } else { frames(text, chars - FRAME_HEAD) };
    let codes: Vec<String> = frames.iter().map(|frame| qr(frame)).collect::<Result<_>>()?;
    let moving = codes.len() > 1 && stdout.is_terminal();
    loop {
        for (i, code) in codes.iter().enumerate() {
            let clear = if moving { "\x1b[2J\x1b[H" } else { "" };
            let count = if codes.len() > 1 { format!("\n{} of {}", i + 1, codes.len()) } else { String::new() };
            let written = writeln!(stdout, "{clear}{code}{count}").and_then(|()| stdout.flush());
            if !moving && written.is_ok() {
                continue;
            }
            if written.is_err() {
                return Ok(());
            }
            std::thread::sleep(FRAME);
        }
        if !moving {
            return Ok(());
        }
    }
}

/// Columns and rows of the terminal.
fn size(stdout: &std::io::Stdout) -> (usize, usize) {
    match rustix::termios::tcgetwinsize(stdout) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 40),
    }
}

/// `cash sent`.
pub fn sent(args: SentArgs, out: Output) -> Result<()> {
    need_vacant(&args.form.out)?;
    args.purse.run(out, async |mut purse| {
        let waiting = purse.cash.book().in_state(|s| matches!(s, State::Sent(_))).map(|n| n.note.nonce);
        let waiting: Vec<Hex32> = waiting.collect();
        if let Err(e) = purse.cash.look(&purse.network, &waiting).await {
            out.note(format_args!("what was claimed since is not known: {e}"));
        }
        if let Some(number) = args.number {
            return show(&purse, number, &args.form, out);
        }
        let mut rows = vec![vec!["number".to_owned(), "time".into(), "amount".into(), "state".into(), "memo".into()]];
        let mut values = Vec::new();
        for (number, sent) in &purse.cash.book().sent {
            let value = describe(&purse, *number, sent);
            let total = sent.total();
            let part = |name: &str| value[name].as_str().and_then(|s| s.parse::<u128>().ok()).unwrap_or(0);
            let (left, claimed) = (part("waiting_minor"), part("claimed_minor"));
            let state = match (left, claimed) {
                (left, _) if left == total => "waiting".to_owned(),
                (0, claimed) if claimed == total => "claimed".to_owned(),
                (0, 0) => "taken back".to_owned(),
                (left, claimed) => format!("{} claimed, {} waiting", purse.amount(claimed), purse.amount(left)),
            };
            rows.push(vec![
                number.to_string(),
                utc(sent.time),
                purse.amount(total),
                state,
                sent.memo.escape_debug().to_string(),
            ]);
            values.push(value);
        }
        let text = if values.is_empty() { "nothing was sent".into() } else { table(&rows) };
        out.data(text, &json!({"sent": values}));
        Ok(())
    })
}

/// `cash cancel`.
pub fn cancel(args: CancelArgs, out: Output) -> Result<()> {
    args.purse.run(out, async |mut purse| {
        let number = match args.which.parse::<u64>() {
            Ok(number) => Some(number),
            Err(_) => purse.cash.sent_as(&purse.secrets, &args.which)?,
        };
        let mut progress = purse.progress();
        // A string that the journal does not know any more is received like any other.
        let back = match number {
            Some(number) => purse.cash.cancel(&purse.network, &purse.secrets, number, &mut progress).await?,
            None => purse.cash.receive(&purse.network, &purse.secrets, &args.which, &mut progress).await?.exchanged,
        };
        purse.name_liars();
        if back.got == 0 {
            let message = match back.lost.is_empty() {
                true => "nothing is left to take back: it was claimed, or taken back before".to_owned(),
                false => format!("nothing is left to take back: {} were claimed", purse.amount(back.lost_total())),
            };
            return Err(Error::new(Code::NoteSpent, message));
        }
        let mut rows = vec![("taken back", purse.amount(back.got))];
        if !back.lost.is_empty() {
            rows.push(("claimed", purse.amount(back.lost_total())));
        }
        rows.push(("cash", purse.amount(purse.cash.book().free().total())));
        let value = json!({"number": number, "taken_back": plain(&purse.committee, back.got),
            "taken_back_minor": back.got.to_string(), "claimed_minor": back.lost_total().to_string(), "cash": purse.left()});
        out.data(fields(&rows), &value);
        Ok(())
    })
}
