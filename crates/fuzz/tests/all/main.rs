//! Seeds of the fuzz targets and the corpus of bad inputs, as plain tests.

mod bad;
mod bad_input;
mod corpus;
mod made;
