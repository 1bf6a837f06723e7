//! Configuration files that nobody meant: sound, or every fault with its place.
//! `PROPTEST_CASES` makes the run longer.

use std::fs;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

const SAMPLE: &str = include_str!("../../../cluster-configs/three-node/node1.toml");

fn check(bytes: &[u8]) -> Result<(), TestCaseError> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("node.toml");
    fs::write(&file, bytes).expect("writes");
    let loaded = Config::load(&Sources {
        file,
        environment: Vec::new(),
        flags: Vec::new(),
    });
    if let Err(Faults(faults)) = loaded {
        prop_assert!(!faults.is_empty());
        for fault in faults {
            prop_assert!(!fault.to_string().is_empty());
        }
    }
    Ok(())
}

/// What TOML is made of, put together at random.
fn fragments() -> impl Strategy<Value = String> {
    let fragment = prop_oneof![
        Just("[node]\n".to_owned()),
        Just("[cluster]\n".to_owned()),
        Just("[[cluster.initial_members]]\n".to_owned()),
        Just("initial_members = [".to_owned()),
        Just("raft = {".to_owned()),
        Just("id".to_owned()),
        Just(" = ".to_owned()),
        Just("\n".to_owned()),
        Just("\"".to_owned()),
        Just("'''".to_owned()),
        Just("9223372036854775808".to_owned()),
        Just("-1e999".to_owned()),
        Just("2018-03-16T19:18:19Z".to_owned()),
        "[a-z_.]{1,12} = [0-9\"a-z{}\\[\\]]{0,12}\n",
        "\\PC{0,8}",
    ];
    prop::collection::vec(fragment, 0..24).prop_map(|fragments| fragments.concat())
}

#[test]
fn the_sample_is_sound_before_it_is_damaged() {
    check(SAMPLE.as_bytes()).expect("no panic");
    assert!(SAMPLE.contains("[node]"));
}

proptest! {
    #[test]
    fn any_bytes_are_a_configuration_or_faults(
        bytes in prop::collection::vec(any::<u8>(), 0..256),
    ) {
        check(&bytes)?;
    }

    #[test]
    fn any_toml_is_a_configuration_or_faults(text in fragments()) {
        check(text.as_bytes())?;
    }

    #[test]
    fn a_damaged_sample_is_a_configuration_or_faults(
        place in any::<Index>(),
        length in 0..200_usize,
        instead in fragments(),
    ) {
        let start = SAMPLE.floor_char_boundary(place.index(SAMPLE.len()));
        let end = SAMPLE.floor_char_boundary((start + length).min(SAMPLE.len()));
        check(format!("{}{instead}{}", &SAMPLE[..start], &SAMPLE[end..]).as_bytes())?;
    }
}
