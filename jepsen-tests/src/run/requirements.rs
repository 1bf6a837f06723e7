//! What a run needs of the machine, checked before anything is begun.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::disk::LoopDisk;
use crate::injection::Injection;
use crate::network::Network;

/// Something that not every machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Requirement {
    /// Network namespaces, a bridge, and a filter in it.
    Namespaces,
    /// File systems whose power can be cut.
    LoopDisks,
    /// System calls that fail.
    Strace,
    /// Clocks that jump.
    Faketime,
}

impl Requirement {
    /// Why this machine does not have it, if it does not.
    pub(crate) fn missing(self) -> Option<String> {
        match self {
            Self::Namespaces => namespaces_missing(),
            Self::LoopDisks => not_root("loop disks").or_else(|| {
                tools_missing(&[
                    ("mkfs.ext4", "e2fsprogs"),
                    ("mount", "mount"),
                    ("umount", "mount"),
                    ("losetup", "mount"),
                ])
                .or_else(|| LoopDisk::unavailable().map(|why| format!("no loop disks: {why}")))
            }),
            Self::Strace => {
                not_root("strace").or_else(|| Injection::unavailable().map(str::to_owned))
            }
            Self::Faketime => faketime().err(),
        }
    }
}

fn not_root(what: &str) -> Option<String> {
    (!rustix::process::geteuid().is_root())
        .then(|| format!("{what} need root; this is not run as root"))
}

fn namespaces_missing() -> Option<String> {
    // Root is not always allowed to: one is made, and removed again.
    static PROBED: OnceLock<Option<String>> = OnceLock::new();
    let probe = || {
        // One that was left behind under this process's id would be in the way.
        Network::remove_leftovers();
        let made = Network::create(1).and_then(|network| network.set_rules(&[]));
        made.err()
            .map(|why| format!("no network namespaces: {why}"))
    };
    not_root("network namespaces").or_else(|| {
        tools_missing(&[
            ("ip", "iproute2"),
            ("nft", "nftables"),
            ("nsenter", "util-linux"),
        ])
        .or_else(|| PROBED.get_or_init(probe).clone())
    })
}

/// The first of the tools, each given with its package, that is not there.
fn tools_missing(tools: &[(&str, &str)]) -> Option<String> {
    let mut tools = tools.iter();
    tools.find_map(|(tool, package)| tool_missing(tool, package))
}

fn tool_missing(tool: &str, package: &str) -> Option<String> {
    let mut version = Command::new(tool);
    // Whatever it answers, it is there.
    version.arg("-V").stdin(Stdio::null());
    version.stdout(Stdio::null()).stderr(Stdio::null());
    let error = version.status().err()?;
    Some(format!(
        "{tool} can not be run ({error}); install the package {package}"
    ))
}

/// The library that shifts a process's clock.
pub(crate) fn faketime() -> Result<PathBuf, String> {
    std::fs::read_dir("/usr/lib")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("faketime/libfaketime.so.1"))
        .find(|library| library.is_file())
        .ok_or_else(|| "libfaketime is not there; install the package libfaketime".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_that_is_missing_is_named_with_its_package() {
        let missing = tools_missing(&[("sh", "dash"), ("no-such-tool", "its-package")]);
        let said = missing.expect("one is missing");
        assert!(said.contains("no-such-tool can not be run"), "{said}");
        assert!(said.contains("install the package its-package"), "{said}");
        assert_eq!(tools_missing(&[("sh", "dash")]), None);
    }
}
