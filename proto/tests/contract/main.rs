//! The rules that the .proto files keep: those of style, named as buf names
//! them, and that a release understands the one before.

mod baseline;
mod elements;
mod lint;
