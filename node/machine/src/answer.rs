//! Answers, kept only as salted hashes.

use sha2::{Digest as _, Sha256};
use unicode_normalization::UnicodeNormalization as _;

/// What makes two answers the same: Unicode NFKC, upper case, and nothing but
/// letters and digits.
///
/// Upper case can undo the normal form, hence a second NFKC. The result depends
/// on the release's Unicode tables, so it is computed before an answer is
/// logged, never while the log is applied.
#[must_use]
pub fn normalise(answer: &str) -> String {
    if answer.is_ascii() {
        return answer
            .bytes()
            .filter(u8::is_ascii_alphanumeric)
            .map(|byte| char::from(byte.to_ascii_uppercase()))
            .collect();
    }
    answer
        .nfkc()
        .flat_map(char::to_uppercase)
        .nfkc()
        .filter(|character| character.is_alphanumeric())
        .collect()
}

/// SHA-256 over the salt and the [`normalise`]d answer.
#[must_use]
pub fn answer_hash(salt: &[u8], answer: &str) -> [u8; 32] {
    hash_normalised(salt, &normalise(answer))
}

/// [`answer_hash`] of an answer that is normalised already.
pub(crate) fn hash_normalised(salt: &[u8], normalised: &str) -> [u8; 32] {
    Sha256::new()
        .chain_update(salt)
        .chain_update(normalised)
        .finalize()
        .into()
}

/// The salt of a clue whose author gave none.
///
/// It follows from the names alone, so that a retried request has the same
/// bytes; it keeps one table of hashes from serving every clue.
#[must_use]
pub fn derived_salt(hunt: &str, clue: &str) -> [u8; 16] {
    let hash: [u8; 32] = Sha256::new()
        .chain_update(b"huntlog answer salt v1\0")
        .chain_update(hunt.as_bytes())
        .chain_update(b"\0")
        .chain_update(clue.as_bytes())
        .finalize()
        .into();
    let mut salt = [0; 16];
    salt.copy_from_slice(&hash[..16]);
    salt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_does_not_matter() {
        for same in [
            "open sesame",
            "OPEN-SESAME!",
            " Open\tSesame ",
            "ｏｐｅｎ ｓｅｓａｍｅ",
        ] {
            assert_eq!(normalise(same), "OPENSESAME", "{same:?}");
        }
        assert_eq!(normalise("Straße 5"), "STRASSE5");
        assert_eq!(normalise("Cafe\u{301}"), normalise("CAFÉ"));
        assert_eq!(normalise("ﬁve"), "FIVE");
        assert_eq!(normalise("…!?"), "");
        assert_eq!(normalise("東京 タワー"), "東京タワー");
    }

    /// But for the order of marks that come together when what stood between them
    /// is left out: hashes in logs are of that order.
    #[test]
    fn normalising_twice_gives_what_is_canonically_the_same() {
        let check = |answer: &str| {
            let once = normalise(answer);
            let twice: String = normalise(&once).nfd().collect();
            assert_eq!(twice, once.nfd().collect::<String>(), "{answer:?}");
        };
        check("\u{10eab}\u{fe72}");
        proptest::proptest!(|(answer in "\\PC*")| check(&answer));
    }

    #[test]
    fn hashes_are_those_of_the_contract() {
        // printf 'saltOPENSESAME' | sha256sum
        let expected = "bd247d2e81bbe9e4f89805586d69a25877110357884c90b24ee89fe83305fa67";
        let hash = answer_hash(b"salt", "open sesame");
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);
        assert_eq!(hash, answer_hash(b"salt", "OpenSesame"));
        assert_ne!(hash, answer_hash(b"pepper", "open sesame"));
    }

    #[test]
    fn derived_salts_differ_by_hunt_and_clue() {
        assert_eq!(derived_salt("h", "c"), derived_salt("h", "c"));
        assert_ne!(derived_salt("h", "c"), derived_salt("h", "d"));
        assert_ne!(derived_salt("hc", ""), derived_salt("h", "c"));
    }
}
