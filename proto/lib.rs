//! The `.proto` files are the source of truth for every byte on the wire. `tests/generated.rs` holds the generated code to them.
