//! The library and huntctl against a double of the cluster that injects
//! faults.

mod huntctl;
mod peer;
mod producing;
mod reading;
