//! The decoders of segments over bytes that nobody wrote: an error, never a
//! panic, and nothing allocated that is not there. `PROPTEST_CASES` makes the
//! run longer.

use bytes::Bytes;
use proptest::prelude::*;

use super::batch::{BatchHeader, HEADER_BYTES};
use super::footer::Footer;
use super::frame::{FRAME_HEADER_BYTES, FrameKind, decode_frame};
use super::{Position, Seed};

/// Bytes of a payload lie within the bytes decoded: they were not copied.
fn shares(bytes: &Bytes, payload: &Bytes) -> bool {
    payload.is_empty() || bytes.as_ptr_range().contains(&payload.as_ptr())
}

fn check_frame(bytes: &Bytes, seed: Seed) -> Result<(), TestCaseError> {
    if let Ok((frame, length)) = decode_frame(bytes, seed) {
        prop_assert!((FRAME_HEADER_BYTES..=bytes.len()).contains(&length));
        if let FrameKind::Entry { payload, .. } = &frame.kind {
            prop_assert!(shares(bytes, payload));
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes_are_a_frame_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        check_frame(&bytes.into(), Seed::new(&[7; 16], 3))?;
    }

    /// With a checksum that holds, so that what stands behind it is reached.
    #[test]
    fn any_frame_whose_checksum_holds_is_a_frame_or_an_error(
        mut bytes in prop::collection::vec(any::<u8>(), FRAME_HEADER_BYTES..256),
        length in prop_oneof![Just(None), any::<u32>().prop_map(Some)],
        kind in 0_u8..12,
    ) {
        let seed = Seed::new(&[7; 16], 3);
        let there = u32::try_from(bytes.len() - FRAME_HEADER_BYTES).expect("small");
        bytes[4..8].copy_from_slice(&length.unwrap_or(there).to_le_bytes());
        bytes[8] = kind;
        let checksum = seed.checksum(&[&bytes[4..]]);
        bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        check_frame(&bytes.into(), seed)?;
    }

    #[test]
    fn any_bytes_are_a_batch_header_or_an_error(
        mut bytes in prop::collection::vec(any::<u8>(), 0..2 * HEADER_BYTES),
        magic in any::<bool>(),
    ) {
        let (seed, position) = (Seed::new(&[7; 16], 3), Position { segment: 3, offset: 64 });
        if magic && bytes.len() >= HEADER_BYTES {
            bytes[..8].copy_from_slice(&super::batch::MAGIC);
            bytes[16..24].copy_from_slice(&position.segment.to_le_bytes());
            bytes[24..32].copy_from_slice(&position.offset.to_le_bytes());
            let checksum = seed.checksum(&[&bytes[..60]]);
            bytes[60..64].copy_from_slice(&checksum.to_le_bytes());
            prop_assert!(BatchHeader::decode(&bytes, seed, position).is_ok());
        } else {
            prop_assert!(BatchHeader::decode(&bytes, seed, position).is_err());
        }
    }

    #[test]
    fn any_bytes_are_a_footer_or_none(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = Footer::decode(&bytes);
    }
}
