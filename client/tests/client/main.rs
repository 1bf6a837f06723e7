//! The library and huntctl against a double of the cluster that injects
//! faults.

mod bench;
mod huntctl;
mod peer;
mod producing;
mod reading;
