//! `florin cash receive` and `request`.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use florin_client::cash::Offline;
use florin_client::cash::text::{Frames, TEXT_CHARS_MAX};
use florin_client::time::utc;
use florin_core::committee::Committee;
use florin_core::{Code, Error, Result};
use serde_json::json;
use zeroize::Zeroizing;

use super::purse::{PurseArgs, amount, plain};
use crate::commands::support::{fail_with_report, fields};
use crate::commands::wallet::qr;
use crate::output::Output;

/// Options of `cash receive`.
#[derive(clap::Args)]
pub struct ReceiveArgs {
    #[command(flatten)]
    purse: PurseArgs,
    /// The note string
    #[arg(required_unless_present = "file")]
    notes: Option<String>,
    /// File with the string, or with frames of a QR code, one a line in any order; `-` is stdin
    #[arg(long, value_name = "FILE", conflicts_with = "notes")]
    file: Option<PathBuf>,
    /// Without a network: check and keep them; the next command that has one exchanges them
    #[arg(long)]
    offline: bool,
}

/// Options of `cash request`.
#[derive(clap::Args)]
pub struct RequestArgs {
    #[command(flatten)]
    purse: PurseArgs,
    /// Show it as a QR code too
    #[arg(long)]
    qr: bool,
}

/// `cash receive`.
pub fn receive(args: ReceiveArgs, out: Output) -> Result<()> {
    let text = text(args.notes.as_deref(), args.file.as_deref(), out)?;
    if args.offline {
        let (mut cash, secrets, committee) = args.purse.open()?;
        let offline = cash.receive_offline(&secrets, &text)?;
        kept(&offline, &committee, out);
        return Ok(());
    }
    args.purse.run(out, async |mut purse| {
        let mut progress = purse.progress();
        let taken = purse.cash.receive(&purse.network, &purse.secrets, &text, &mut progress).await?;
        purse.name_liars();
        let (got, lost) = (taken.exchanged.got, &taken.exchanged.lost);
        let mut rows = vec![("received", purse.amount(got))];
        if !taken.memo.is_empty() {
            rows.push(("memo", taken.memo.escape_debug().to_string()));
        }
        rows.push(("cash", purse.amount(purse.cash.book().free().total())));
        let spent: Vec<_> =
            (lost.iter()).map(|l| json!({"nonce": hex::encode(l.nonce.0), "tier": l.tier, "order_id": l.by})).collect();
        let value = json!({"status": if lost.is_empty() { "final" } else { "spent" }, "number": taken.number,
            "received": plain(&purse.committee, got), "received_minor": got.to_string(),
            "of": plain(&purse.committee, taken.total), "of_minor": taken.total.to_string(), "notes": taken.notes,
            "memo": taken.memo, "spent_before": spent, "cash": purse.left()});
        if lost.is_empty() {
            out.data(fields(&rows), &value);
            return Ok(());
        }
        let of = format!("of {} notes worth {}: {}", taken.notes, purse.amount(taken.total), purse.told(lost));
        let rest = if got == 0 { "nothing is received".into() } else { format!("{} are received", purse.amount(got)) };
        fail_with_report(out, &fields(&rows), value, &Error::new(Code::NoteSpent, format!("{of}; {rest}")))
    })
}

/// Says what was proved of notes that nobody has exchanged.
fn kept(offline: &Offline, committee: &Committee, out: Output) {
    let total = amount(committee, offline.total);
    let what = format!("{total} in {} notes", offline.notes);
    let text = match offline.until_ms {
        Some(until) => format!(
            "{what}: signed by the committee, and yours alone until {}: exchange them before that, with any `florin cash` \
             command that has a network",
            utc(until)
        ),
        None => {
            out.note(format_args!(
                "NOT PROVED: that nobody has spent them, or will before you are online. Take them only from somebody you \
                 trust for {total}"
            ));
            format!("{what}: signed by the committee, of the right tiers")
        }
    };
    let memo = if offline.memo.is_empty() { String::new() } else { format!("\nmemo: {}", offline.memo.escape_debug()) };
    let value = json!({"status": "kept", "number": offline.number, "amount": plain(committee, offline.total),
        "amount_minor": offline.total.to_string(), "notes": offline.notes, "memo": offline.memo,
        "proved": if offline.until_ms.is_some() { "signatures, and that nobody else can spend them before until_ms" }
            else { "signatures; not that they are unspent" },
        "until_ms": offline.until_ms});
    out.data(format!("{text}{memo}"), &value);
}

/// The string that was given, or that a file or frames have. Errors: `BAD_FILE`, `DECODE`, `USAGE`.
pub fn text(given: Option<&str>, file: Option<&Path>, out: Output) -> Result<Zeroizing<String>> {
    if let Some(text) = given {
        return Ok(Zeroizing::new(text.to_owned()));
    }
    let Some(path) = file else { return Err(Error::new(Code::Usage, "give a note string, or --file")) };
    let bad = |e: std::io::Error| Error::new(Code::BadFile, format!("{}: {e}", path.display()));
    let source: Box<dyn Read> = match path == Path::new("-") {
        true => Box::new(std::io::stdin()),
        false => Box::new(std::fs::File::open(path).map_err(bad)?),
    };
    let mut frames = Frames::default();
    // A scanner may see each frame many times.
    for line in BufReader::new(source).take(64 * TEXT_CHARS_MAX as u64).lines() {
        let line = Zeroizing::new(line.map_err(bad)?);
        if line.trim().is_empty() {
            continue;
        }
        let before = frames.progress();
        match frames.take(&line) {
            Ok(Some(text)) => return Ok(Zeroizing::new(text)),
            Ok(None) if frames.progress() != before => {
                let (seen, count) = frames.progress();
                out.note(format_args!("{seen} of {count} frames"));
            }
            Ok(None) => {}
            Err(e) => return Err(e),
        }
    }
    let (seen, count) = frames.progress();
    let found = if count == 0 { "nothing".into() } else { format!("{seen} of {count} frames") };
    Err(Error::expected(Code::BadFile, &path.display().to_string(), "a note string, or all of its frames", found))
}

/// `cash request`.
pub fn request(args: RequestArgs, out: Output) -> Result<()> {
    let (mut cash, secrets, _) = args.purse.open()?;
    let key = cash.request(&secrets)?;
    out.note("for one payment: florin cash send AMOUNT --to KEY");
    let value = json!({"key": key});
    match args.qr {
        true => out.data(format!("{}\n{key}", qr(&key)?), &value),
        false => out.data(key, &value),
    }
    Ok(())
}
