//! Tests of hubs.
