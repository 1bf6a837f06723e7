//! What the nodes of a run have stored: of no use once it is judged, and large.

use std::fs;
use std::path::PathBuf;

/// The directories of a run's nodes, of which the data is removed when this is
/// dropped, however the run ends. Made before the nodes, so that they are gone.
#[derive(Debug)]
pub(super) struct NodeData(PathBuf);

impl NodeData {
    /// Of the nodes with files under `out`, which is the run's own.
    pub(super) fn under(out: PathBuf) -> Self {
        Self(out)
    }
}

impl Drop for NodeData {
    fn drop(&mut self) {
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with("node") {
                for name in ["data", "empty"] {
                    // A node need not have it.
                    let _ = fs::remove_dir_all(entry.path().join(name));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn the_data_goes_and_what_tells_of_the_run_stays() {
        let out = TempDir::new().expect("a directory");
        let node = out.path().join("node4");
        for name in ["data", "empty"] {
            fs::create_dir_all(node.join(name)).expect("made");
            fs::write(node.join(name).join("segment"), "large").expect("written");
        }
        for kept in [node.join("node.log"), out.path().join("history.jsonl")] {
            fs::write(kept, "of use").expect("written");
        }
        drop(NodeData::under(out.path().to_owned()));
        assert!(!node.join("data").exists() && !node.join("empty").exists());
        assert!(node.join("node.log").exists() && out.path().join("history.jsonl").exists());
    }
}
