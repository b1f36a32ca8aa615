//! The library's own calls, through its safe interface, for what no authority can do without.

use std::hint::black_box;

use blst::min_sig::{SecretKey, Signature};
use blst::{MultiPoint, blst_fp12, blst_p1_affine, blst_p2_affine};
use florin_core::Result;
use florin_core::cash::blind::{NONCE_TAG, Nonce};
use florin_core::cash::testing::Note;
use florin_node::meter::thread_cpu_ns;

use super::super::cash_crypto::{p1, p2, refused, wrong};

/// The same notes as the authority's, as the library has them.
pub struct Plain {
    nonces: Vec<Nonce>,
    encoded: Vec<[u8; 48]>,
    hashes: Vec<blst_p1_affine>,
    signatures: Vec<blst_p1_affine>,
    tiers: usize,
    key: blst_p2_affine,
    secret: SecretKey,
    other: blst::min_pk::SecretKey,
}

/// Microseconds of CPU for one note.
#[derive(Clone, Copy, Default, Debug)]
pub struct Times {
    pub hash: f64,
    /// One point.
    pub decode: f64,
    pub batch: f64,
    pub share: f64,
}

impl Plain {
    /// Of notes that are spread over so many tiers.
    pub fn new(notes: &[Note], tiers: usize, key: &[u8; 96], secret: &[u8; 32]) -> Result<Plain> {
        let nonces: Vec<Nonce> = notes.iter().map(|note| note.secrets.nonce()).collect();
        let encoded: Vec<[u8; 48]> = notes.iter().map(|note| note.signature.to_bytes()).collect();
        Ok(Plain {
            hashes: nonces.iter().map(|nonce| p1(&nonce.hash().to_bytes())).collect::<Result<_>>()?,
            signatures: encoded.iter().map(|bytes| p1(bytes)).collect::<Result<_>>()?,
            nonces,
            encoded,
            tiers,
            key: p2(key)?,
            secret: SecretKey::from_bytes(secret).map_err(refused)?,
            other: blst::min_pk::SecretKey::from_bytes(secret).map_err(refused)?,
        })
    }

    /// Each operation once for each note.
    pub fn measure(&self) -> Result<Times> {
        let size = self.nonces.len();
        let coefficients: Vec<u8> = (0..16 * size).map(|i| (i * 151 + 7) as u8).collect();
        let start = thread_cpu_ns();
        for nonce in &self.nonces {
            black_box(self.secret.sign(&nonce.0, NONCE_TAG, &[]));
        }
        let signed = thread_cpu_ns();
        // A product in G1 in constant time, as the safe interface has it: the other scheme's public key.
        for _ in 0..size {
            black_box(self.other.sk_to_pk());
        }
        let multiplied = thread_cpu_ns();
        let all = self.encoded.iter().all(|bytes| Signature::sig_validate(bytes, true).is_ok());
        let decoded = thread_cpu_ns();
        black_box(self.signatures.mult(&coefficients, 128));
        for of_tier in self.hashes.chunks(size.div_ceil(self.tiers)) {
            black_box(of_tier.mult(&coefficients, 128));
        }
        let loops = self.tiers.min(size) + 1;
        black_box(blst_fp12::miller_loop_n(&vec![self.key; loops], &vec![self.hashes[0]; loops]).final_exp());
        let verified = thread_cpu_ns();
        if !all {
            return Err(wrong());
        }
        let us = |from: u64, to: u64| (to - from) as f64 / 1e3 / size as f64;
        let share = us(signed, multiplied);
        Ok(Times {
            // It hashes only in order to sign: that is hashing and one product.
            hash: us(start, signed) - share,
            decode: us(multiplied, decoded),
            batch: us(decoded, verified),
            share,
        })
    }
}
