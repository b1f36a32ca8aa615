//! Threshold blind signatures over BLS12-381.
