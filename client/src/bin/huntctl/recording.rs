//! A recorded hunt: a CSV file of every guess and how it was judged.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use prost_types::Timestamp;
use sha2::{Digest, Sha256};

use crate::time::parse_time;

const COLUMNS: [&str; 5] = ["time", "team", "puzzle", "guess", "verdict"];

/// What makes a file no recording.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// It cannot be read.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// A line that is not CSV, or not UTF-8.
    #[error("line {line}: {source}")]
    Csv {
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        source: csv::Error,
    },
    /// The header lacks columns.
    #[error("line 1: missing column {missing}; needed are time, team, puzzle, guess, verdict")]
    Columns {
        /// Those it lacks.
        missing: String,
    },
    /// A time that is not one.
    #[error("line {line}: time {text:?} is not RFC 3339, such as 2018-03-16T19:18:19Z: {source}")]
    Time {
        /// The line, from 1.
        line: u64,
        /// What stands there.
        text: String,
        /// What is wrong with it.
        source: jiff::Error,
    },
    /// A verdict that is neither right nor wrong.
    #[error("line {line}: verdict {text:?} is neither Y nor N")]
    Verdict {
        /// The line, from 1.
        line: u64,
        /// What stands there.
        text: String,
    },
    /// Nobody guessed, or at nothing.
    #[error("line {line}: {column} is empty")]
    Empty {
        /// The line, from 1.
        line: u64,
        /// Which column.
        column: &'static str,
    },
    /// A right answer must have something to compare.
    #[error(
        "line {line}: the right answer {guess:?} has no letter or digit, and answers are compared by those"
    )]
    Unanswerable {
        /// The line, from 1.
        line: u64,
        /// The guess judged right.
        guess: String,
    },
    /// No guess at all.
    #[error("the file has no guess")]
    NoGuess,
}

/// One guess of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Guess {
    /// Its line, from 1.
    pub line: u64,
    /// When it was made.
    pub time: Timestamp,
    /// Index into the teams.
    pub team: usize,
    /// Index into the puzzles.
    pub puzzle: usize,
    /// As it was typed.
    pub text: String,
    /// It was judged right.
    pub right: bool,
}

/// A puzzle of the file.
#[derive(Debug, Default)]
pub struct Puzzle {
    /// As the file names it.
    pub name: String,
    /// Every guess that was judged right.
    pub answers: BTreeSet<String>,
}

/// The file, checked as a whole.
#[derive(Debug)]
pub struct Recording {
    /// In order of first appearance.
    pub teams: Vec<String>,
    /// In order of first appearance.
    pub puzzles: Vec<Puzzle>,
    /// In the file's order.
    pub guesses: Vec<Guess>,
    /// SHA-256 of the file's bytes.
    pub digest: [u8; 32],
}

impl Recording {
    /// Reads a whole file.
    pub fn read(path: &Path) -> Result<Self, RecordingError> {
        Self::parse(&std::fs::read(path)?)
    }

    fn parse(bytes: &[u8]) -> Result<Self, RecordingError> {
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let mut reader = csv::ReaderBuilder::new().flexible(false).from_reader(text);
        let headers = reader
            .headers()
            .map_err(|source| RecordingError::Csv { line: 1, source })?;
        let columns = find_columns(headers)?;
        let mut recording = Self {
            teams: Vec::new(),
            puzzles: Vec::new(),
            guesses: Vec::new(),
            digest: Sha256::digest(bytes).into(),
        };
        let mut teams = HashMap::new();
        let mut puzzles = HashMap::new();
        let mut record = csv::StringRecord::new();
        loop {
            let at = reader.position().line();
            let more = reader.read_record(&mut record).map_err(|source| {
                let line = source.position().map_or(at, csv::Position::line);
                RecordingError::Csv { line, source }
            })?;
            if !more {
                break;
            }
            let line = record.position().map_or(at, csv::Position::line);
            let [time, team, puzzle, guess, verdict] = columns.map(|column| &record[column]);
            for (column, text) in [("team", team), ("puzzle", puzzle)] {
                if text.trim().is_empty() {
                    return Err(RecordingError::Empty { line, column });
                }
            }
            let right = match verdict.trim() {
                "Y" => true,
                "N" => false,
                _ => {
                    let text = verdict.to_owned();
                    return Err(RecordingError::Verdict { line, text });
                }
            };
            if right && !guess.chars().any(char::is_alphanumeric) {
                let guess = guess.to_owned();
                return Err(RecordingError::Unanswerable { line, guess });
            }
            let time = parse_time(time.trim()).map_err(|source| RecordingError::Time {
                line,
                text: time.to_owned(),
                source,
            })?;
            let team = *teams.entry(team.to_owned()).or_insert_with(|| {
                recording.teams.push(team.to_owned());
                recording.teams.len() - 1
            });
            let puzzle = *puzzles.entry(puzzle.to_owned()).or_insert_with(|| {
                recording.puzzles.push(Puzzle {
                    name: puzzle.to_owned(),
                    ..Puzzle::default()
                });
                recording.puzzles.len() - 1
            });
            if right {
                recording.puzzles[puzzle].answers.insert(guess.to_owned());
            }
            recording.guesses.push(Guess {
                line,
                time,
                team,
                puzzle,
                text: guess.to_owned(),
                right,
            });
        }
        if recording.guesses.is_empty() {
            return Err(RecordingError::NoGuess);
        }
        Ok(recording)
    }
}

fn find_columns(headers: &csv::StringRecord) -> Result<[usize; 5], RecordingError> {
    let found = COLUMNS.map(|column| headers.iter().position(|name| name.trim() == column));
    let missing: Vec<&str> = COLUMNS
        .iter()
        .zip(&found)
        .filter(|(_, found)| found.is_none())
        .map(|(column, _)| *column)
        .collect();
    if missing.is_empty() {
        Ok(found.map(|column| column.expect("none is missing")))
    } else {
        Err(RecordingError::Columns {
            missing: missing.join(", "),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Recording, String> {
        Recording::parse(text.as_bytes()).map_err(|e| e.to_string())
    }

    #[test]
    fn columns_are_found_by_name_and_fields_may_hold_anything() {
        let recording = parse(
            "\u{feff}verdict,note,guess,puzzle,team,time\n\
             N,x,\"SAY \"\"AH\"\", then\nGO\",Visitor’s Guide,Ünïcode 🦆,2018-03-16T19:18:19Z\n\
             Y,,42,Visitor’s Guide,Ünïcode 🦆,2018-03-16T19:18:20.5+01:00\n",
        )
        .expect("valid");
        assert_eq!(recording.teams, ["Ünïcode 🦆"]);
        assert_eq!(recording.puzzles[0].name, "Visitor’s Guide");
        assert_eq!(recording.guesses[0].text, "SAY \"AH\", then\nGO");
        assert_eq!(recording.guesses[0].line, 2);
        assert_eq!(recording.guesses[1].line, 4);
        assert_eq!(recording.guesses[1].time.nanos, 500_000_000);
        assert_eq!(
            recording.puzzles[0].answers,
            BTreeSet::from(["42".to_owned()])
        );
    }

    #[test]
    fn each_fault_is_named_with_its_line() {
        let good = "time,team,puzzle,guess,verdict\n2018-03-16T19:18:19Z,t,p,g,Y\n";
        for (text, fault) in [
            (
                "time,team,guess,verdict\n",
                "line 1: missing column puzzle;",
            ),
            (
                "",
                "line 1: missing column time, team, puzzle, guess, verdict",
            ),
            ("time,team,puzzle,guess,verdict\n", "no guess"),
            (
                &format!("{good}yesterday,t,p,g,N\n"),
                "line 3: time \"yesterday\"",
            ),
            (
                &format!("{good}2018-03-16T25:00:00Z,t,p,g,N\n"),
                "line 3: time",
            ),
            (
                &format!("{good}2018-03-16T19:18:19Z,t,p,g,maybe\n"),
                "line 3: verdict \"maybe\"",
            ),
            (
                &format!("{good}2018-03-16T19:18:19Z,,p,g,N\n"),
                "line 3: team is empty",
            ),
            (&format!("{good}2018-03-16T19:18:19Z,t,p,g\n"), "line 3:"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(fault), "{text:?}: {error}");
        }
        let invalid = Recording::parse(b"time,team,puzzle,guess,verdict\nx,\xff,p,g,N\n");
        let error = invalid.expect_err("not UTF-8").to_string();
        assert!(error.contains("line 2"), "{error}");
    }

    /// A field of a recording, as bytes.
    fn field() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            Just(b"2018-03-16T19:18:19Z".to_vec()),
            Just(b"+292278994-08-17T07:12:55Z".to_vec()),
            Just(b"Y".to_vec()),
            Just(b"N".to_vec()),
            Just(Vec::new()),
            "\\PC{0,8}".prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 0..8),
            Just(b"\"a \"\"quoted\"\" one,\nof two lines\"".to_vec()),
        ]
    }

    fn lines(fields: &[Vec<Vec<u8>>]) -> Vec<u8> {
        let lines: Vec<_> = fields.iter().map(|fields| fields.join(&b',')).collect();
        lines.join(&b'\n')
    }

    proptest! {
        /// `PROPTEST_CASES` makes the run longer.
        #[test]
        fn any_bytes_are_a_recording_or_an_error(
            bytes in prop::collection::vec(any::<u8>(), 0..512),
            rows in prop::collection::vec(prop::collection::vec(field(), 0..7), 0..8),
        ) {
            let header = b"time,team,puzzle,guess,verdict\n";
            for file in [
                bytes.clone(),
                lines(&rows),
                [&header[..], &bytes].concat(),
                [&header[..], &lines(&rows)].concat(),
            ] {
                match Recording::parse(&file) {
                    Ok(recording) => {
                        prop_assert!(!recording.guesses.is_empty());
                        for guess in &recording.guesses {
                            prop_assert!(guess.team < recording.teams.len());
                            prop_assert!(guess.puzzle < recording.puzzles.len());
                        }
                    }
                    Err(error) => prop_assert!(!error.to_string().is_empty()),
                }
            }
        }
    }
}
