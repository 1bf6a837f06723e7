//! The data version: which releases can read the directory, the salt of its checksums, and whether it was ever in use.
//!
//! A directory begins at version 1. Whoever uses the storage raises the version, before anything is kept here that
//! releases of the version before cannot read; it never falls.

use crate::error::OpenError;
use crate::files::{Files, read_small, replace};
use std::io;

pub(crate) const NAME: &str = "data-version";
/// That of a fresh directory.
pub const FIRST_DATA_VERSION: u32 = 1;
const FILE_BYTES_MAX: usize = 4096;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DataVersion {
    pub version: u32,
    /// The first release that reads the version; empty for the first version.
    pub release: String,
    /// Random, per directory: a file of another directory does not verify here.
    pub salt: [u8; 16],
    /// The first segment was synced once: its absence is a loss from then on.
    pub in_use: bool,
}

impl DataVersion {
    /// Of a directory that was never in use.
    pub(crate) fn fresh(salt: [u8; 16]) -> Self {
        Self {
            version: FIRST_DATA_VERSION,
            release: String::new(),
            salt,
            in_use: false,
        }
    }

    /// Reads a version that is at most `newest`.
    pub(crate) fn load(files: &dyn Files, newest: u32) -> Result<Option<Self>, OpenError> {
        let path = || files.path(NAME).display().to_string();
        let bytes = read_small(files, NAME, FILE_BYTES_MAX)
            .map_err(|error| OpenError::io("read", path(), error))?;
        let Some(bytes) = bytes else { return Ok(None) };
        let damaged = || OpenError::Damaged {
            file: path(),
            position: 0,
            what: "the data version cannot be read, and with it every checksum's salt".to_owned(),
        };
        let text = String::from_utf8(bytes).map_err(|_| damaged())?;
        let mut found = None;
        let mut release = String::new();
        let mut salt = None;
        let mut in_use = None;
        for line in text.lines() {
            match line.split_once(": ") {
                Some(("version", value)) => found = value.parse::<u32>().ok(),
                Some(("release", value)) => release = value.to_owned(),
                Some(("salt", value)) => {
                    salt = u128::from_str_radix(value, 16).ok().map(u128::to_be_bytes)
                }
                Some(("in-use", value)) => in_use = value.parse().ok(),
                _ => {}
            }
        }
        let version = match found {
            Some(known) if (FIRST_DATA_VERSION..=newest).contains(&known) => known,
            Some(found) => {
                return Err(OpenError::Version {
                    path: path(),
                    found,
                    supported: newest,
                    release,
                });
            }
            None => return Err(damaged()),
        };
        let (Some(salt), Some(in_use)) = (salt, in_use) else {
            return Err(damaged());
        };
        let loaded = Self {
            version,
            release,
            salt,
            in_use,
        };
        if loaded.encode() != text {
            return Err(damaged());
        }
        Ok(Some(loaded))
    }

    pub(crate) fn save(&self, files: &dyn Files) -> io::Result<()> {
        replace(files, "", NAME, self.encode().as_bytes())
    }

    fn encode(&self) -> String {
        let release = match self.release.as_str() {
            "" => String::new(),
            release => format!("release: {release}\n"),
        };
        let body = format!(
            "huntlog data directory\nversion: {}\n{release}salt: {:032x}\nin-use: {}\n",
            self.version,
            u128::from_be_bytes(self.salt),
            self.in_use
        );
        let crc = crc32c::crc32c(body.as_bytes());
        format!("{body}checksum: {crc:08x}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::OsFiles;

    #[test]
    fn what_was_saved_is_loaded_and_changes_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let files = OsFiles::new(dir.path());
        assert_eq!(DataVersion::load(&files, 2).unwrap(), None);
        let first = DataVersion {
            in_use: true,
            ..DataVersion::fresh([0xab; 16])
        };
        let second = DataVersion {
            version: 2,
            release: "0.2.0".to_owned(),
            ..first.clone()
        };
        let path = dir.path().join(NAME);
        for version in [first, second] {
            version.save(&files).unwrap();
            assert_eq!(DataVersion::load(&files, 2).unwrap(), Some(version.clone()));

            let text = std::fs::read_to_string(&path).unwrap();
            let number = format!("version: {}", version.version);
            std::fs::write(&path, text.replace(&number, "version: 7")).unwrap();
            let error = DataVersion::load(&files, 2).unwrap_err();
            assert!(
                matches!(
                    &error,
                    OpenError::Version { found: 7, supported: 2, release, .. }
                        if *release == version.release
                ),
                "{error}"
            );
            for (from, to) in [
                ("salt: ab", "salt: ac"),
                ("in-use: true", "in-use: false"),
                ("version", "vision"),
            ] {
                std::fs::write(&path, text.replace(from, to)).unwrap();
                let error = DataVersion::load(&files, 2).unwrap_err();
                assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
            }
        }
    }

    /// Releases that know no other version have to read the first one.
    #[test]
    fn the_first_version_is_what_it_was() {
        let version = DataVersion {
            in_use: true,
            ..DataVersion::fresh([0xab; 16])
        };
        assert_eq!(
            version.encode(),
            "huntlog data directory\nversion: 1\nsalt: abababababababababababababababab\nin-use: true\nchecksum: 53350aed\n"
        );
    }
}
