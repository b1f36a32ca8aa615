//! The generated code is checked in, so that building Florin needs no protobuf compiler. This test
//! holds it against `proto/`; `FLORIN_REGENERATE=1 cargo test -p florin-proto` writes it.

use std::fs;
use std::path::{Path, PathBuf};

use prost_build::Config;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn check(wanted: &Path, made: &[u8]) {
    if std::env::var_os("FLORIN_REGENERATE").is_some() {
        fs::write(wanted, made).unwrap();
    }
    let found = fs::read(wanted).unwrap_or_default();
    assert!(
        found == made,
        "{} is not what proto/ says: run FLORIN_REGENERATE=1 cargo test -p florin-proto",
        wanted.display()
    );
}

#[test]
fn generated_code_matches_the_proto_files() {
    let proto = root().join("proto");
    let mut compiler = protox::Compiler::new([&proto]).unwrap();
    compiler.include_source_info(true).include_imports(true);
    compiler.open_files(["pbtx.proto", "pbtxrpc.proto", "florin.proto"]).unwrap();
    let set = compiler.file_descriptor_set();
    let out = tempdir();

    let messages = out.join("messages");
    fs::create_dir_all(&messages).unwrap();
    Config::new().bytes(["."]).out_dir(&messages).compile_fds(set.clone()).unwrap();
    for name in ["pbtx.rs", "pbtxrpc.rs", "florin.v1.rs"] {
        check(&root().join("crates/core/src/generated").join(name), &fs::read(messages.join(name)).unwrap());
    }

    let services = out.join("services");
    fs::create_dir_all(&services).unwrap();
    let mut config = Config::new();
    config.bytes(["."]);
    tonic_prost_build::configure()
        .extern_path(".florin.v1", "florin_core::wire")
        .extern_path(".pbtx", "florin_core::pbtx")
        .out_dir(&services)
        .compile_fds_with_config(set.clone(), config)
        .unwrap();
    check(&root().join("crates/rpc/src/generated/florin.v1.rs"), &fs::read(services.join("florin.v1.rs")).unwrap());
    let mut bare = protox::Compiler::new([&proto]).unwrap();
    bare.include_imports(true).open_files(["pbtx.proto", "florin.proto"]).unwrap();
    check(&root().join("crates/rpc/src/generated/descriptors.bin"), &bare.encode_file_descriptor_set());
    fs::remove_dir_all(out).unwrap();
}

fn tempdir() -> PathBuf {
    let dir = std::env::temp_dir().join(format!("florin-generated-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    dir
}
