//! The command line of `huntlog-node`, and what its exit status means.

mod inspect;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::{ExitCode, Termination},
};

pub use inspect::InspectArgs;

use clap::{Arg, ArgMatches, Args, Command as Clap, FromArgMatches, Parser, Subcommand};

use crate::config::{
    Config, Fault, Faults, Loaded, Origin, Severity, Sources, disagreements,
    schema::{self, Key},
};

const EXIT_STATUS_HELP: &str = "\
Exit status:
  0  stopped as asked, or nothing wrong with the files checked
  1  failed while running: start it again
  2  the command line or the configuration is wrong: put it right first
  3  could not start here: a port is taken, the data directory is not writable
     or in use by another process
  4  refused to run with this data directory: damaged, of another node or
     cluster, of a member that was removed, or behind what its peers remember:
     an operator has to decide
  5  inspect: there are faults in the data directory

A supervisor should restart the node after 1 only.";

/// The server of huntlog, a Raft-replicated event log for treasure hunts.
#[derive(Debug, Parser)]
#[command(name = "huntlog-node", version, after_help = EXIT_STATUS_HELP)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a node until it is told to stop (SIGTERM or SIGINT).
    #[command(after_help = EXIT_STATUS_HELP)]
    Run(RunArgs),
    /// Validate configuration files as they stand, without environment
    /// variables, and compare those of one cluster with each other.
    #[command(after_help = EXIT_STATUS_HELP)]
    Check(CheckArgs),
    /// Show what a data directory holds and whether it is sound. Changes
    /// nothing; the node must not run.
    #[command(after_help = EXIT_STATUS_HELP)]
    Inspect(InspectArgs),
}

/// The arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The node's configuration file.
    #[arg(short, long, value_name = "FILE", env = "HUNTLOG_CONFIG")]
    pub config: PathBuf,
    /// Keys set by flags.
    #[command(flatten)]
    pub settings: SettingArgs,
}

/// The arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The files to check.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
}

/// One flag for each key of the configuration.
#[derive(Clone, Debug, Default)]
pub struct SettingArgs(Vec<(&'static Key, String)>);

/// The node's exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitStatus {
    /// Stopped as asked.
    Success = 0,
    /// Failed while running; a restart may help.
    Failure = 1,
    /// The command line or the configuration is wrong.
    Configuration = 2,
    /// This machine does not let the node start.
    Environment = 3,
    /// The data directory must not be used as it is.
    Data = 4,
    /// A data directory that was inspected has faults.
    Faults = 5,
}

impl Termination for ExitStatus {
    fn report(self) -> ExitCode {
        ExitCode::from(self as u8)
    }
}

impl RunArgs {
    /// The configuration by file, environment and flags.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(&self) -> Result<Loaded, Faults> {
        Config::load(&Sources {
            file: self.config.clone(),
            environment: std::env::vars_os().collect(),
            flags: self.settings.0.clone(),
        })
    }
}

impl CheckArgs {
    /// Validates every file, writing each fault on a line of `report`, and a
    /// line for each file without faults.
    ///
    /// # Errors
    /// When `report` cannot be written.
    pub fn check(&self, report: &mut impl Write) -> io::Result<ExitStatus> {
        let mut status = ExitStatus::Success;
        let mut tell = |report: &mut dyn Write, faults: &[Fault]| -> io::Result<()> {
            if faults.iter().any(|f| f.severity() == Severity::Error) {
                status = ExitStatus::Configuration;
            }
            faults
                .iter()
                .try_for_each(|fault| writeln!(report, "{fault}"))
        };
        let mut sound = Vec::new();
        for file in &self.files {
            let loaded = Config::load(&Sources {
                file: file.clone(),
                environment: Vec::new(),
                flags: Vec::new(),
            });
            match loaded {
                Ok(loaded) => {
                    tell(report, &loaded.warnings)?;
                    sound.push((file.clone(), loaded.config));
                }
                Err(Faults(faults)) => tell(report, &faults)?,
            }
        }
        let faults = disagreements(&sound);
        tell(report, &faults)?;
        let wrong = |file: &PathBuf| {
            faults.iter().any(|fault| {
                let here = matches!(&fault.origin, Origin::File { path, .. } if **path == **file);
                here && fault.severity() == Severity::Error
            })
        };
        sound.retain(|(file, _)| !wrong(file));
        for (file, config) in &sound {
            let (node, cluster) = (config.node.id, &config.cluster.name);
            let file = file.display();
            writeln!(report, "{file}: ok: node {node} of cluster {cluster}")?;
        }
        Ok(status)
    }
}

impl Args for SettingArgs {
    fn augment_args(mut command: Clap) -> Clap {
        for key in schema::KEYS {
            let default = key.default.map(|value| format!(" [default: {value}]"));
            command = command.arg(
                Arg::new(key.path)
                    .long(key.flag)
                    .value_name(key.kind.placeholder())
                    .allow_negative_numbers(true)
                    .help(format!("{}{}", key.help, default.unwrap_or_default()))
                    .help_heading(
                        "Settings (flag over HUNTLOG_SECTION__KEY over file over default)",
                    ),
            );
        }
        command
    }

    fn augment_args_for_update(command: Clap) -> Clap {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let set = schema::KEYS.into_iter().filter_map(|key| {
            let value = matches.get_one::<String>(key.path)?;
            Some((key, value.clone()))
        });
        Ok(Self(set.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::CommandFactory as _;

    use super::*;

    fn check(files: &[&Path]) -> (ExitStatus, String) {
        let arguments = ["huntlog-node".as_ref(), "check".as_ref()];
        let arguments = arguments
            .into_iter()
            .chain(files.iter().map(|f| f.as_os_str()));
        let cli = Cli::try_parse_from(arguments).expect("a command line");
        let Command::Check(arguments) = cli.command else {
            panic!("check is check");
        };
        let mut report = Vec::new();
        let status = arguments.check(&mut report).expect("writes to memory");
        (status, String::from_utf8(report).expect("UTF-8"))
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
        let help = Cli::command().render_long_help().to_string();
        assert!(help.contains("Exit status:"), "{help}");
    }

    #[test]
    fn a_flag_sets_its_key() {
        let cli = Cli::try_parse_from([
            "huntlog-node",
            "run",
            "--config",
            "node.toml",
            "--node-data-dir",
            "/data",
            "--log-level=debug",
        ]);
        let Command::Run(arguments) = cli.expect("a command line").command else {
            panic!("run is run");
        };
        let set: Vec<_> = arguments
            .settings
            .0
            .iter()
            .map(|(k, v)| (k.path, v.as_str()))
            .collect();
        assert_eq!(set, [("node.data_dir", "/data"), ("log.level", "debug")]);
    }

    #[test]
    fn usage_errors_have_the_status_of_configuration() {
        for arguments in [
            &["huntlog-node"][..],
            &["huntlog-node", "check"],
            &["huntlog-node", "run", "--raft-hartbeat-ms", "5"],
        ] {
            let error = Cli::try_parse_from(arguments).expect_err("no command line");
            assert_eq!(error.exit_code(), ExitStatus::Configuration as i32);
        }
    }

    #[test]
    fn check_reports_every_file_and_fails_if_one_is_wrong() {
        let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cluster-configs/three-node");
        let sound = samples.join("node1.toml");
        let (status, report) = check(&[&sound]);
        assert_eq!(status, ExitStatus::Success);
        assert_eq!(
            report,
            format!("{}: ok: node 1 of cluster three-node\n", sound.display())
        );

        // Two nodes with one id are not both right, nor is one file twice.
        let (status, report) = check(&[&sound, &sound]);
        assert_eq!(status, ExitStatus::Configuration);
        assert!(report.contains("error"), "{report}");
        assert!(!report.contains("ok:"), "{report}");

        let directory = tempfile::tempdir().expect("a temporary directory");
        let faulty = directory.path().join("node.toml");
        let text = std::fs::read_to_string(&sound).expect("readable");
        let text = text.replace("heartbeat_ms = 30", "hartbeat_ms = 30");
        let text = text.replace("every_seconds = 600", "every_seconds = \"ten\"");
        std::fs::write(&faulty, text).expect("writes");
        let (status, report) = check(&[&faulty, &sound]);
        assert_eq!(status, ExitStatus::Configuration);
        let lines: Vec<_> = report.lines().collect();
        assert_eq!(lines.len(), 3, "{report}");
        assert!(
            lines[0].contains("did you mean raft.heartbeat_ms?"),
            "{report}"
        );
        assert!(
            lines[1].contains("snapshot.every_seconds must be a whole number"),
            "{report}"
        );
        assert!(lines[2].contains("ok: node 1"), "{report}");
    }
}
