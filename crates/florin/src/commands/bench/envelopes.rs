//! `florin bench envelopes`: what checking one signed envelope costs by kind of key, beside the plain library call.

use bytes::Bytes;
use ed25519_zebra::{VerificationKey, VerificationKeyBytes, batch};
use florin_core::envelope::{Authority, Body, Order, encode_body, encode_envelope, next_hash};
use florin_core::keys::{Curve, SecretKey, Signature, order_message};
use florin_core::permission::Permission;
use florin_core::signatures::Batch;
use florin_core::{Code, Error, Result};
use florin_node::meter::thread_cpu_ns;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde_json::json;

use super::cpu::median;
use super::progress::Progress;
use crate::output::Output;

/// Bytes of an order's content: about those of a payment.
const CONTENT_BYTES: usize = 48;
const NETWORK_ID: u64 = 1;

/// Options.
#[derive(clap::Args)]
pub struct Args {
    /// Envelopes of each kind, each of another account with keys of its own; also the size of the batch
    #[arg(long, default_value_t = 1_000)]
    envelopes: usize,
    /// Measured runs; the medians count
    #[arg(long, default_value_t = 9)]
    runs: usize,
}

/// A kind of envelope.
struct Kind {
    name: &'static str,
    curve: Curve,
    /// Keys of the permission, and how many of them sign.
    keys: (usize, usize),
    /// Whether signatures of all envelopes are verified together.
    together: bool,
    /// The plain call, for people.
    plain: &'static str,
}

const K1: &str = "libsecp256k1, verify";
const R1: &str = "ring, verify";
const ED25519: &str = "ed25519-zebra, verify";

const KINDS: [Kind; 7] = [
    Kind { name: "K1", curve: Curve::K1, keys: (1, 1), together: false, plain: K1 },
    Kind { name: "R1", curve: Curve::R1, keys: (1, 1), together: false, plain: R1 },
    Kind { name: "ed25519", curve: Curve::Ed25519, keys: (1, 1), together: false, plain: ED25519 },
    Kind { name: "ed25519, batch", curve: Curve::Ed25519, keys: (1, 1), together: true, plain: "ed25519-zebra, batch" },
    Kind { name: "K1, 2 of 3", curve: Curve::K1, keys: (3, 2), together: false, plain: K1 },
    Kind { name: "R1, 2 of 3", curve: Curve::R1, keys: (3, 2), together: false, plain: R1 },
    Kind { name: "ed25519, 2 of 3", curve: Curve::Ed25519, keys: (3, 2), together: false, plain: ED25519 },
];

/// Runs it.
pub fn run(args: Args, out: Output) -> Result<()> {
    if args.envelopes == 0 || args.envelopes > 4_096 || args.runs == 0 {
        return Err(Error::new(Code::Usage, "expected --envelopes from 1 to 4096 and --runs from 1"));
    }
    let mut text = format!("{:<18}{:>12}{:>12}{:>8}  plain call\n", "", "envelope us", "plain us", "ratio");
    let mut rows = Vec::new();
    let mut progress = Progress::new(KINDS.len(), out);
    for (i, kind) in KINDS.iter().enumerate() {
        progress.step(kind.name);
        let row = measure(kind, i as u8, &args)?;
        let signatures = kind.keys.1;
        let times = if signatures > 1 { format!("{signatures} times ") } else { String::new() };
        let ratio = row.cpu_us / row.plain_us;
        let (name, plain) = (kind.name, kind.plain);
        text += &format!("{name:<18}{:>12.2}{:>12.2}{ratio:>8.2}  {times}{plain}\n", row.cpu_us, row.plain_us);
        rows.push(json!({
            "keys": name, "cpu_us": round2(row.cpu_us), "ceiling_us": round2(row.plain_us), "ratio": round2(ratio),
            "plain": format!("{times}{plain}"),
        }));
    }
    drop(progress);
    let value = json!({
        "name": "envelopes", "unit": "us of CPU per envelope", "envelopes": args.envelopes, "runs": args.runs, "rows": rows,
    });
    out.data(text.trim_end(), &value);
    Ok(())
}

/// One envelope and what an authority knows of its account.
struct Sample {
    raw: Bytes,
    permission: Permission,
    seqnum: u32,
    prev_hash: u64,
}

struct Row {
    cpu_us: f64,
    plain_us: f64,
}

/// Medians of interleaved runs, so that both meet the same machine.
fn measure(kind: &Kind, number: u8, args: &Args) -> Result<Row> {
    let mut samples = Vec::with_capacity(args.envelopes);
    let mut checks = Vec::new();
    for i in 0..args.envelopes {
        let (sample, signed) = make(kind, number, i as u32)?;
        samples.push(sample);
        for (sig, secret, body_hash, body) in signed {
            checks.push(Check::new(&secret, &sig, &body_hash, body)?);
        }
    }
    let per = |ns: u64| ns as f64 / 1e3 / samples.len() as f64;
    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    // One run more, to warm up, is not counted.
    for run in 0..=args.runs {
        let start = thread_cpu_ns();
        let all_good = if kind.together { judge(&samples)? } else { judge_each(&samples)? };
        let half = thread_cpu_ns();
        let all_true = if kind.together { batch_is_true(&checks) } else { checks.iter().all(Check::is_true) };
        let end = thread_cpu_ns();
        if !all_good || !all_true {
            return Err(Error::new(
                Code::KeyMismatch,
                format!("{}: a signature of the benchmark is not true", kind.name),
            ));
        }
        if run > 0 {
            ours.push(per(half - start));
            plain.push(per(end - half));
        }
    }
    Ok(Row { cpu_us: median(&mut ours), plain_us: median(&mut plain) })
}

/// A signature with its key, and the body and hash that it is of.
type Signed = (Signature, SecretKey, [u8; 32], Bytes);

fn make(kind: &Kind, number: u8, i: u32) -> Result<(Sample, Vec<Signed>)> {
    let (of, needed) = kind.keys;
    let secret = |n: usize| {
        // Never 0 and below every curve's order.
        let mut seed = [0x11; 32];
        (seed[1], seed[2]) = (number, n as u8);
        seed[3..7].copy_from_slice(&i.to_be_bytes());
        SecretKey::from_seed(kind.curve, seed)
    };
    let secrets = (0..of).map(secret).collect::<Result<Vec<_>>>()?;
    let keys = secrets.iter().map(|secret| (secret.public(), 1)).collect();
    let permission = Permission { threshold: needed as u32, keys, actor: 0 };
    let (seqnum, prev_hash) = (1 + i, 0x1234_5678_9abc_def0 ^ u64::from(i));
    let body = encode_body(&Body {
        network_id: NETWORK_ID,
        actor: 1_000 + u64::from(i),
        seqnum,
        prev_hash,
        transaction_type: 1,
        content: vec![i as u8; CONTENT_BYTES].into(),
        ..Body::default()
    });
    let hash = florin_core::envelope::order_id(&body);
    let signed: Vec<Signed> = secrets
        .into_iter()
        .take(needed)
        .map(|secret| (secret.sign_body_hash(&hash), secret, hash, body.clone()))
        .collect();
    let sigs: Vec<Signature> = signed.iter().map(|(sig, ..)| *sig).collect();
    let raw = encode_envelope(&body, &[Authority::of(&sigs)]);
    Ok((Sample { raw, permission, seqnum, prev_hash }, signed))
}

/// Each envelope alone, as a single payment comes in.
fn judge_each(samples: &[Sample]) -> Result<bool> {
    let mut all_good = true;
    for sample in samples {
        all_good &= judge(std::slice::from_ref(sample))?;
    }
    Ok(all_good)
}

/// Decodes, checks everything cheap, verifies the signatures of all together.
fn judge(samples: &[Sample]) -> Result<bool> {
    let mut batch = Batch::new();
    let mut next = 0;
    for (tag, sample) in samples.iter().enumerate() {
        let order = Order::decode(sample.raw.clone())?;
        order.screen_counts()?;
        if (order.network_id, order.seqnum, order.prev_hash) != (NETWORK_ID, sample.seqnum, sample.prev_hash) {
            return Ok(false);
        }
        next ^= next_hash(&order.id);
        batch.push(tag, &order, 0, &sample.permission);
    }
    std::hint::black_box(next);
    Ok(batch.verify().results.iter().all(|(_, result)| result.is_ok()))
}

/// One signature as its library takes it, with the key parsed ahead.
enum Check {
    K1(secp256k1::ecdsa::Signature, secp256k1::Message, secp256k1::PublicKey),
    /// ring hashes the body itself, and takes keys as x and y.
    R1(UnparsedPublicKey<Vec<u8>>, [u8; 64], Bytes),
    Ed25519(VerificationKey, ed25519_zebra::Signature, [u8; 42]),
}

impl Check {
    fn new(secret: &SecretKey, sig: &Signature, body_hash: &[u8; 32], body: Bytes) -> Result<Check> {
        let bad = |e: &dyn std::fmt::Display| Error::new(Code::BadKey, format!("a key of the benchmark: {e}"));
        let key = secret.public();
        let (key_bytes, sig_bytes) = (&key.as_bytes()[1..], &sig.as_bytes()[2..]);
        Ok(match key.curve() {
            Curve::K1 => Check::K1(
                secp256k1::ecdsa::Signature::from_compact(sig_bytes).map_err(|e| bad(&e))?,
                secp256k1::Message::from_digest(*body_hash),
                secp256k1::PublicKey::from_slice(key_bytes).map_err(|e| bad(&e))?,
            ),
            Curve::R1 => {
                let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(key_bytes).map_err(|e| bad(&e))?;
                let point = key.to_sec1_point(false).as_bytes().to_vec();
                let mut compact = [0; 64];
                compact.copy_from_slice(sig_bytes);
                Check::R1(UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point), compact, body)
            }
            Curve::Ed25519 => Check::Ed25519(
                VerificationKey::try_from(&key_bytes[1..]).map_err(|e| bad(&e))?,
                ed25519_zebra::Signature::try_from(sig_bytes).map_err(|e| bad(&e))?,
                order_message(body_hash),
            ),
            Curve::Bls => return Err(bad(&"BLS keys are measured by `florin bench transfers --distilled`")),
        })
    }

    fn is_true(&self) -> bool {
        match self {
            Check::K1(sig, message, key) => secp256k1::ecdsa::verify(sig, *message, key).is_ok(),
            Check::R1(key, sig, body) => key.verify(body, sig).is_ok(),
            Check::Ed25519(key, sig, message) => key.verify(sig, message).is_ok(),
        }
    }
}

fn batch_is_true(checks: &[Check]) -> bool {
    let mut verifier = batch::Verifier::new();
    for check in checks {
        let Check::Ed25519(key, sig, message) = check else { return false };
        verifier.queue((VerificationKeyBytes::from(*key), *sig, message));
    }
    verifier.verify(ChaCha20Rng::from_seed([7; 32])).is_ok()
}

fn round2(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
