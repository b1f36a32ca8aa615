//! Fuzz targets as plain functions: every decoder and every stateful handler, each with a property that must hold for
//! any bytes, and not only "no panic". `docs/fuzzing.md` says how they are run, and how seeds are added.
//!
//! cargo-fuzz runs them from `fuzz/fuzz_targets`, one file each; `cargo test -p florin-fuzz` runs all seeds that are
//! checked in, each with a few hundred mutations. What has state is made of public keys and panics on what must not be.

pub mod bad;
pub mod cursor;
pub mod mutate;
mod targets;
pub mod worlds;

use std::cell::Cell;

/// A fuzz target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Name of its file in `fuzz/fuzz_targets` and of its folder in `fuzz/corpus`.
    pub name: &'static str,
    /// Takes any bytes; panics if what it is to show does not hold.
    pub run: fn(&[u8]),
    /// Mutations of each seed in the plain tests: fewer for those that take long.
    pub mutations: u32,
}

/// Decoders take microseconds.
const FAST: u32 = 400;
/// With signatures or points of curves.
const CURVES: u32 = 60;
/// With a state machine that takes many steps.
const STATE: u32 = 4;

macro_rules! targets {
    ($($module:ident { $($name:ident: $mutations:ident,)* })*) => {
        /// Every target.
        pub const TARGETS: &[Target] = &[$($(
            Target { name: stringify!($name), run: targets::$module::$name, mutations: $mutations },
        )*)*];
    };
}

targets! {
    orders {
        envelope: FAST,
        order_body: FAST,
        content: FAST,
        content_of_type: FAST,
        rotate: FAST,
        bearer: FAST,
        batch: FAST,
        pbtx_verdict: CURVES,
    }
    proofs {
        bitmap: FAST,
        merkle: FAST,
        certificate: CURVES,
        receipt: CURVES,
        evidence: CURVES,
        session: CURVES,
    }
    keys {
        permission: FAST,
        key_bytes: FAST,
        eosio_text: FAST,
        registration: CURVES,
        points: CURVES,
        dkg_wire: CURVES,
    }
    text {
        address_text: FAST,
        amount_text: FAST,
        committee_toml: FAST,
        cash_text: FAST,
        channel_text: FAST,
        qr_frames: FAST,
        seed_words: STATE,
        envelope_lines: FAST,
        genesis_lines: FAST,
        authority_toml: FAST,
    }
    records {
        disk_records: FAST,
        journal: FAST,
        receipt_file: FAST,
        wallet_file: FAST,
        manager_journal: CURVES,
        hub_journal: CURVES,
        ordering_frames: FAST,
        ordering_message: FAST,
    }
    vouchers {
        voucher: FAST,
        permits: FAST,
        invoice: FAST,
        channel_rules: CURVES,
    }
    shard {
        shard_orders: STATE,
        shard_queries: STATE,
        shard_genesis: STATE,
    }
    log {
        log_units: STATE,
        log_contracts: STATE,
        log_channels: STATE,
        log_registry: STATE,
        log_primary: STATE,
    }
    log_decides {
        log_recovery: STATE,
        log_notes: STATE,
        log_sessions: STATE,
    }
    dkg {
        dkg_run: STATE,
    }
    channels {
        manager: STATE,
    }
    rows {
        hub: STATE,
        virtuals: STATE,
    }
    roots {
        root_proposal: FAST,
        round: STATE,
    }
}

/// The target of this name.
///
/// # Panics
/// If there is none.
pub fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| panic!("no fuzz target is called {name}"))
}

/// Runs a target; what curve arithmetic came to is remembered in this thread, since the same signatures come again and again.
pub fn run(name: &str, bytes: &[u8]) {
    thread_local! {
        static ON: Cell<bool> = const { Cell::new(false) };
    }
    if !ON.replace(true) {
        // For as long as the thread lives.
        std::mem::forget(florin_core::memo::remember());
    }
    (target(name).run)(bytes);
}
