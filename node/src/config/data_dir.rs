//! The data directory, made and tried before anything is opened in it, so that
//! a wrong path or a missing permission is told as what it is.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use super::NodeConfig;

/// Why the data directory cannot be used. Nothing has been written.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// There is something else of that name.
    #[error(
        "node.data_dir {path} is not a directory; set node.data_dir (--node-data-dir) to another path",
        path = .path.display()
    )]
    NotADirectory {
        /// As configured.
        path: PathBuf,
    },
    /// It is not there, and cannot be made.
    #[error(
        "node.data_dir {path} does not exist and cannot be created ({source}); create it for this user, or set node.data_dir (--node-data-dir) to another path",
        path = .path.display()
    )]
    NotCreated {
        /// As configured.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// No file can be written in it.
    #[error(
        "node.data_dir {path} is not writable ({source}); give this user write permission and free space, or set node.data_dir (--node-data-dir) to another path",
        path = .path.display()
    )]
    NotWritable {
        /// As configured.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

const PROBE: &str = ".writable";

impl NodeConfig {
    /// Makes the data directory when it is not there (for this user and its
    /// group only), and tries that a file can be written in it.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn prepare_data_dir(&self) -> Result<(), DataDirError> {
        let path = &self.data_dir;
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err(DataDirError::NotADirectory { path: path.clone() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => create(path)?,
            Err(source) => {
                let path = path.clone();
                return Err(DataDirError::NotCreated { path, source });
            }
        }
        probe(path).map_err(|source| DataDirError::NotWritable {
            path: path.clone(),
            source,
        })
    }
}

fn create(path: &Path) -> Result<(), DataDirError> {
    let created = DirBuilder::new().recursive(true).mode(0o750).create(path);
    created.map_err(|source| DataDirError::NotCreated {
        path: path.to_owned(),
        source,
    })
}

fn probe(path: &Path) -> io::Result<()> {
    let probe = path.join(PROBE);
    // A probe that a killed process left behind is no obstacle.
    OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .open(&probe)?;
    fs::remove_file(&probe)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepare(data_dir: PathBuf) -> Result<(), DataDirError> {
        NodeConfig { id: 1, data_dir }.prepare_data_dir()
    }

    #[test]
    fn it_is_made_with_its_parents_and_left_empty() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let path = root.path().join("data/node1");
        prepare(path.clone()).expect("made");
        prepare(path.clone()).expect("there already");
        assert_eq!(fs::read_dir(&path).expect("a directory").count(), 0);
    }

    #[test]
    fn a_file_in_its_place_is_named() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let error = prepare(file.path().to_owned()).expect_err("a file");
        assert!(matches!(error, DataDirError::NotADirectory { .. }));
        let text = error.to_string();
        assert!(text.contains(&file.path().display().to_string()), "{text}");
        assert!(text.contains("--node-data-dir"), "{text}");

        let error = prepare(file.path().join("node1")).expect_err("below a file");
        assert!(matches!(error, DataDirError::NotCreated { .. }), "{error}");
    }

    #[test]
    fn a_directory_nobody_can_write_is_named() {
        // Not even root creates files in /proc.
        let error = prepare("/proc/self".into()).expect_err("not writable");
        assert!(matches!(error, DataDirError::NotWritable { .. }), "{error}");
        let error = prepare("/proc/huntlog/node1".into()).expect_err("not creatable");
        assert!(matches!(error, DataDirError::NotCreated { .. }), "{error}");
    }
}
