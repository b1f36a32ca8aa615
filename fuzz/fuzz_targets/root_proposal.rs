#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| florin_fuzz::run("root_proposal", bytes));
