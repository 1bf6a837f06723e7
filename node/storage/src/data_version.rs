//! The data version: which format the directory is in, the salt of its checksums, and whether it was ever in use.

use crate::error::OpenError;
use crate::files::{Files, read_small, replace};

pub(crate) const NAME: &str = "data-version";
/// Raised when a release can no longer read what an older one wrote, or the other way round.
pub(crate) const DATA_VERSION: u32 = 1;
const FILE_BYTES_MAX: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DataVersion {
    /// Random, per directory: a file of another directory does not verify here.
    pub salt: [u8; 16],
    /// The first segment was synced once: its absence is a loss from then on.
    pub in_use: bool,
}

impl DataVersion {
    pub(crate) fn load(files: &dyn Files) -> Result<Option<Self>, OpenError> {
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
        let mut salt = None;
        let mut in_use = None;
        for line in text.lines() {
            match line.split_once(": ") {
                Some(("version", value)) => found = value.parse::<u32>().ok(),
                Some(("salt", value)) => {
                    salt = u128::from_str_radix(value, 16).ok().map(u128::to_be_bytes)
                }
                Some(("in-use", value)) => in_use = value.parse().ok(),
                _ => {}
            }
        }
        match found {
            Some(DATA_VERSION) => {}
            Some(found) => {
                return Err(OpenError::Version {
                    path: path(),
                    found,
                    supported: DATA_VERSION,
                });
            }
            None => return Err(damaged()),
        }
        let (Some(salt), Some(in_use)) = (salt, in_use) else {
            return Err(damaged());
        };
        let loaded = Self { salt, in_use };
        if loaded.encode() != text {
            return Err(damaged());
        }
        Ok(Some(loaded))
    }

    pub(crate) fn save(&self, files: &dyn Files) -> Result<(), OpenError> {
        replace(files, "", NAME, self.encode().as_bytes())
            .map_err(|error| OpenError::io("write", files.path(NAME).display(), error))
    }

    fn encode(&self) -> String {
        let body = format!(
            "huntlog data directory\nversion: {DATA_VERSION}\nsalt: {:032x}\nin-use: {}\n",
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
        assert_eq!(DataVersion::load(&files).unwrap(), None);
        let version = DataVersion {
            salt: [0xab; 16],
            in_use: true,
        };
        version.save(&files).unwrap();
        assert_eq!(DataVersion::load(&files).unwrap(), Some(version));

        let path = dir.path().join(NAME);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("version: 1", "version: 7")).unwrap();
        let error = DataVersion::load(&files).unwrap_err();
        assert!(
            matches!(
                error,
                OpenError::Version {
                    found: 7,
                    supported: 1,
                    ..
                }
            ),
            "{error}"
        );
        for (from, to) in [
            ("salt: ab", "salt: ac"),
            ("in-use: true", "in-use: false"),
            ("version", "vision"),
        ] {
            std::fs::write(&path, text.replace(from, to)).unwrap();
            let error = DataVersion::load(&files).unwrap_err();
            assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
        }
    }
}
