//! `florin bench cash-crypto`: each operation of e-cash's cryptography, beside the calls of the library that it can't do without.

use std::hint::black_box;

use blst::min_sig::{SecretKey, Signature};
use blst::{BLST_ERROR, MultiPoint, blst_fp12, blst_p1_affine, blst_p2_affine};
use florin_core::cash::batch::verify_notes;
use florin_core::cash::blind::{
    BlindSignature, BlindedNonce, KeyShare, NONCE_TAG, Nonce, NoteSignature, SignatureShare, TierKey,
};
use florin_core::cash::combine::{Request, SharedKey, combine_all};
use florin_core::cash::derive::{CashSeed, NoteSecrets};
use florin_core::cash::testing::deal;
use florin_core::{Code, Error, Result};
use florin_node::meter::thread_cpu_ns;
use serde_json::json;

use super::cpu::median;
use super::progress::Progress;
use crate::output::Output;

/// The committee whose shares are combined.
const AUTHORITIES: u32 = 4;
const THRESHOLD: u32 = 3;
/// Tiers among which the notes of a mixed batch are spread.
const TIERS: usize = 16;
const BATCHES: [usize; 4] = [16, 64, 256, 1_024];
/// Notes that are done one by one in a run.
const NOTES: usize = 64;

/// Options.
#[derive(clap::Args)]
pub struct Args {
    /// Measured runs; the medians count
    #[arg(long, default_value_t = 9)]
    runs: usize,
}

/// Runs it.
pub fn run(args: Args, out: Output) -> Result<()> {
    if args.runs == 0 {
        return Err(Error::new(Code::Usage, "expected --runs from 1"));
    }
    let mut progress = Progress::new(1 + 2 * BATCHES.len(), out);
    progress.step("one note at a time");
    let world = World::new()?;
    let mut rows = world.single(args.runs)?;
    for tiers in [1, TIERS] {
        for size in BATCHES {
            progress.step(format_args!("batches of {size} notes, {tiers} tiers"));
            rows.push(world.batch(size, tiers, args.runs)?);
        }
    }
    drop(progress);
    let mut text = format!("{:<34}{:>10}{:>10}{:>8}  plain calls\n", "", "us", "plain us", "ratio");
    let mut values = Vec::new();
    for row in &rows {
        let ratio = row.us / row.plain_us;
        text += &format!("{:<34}{:>10.1}{:>10.1}{ratio:>8.2}  {}\n", row.name, row.us, row.plain_us, row.plain);
        values.push(json!({
            "operation": row.name, "cpu_us": round2(row.us), "ceiling_us": round2(row.plain_us), "ratio": round2(ratio),
            "plain": row.plain,
        }));
    }
    let value = json!({ "name": "cash-crypto", "unit": "us of CPU for one note", "runs": args.runs, "rows": values });
    out.data(text.trim_end(), &value);
    Ok(())
}

struct Row {
    name: String,
    us: f64,
    plain_us: f64,
    plain: String,
}

/// Keys of 16 tiers and 1,024 notes of them, the same as our types and as the library's.
struct World {
    tiers: Vec<(SharedKey, Vec<KeyShare>)>,
    secrets: Vec<NoteSecrets>,
    /// By note, of tier 0: nonce, blinded nonce, shares, note.
    nonces: Vec<Nonce>,
    blinded: Vec<BlindedNonce>,
    shares: Vec<Vec<(u32, SignatureShare)>>,
    notes: Vec<NoteSignature>,
    /// By note: notes of its tier if they are spread over 16.
    mixed: Vec<(TierKey, Nonce, NoteSignature)>,
    /// The library's.
    hashes: Vec<blst_p1_affine>,
    signatures: Vec<blst_p1_affine>,
    key: blst_p2_affine,
    generator: blst_p2_affine,
    secret: SecretKey,
    other: blst::min_pk::SecretKey,
}

impl World {
    fn new() -> Result<World> {
        let tiers: Vec<_> = (0..TIERS).map(|tier| deal(THRESHOLD, AUTHORITIES, &format!("bench {tier}"))).collect();
        let seed = CashSeed::new(&[7; 32], 1);
        let secrets: Vec<NoteSecrets> = (0..BATCHES[BATCHES.len() - 1] as u64).map(|i| seed.note(i)).collect();
        let nonces: Vec<Nonce> = secrets.iter().map(NoteSecrets::nonce).collect();
        let blinded: Vec<BlindedNonce> = secrets.iter().map(NoteSecrets::blinded).collect();
        let answers = |(_, shares): &(SharedKey, Vec<KeyShare>), blinded: &BlindedNonce| {
            shares.iter().take(THRESHOLD as usize).map(|s| (s.index(), s.sign(blinded))).collect::<Vec<_>>()
        };
        let make = |tier_of: &dyn Fn(usize) -> usize| -> Result<Vec<NoteSignature>> {
            let requests: Vec<Request<'_>> = blinded
                .iter()
                .enumerate()
                .map(|(i, b)| {
                    let tier = &tiers[tier_of(i)];
                    Request { keys: &tier.0, blinded: *b, shares: answers(tier, b) }
                })
                .collect();
            let combined = combine_all(&requests)?.into_iter().map(|combined| combined.signature);
            combined
                .zip(&secrets)
                .map(|(signature, note)| Ok(note.blinding().unblind(&signature.ok_or_else(wrong)?)))
                .collect()
        };
        let notes = make(&|_| 0)?;
        let spread = make(&|i| i % TIERS)?;
        let mixed = spread.iter().enumerate().map(|(i, s)| (*tiers[i % TIERS].0.key(), nonces[i], *s)).collect();
        let shares = blinded.iter().map(|b| answers(&tiers[0], b)).collect();
        let hashes = nonces.iter().map(|nonce| p1(&nonce.hash().to_bytes())).collect::<Result<_>>()?;
        let signatures = notes.iter().map(|note| p1(&note.to_bytes())).collect::<Result<_>>()?;
        let key = p2(&tiers[0].0.key().to_bytes())?;
        let secret = SecretKey::from_bytes(&tiers[0].1[0].secret()[..]).map_err(refused)?;
        let other = blst::min_pk::SecretKey::from_bytes(&secret.to_bytes()).map_err(refused)?;
        let generator = p2(&florin_core::cash::curve::G2::generator().to_bytes())?;
        let w = World {
            tiers,
            secrets,
            nonces,
            blinded,
            shares,
            notes,
            mixed,
            hashes,
            signatures,
            key,
            generator,
            secret,
            other,
        };
        Ok(w)
    }

    /// Operations on one note.
    fn single(&self, runs: usize) -> Result<Vec<Row>> {
        let (keys, shares) = &self.tiers[0];
        let scalar = self.scalar();
        let each = |f: &mut dyn FnMut(usize) -> bool| (0..NOTES).all(f);
        let plain_mul = time(runs, NOTES, || {
            each(&mut |_| {
                black_box(self.product());
                true
            })
        })?;
        // The library's safe interface hashes only in order to sign: that is hashing and one product.
        let plain_sign = time(runs, NOTES, || {
            each(&mut |i| {
                black_box(self.secret.sign(&self.nonces[i].0, NONCE_TAG, &[]));
                true
            })
        })?;
        let plain_hash = plain_sign - plain_mul;
        let plain_pairings = time(runs, NOTES, || each(&mut |i| self.pairings(&self.hashes[i], &self.signatures[i])))?;
        let three: Vec<Vec<blst_p1_affine>> = self.shares[..NOTES]
            .iter()
            .map(|shares| shares.iter().map(|(_, share)| p1(&share.to_bytes())).collect::<Result<_>>())
            .collect::<Result<_>>()?;
        let scalars: Vec<u8> = scalar.repeat(THRESHOLD as usize);
        let plain_msm = time(runs, NOTES, || {
            each(&mut |i| {
                black_box(three[i].mult(&scalars, 255));
                true
            })
        })?;
        let encoded: Vec<[u8; 48]> = self.notes.iter().map(NoteSignature::to_bytes).collect();
        let plain_decode = time(runs, NOTES, || each(&mut |i| Signature::sig_validate(&encoded[i], true).is_ok()))?;
        let signed: Vec<BlindSignature> =
            self.blinded[..NOTES].iter().map(|b| BlindSignature::new(*b.point())).collect::<Result<_>>()?;
        let plain_verify = plain_hash + plain_pairings;

        let mut rows = Vec::new();
        let mut row = |name: &str, plain_us: f64, plain: &str, f: &mut dyn FnMut(usize) -> bool| -> Result<()> {
            let us = time(runs, NOTES, || each(&mut *f))?;
            rows.push(Row { name: name.into(), us, plain_us, plain: plain.into() });
            Ok(())
        };
        row("hash", plain_hash, "sign, less a product", &mut |i| {
            black_box(self.nonces[i].hash());
            true
        })?;
        row("blind", plain_sign, "sign", &mut |i| {
            black_box(self.nonces[i].blind(self.secrets[i].blinding()));
            true
        })?;
        row("decode and check a point", plain_decode, "sig_validate", &mut |i| {
            NoteSignature::parse(&encoded[i]).is_ok()
        })?;
        row("share", plain_mul, "a product", &mut |i| {
            black_box(shares[0].sign(&self.blinded[i]));
            true
        })?;
        row("verify a share", plain_pairings, "two Miller loops, final power", &mut |i| {
            keys.shares()[0].verifies(&self.blinded[i], &self.shares[i][0].1)
        })?;
        let combine = |range: std::ops::Range<usize>| {
            let request = |i: usize| Request { keys, blinded: self.blinded[i], shares: self.shares[i].clone() };
            let combined = combine_all(&range.map(request).collect::<Vec<_>>());
            combined.is_ok_and(|all| all.iter().all(|one| one.signature.is_some()))
        };
        let (name, plain) = ("combine 3 of 4 and check", "sum of 3 products, pairings");
        row(name, plain_msm + plain_pairings, plain, &mut |i| combine(i..i + 1))?;
        row("unblind", plain_mul, "a product", &mut |i| {
            black_box(self.secrets[i].blinding().unblind(&signed[i]));
            true
        })?;
        row("verify a note", plain_verify, "hash, pairings", &mut |i| {
            keys.key().verifies(&self.nonces[i], &self.notes[i])
        })?;
        let us = time(runs, NOTES, || combine(0..NOTES))?;
        let plain_us = plain_msm + plain_pairings / NOTES as f64;
        let plain = "sum of 3 products, pairings once".into();
        rows.push(Row { name: format!("combine 3 of 4, {NOTES} together"), us, plain_us, plain });
        Ok(rows)
    }

    /// Notes verified together, each.
    fn batch(&self, size: usize, tiers: usize, runs: usize) -> Result<Row> {
        let key = self.tiers[0].0.key();
        let of_one = |i: usize| (*key, self.nonces[i], self.notes[i]);
        let notes: Vec<_> = (0..size).map(|i| if tiers == 1 { of_one(i) } else { self.mixed[i] }).collect();
        let (mut ours, mut plain) = (Vec::new(), Vec::new());
        let coefficients = vec![0x5a; 16 * size];
        for run in 0..=runs {
            let start = thread_cpu_ns();
            let all = verify_notes(&notes).into_iter().all(|holds| holds);
            let a = thread_cpu_ns();
            for nonce in &self.nonces[..size] {
                black_box(self.secret.sign(&nonce.0, NONCE_TAG, &[]));
            }
            let b = thread_cpu_ns();
            for _ in 0..size {
                black_box(self.product());
            }
            let c = thread_cpu_ns();
            black_box(self.signatures[..size].mult(&coefficients, 128));
            for of_tier in self.hashes[..size].chunks(size.div_ceil(tiers)) {
                black_box(of_tier.mult(&coefficients, 128));
            }
            let loops = tiers.min(size) + 1;
            black_box(blst_fp12::miller_loop_n(&vec![self.key; loops], &vec![self.hashes[0]; loops]).final_exp());
            let d = thread_cpu_ns();
            if !all {
                return Err(wrong());
            }
            if run > 0 {
                ours.push((a - start) as f64);
                // What signing takes less the products is hashing.
                plain.push((b - a) as f64 - (c - b) as f64 + (d - c) as f64);
            }
        }
        let per = |times: &mut Vec<f64>| median(times) / 1e3 / size as f64;
        let name = format!("verify {size} notes of {tiers} tier{}", if tiers == 1 { "" } else { "s" });
        let plain_text = "hash; sums of products, pairings once".into();
        Ok(Row { name, us: per(&mut ours), plain_us: per(&mut plain), plain: plain_text })
    }

    /// A product in G1 in constant time, as the library's safe interface has it: the other scheme's public key.
    fn product(&self) -> blst::min_pk::PublicKey {
        self.other.sk_to_pk()
    }

    /// Little-endian, as sums of products take it.
    fn scalar(&self) -> [u8; 32] {
        let mut scalar = self.secret.to_bytes();
        scalar.reverse();
        scalar
    }

    fn pairings(&self, hash: &blst_p1_affine, signature: &blst_p1_affine) -> bool {
        let left = blst_fp12::miller_loop(&self.key, hash);
        let right = blst_fp12::miller_loop(&self.generator, signature);
        blst_fp12::finalverify(&left, &right)
    }
}

/// CPU microseconds for one of `count`; the median of `runs`, after one that is not counted.
fn time(runs: usize, count: usize, mut all: impl FnMut() -> bool) -> Result<f64> {
    let mut times = Vec::with_capacity(runs);
    for run in 0..=runs {
        let start = thread_cpu_ns();
        let good = all();
        let ns = thread_cpu_ns() - start;
        if !good {
            return Err(wrong());
        }
        if run > 0 {
            times.push(ns as f64 / 1e3 / count as f64);
        }
    }
    Ok(median(&mut times))
}

pub(super) fn p1(bytes: &[u8]) -> Result<blst_p1_affine> {
    let signature = Signature::from_bytes(bytes).map_err(refused)?;
    Ok(signature.into())
}

pub(super) fn p2(bytes: &[u8]) -> Result<blst_p2_affine> {
    let key = blst::min_sig::PublicKey::from_bytes(bytes).map_err(refused)?;
    Ok(key.into())
}

pub(super) fn refused(e: BLST_ERROR) -> Error {
    Error::new(Code::BadKey, format!("a point of the benchmark: {e:?}"))
}

pub(super) fn wrong() -> Error {
    Error::new(Code::BadKey, "a note of the benchmark is not true")
}

fn round2(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
