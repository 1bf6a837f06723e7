//! The raw configuration: for each key the value that wins (flag over
//! environment over file), as it was written, and where.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::File,
    io::Read as _,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    fault::{Fault, Hint, Origin, Position, Problem},
    schema::{self, Key, Kind},
};
use crate::limits;

/// Where values are taken from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The configuration file.
    pub file: PathBuf,
    /// Environment variables; those that are no business of the
    /// configuration's are passed over.
    pub environment: Vec<(OsString, OsString)>,
    /// Flags, each with its value.
    pub flags: Vec<(&'static Key, String)>,
}

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Located<T> {
    pub value: T,
    pub origin: Origin,
}

/// A value as written, of no checked type yet.
#[derive(Clone, Debug)]
pub(super) enum Raw {
    /// Of a flag or a variable: the key decides how it is read.
    Word(String),
    Integer(i128),
    Text(String),
    Array(Vec<Located<Raw>>),
    Table(Vec<(Located<String>, Located<Raw>)>),
    /// A type that no key has, by its name.
    Other(&'static str),
}

/// The raw configuration.
#[derive(Debug)]
pub(super) struct Layers {
    values: BTreeMap<&'static str, Located<Raw>>,
    sections: BTreeMap<&'static str, Origin>,
    end_of_file: Origin,
}

impl Layers {
    /// Collects what the sources say. What cannot be read or belongs to no key
    /// becomes a fault; None when the file is no TOML at all, so that nothing
    /// sensible can be said about its keys.
    pub(super) fn gather(sources: &Sources, faults: &mut Vec<Fault>) -> Option<Self> {
        let file = SourceFile::read(&sources.file).map_err(|fault| faults.push(fault));
        let mut layers = file.ok()?.layers(faults)?;
        layers.apply_environment(&sources.environment, faults);
        for (key, value) in &sources.flags {
            layers.apply_word(key, value.clone(), Origin::Flag(key.flag), faults);
        }
        Some(layers)
    }

    /// What was set for `key`.
    pub(super) fn get(&self, key: &Key) -> Option<&Located<Raw>> {
        self.values.get(key.path)
    }

    /// Where `key` would be written: in its section, or at the end of the file.
    pub(super) fn place_for(&self, key: &Key) -> Origin {
        let section = self.sections.get(key.section);
        section.unwrap_or(&self.end_of_file).clone()
    }

    fn apply_environment(&mut self, environment: &[(OsString, OsString)], faults: &mut Vec<Fault>) {
        for (name, value) in environment {
            let Some(name) = name.to_str() else { continue };
            let is_key = name
                .strip_prefix(schema::VARIABLE_PREFIX)
                .is_some_and(|rest| rest.contains("__"));
            if !is_key {
                continue;
            }
            let origin = Origin::Variable(name.to_owned());
            let key = schema::KEYS.into_iter().find(|key| key.variable == name);
            match (key, value.to_str()) {
                (Some(key), Some(value)) => {
                    self.apply_word(key, value.to_owned(), origin, faults);
                }
                (Some(_), None) => faults.push(Fault {
                    origin,
                    problem: Problem::NotUnicode,
                }),
                (None, _) => {
                    let variables = schema::KEYS.iter().map(|key| key.variable);
                    let hint = schema::closest(name, variables)
                        .map_or(Hint::Remove, |name| Hint::DidYouMean(name.to_owned()));
                    let problem = Problem::UnknownVariable { hint };
                    faults.push(Fault { origin, problem });
                }
            }
        }
    }

    /// Sets `key` to a bare text. Only the members, which are a structure, are
    /// read as TOML; everything else would need quotes that a shell removes.
    fn apply_word(
        &mut self,
        key: &'static Key,
        word: String,
        origin: Origin,
        faults: &mut Vec<Fault>,
    ) {
        let value = if key.kind == Kind::Members {
            match DeValue::parse(&word) {
                Ok(value) => locate(&value, &|_| origin.clone()),
                Err(error) => {
                    let problem = Problem::Syntax(error.message().to_owned());
                    faults.push(Fault { origin, problem });
                    return;
                }
            }
        } else {
            let value = Raw::Word(word);
            Located { value, origin }
        };
        self.values.insert(key.path, value);
    }
}

/// A file's text, and its name for the faults.
struct SourceFile {
    path: Arc<Path>,
    text: String,
}

impl SourceFile {
    fn read(path: &Path) -> Result<Self, Fault> {
        let path: Arc<Path> = Arc::from(path);
        let fault_at = |problem, position| Fault {
            origin: Origin::File {
                path: Arc::clone(&path),
                position,
            },
            problem,
        };
        let fault = |problem| fault_at(problem, None);
        let mut bytes = Vec::new();
        let limit = limits::CONFIG_FILE_BYTES_MAX as u64;
        File::open(&path)
            .and_then(|file| file.take(limit + 1).read_to_end(&mut bytes))
            .map_err(|error| fault(Problem::Unreadable(error.to_string())))?;
        if bytes.len() as u64 > limit {
            return Err(fault(Problem::TooLarge));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let good = error.utf8_error().valid_up_to();
            let before = String::from_utf8_lossy(&error.as_bytes()[..good]);
            let position = Position::of(&before, good);
            fault_at(Problem::NotUnicode, Some(position))
        })?;
        Ok(Self { path, text })
    }

    fn origin(&self, offset: usize) -> Origin {
        Origin::File {
            path: Arc::clone(&self.path),
            position: Some(Position::of(&self.text, offset)),
        }
    }

    /// Sorts the file's values to their keys. None when it does not parse:
    /// what the parser then makes of the rest would only mislead.
    fn layers(&self, faults: &mut Vec<Fault>) -> Option<Layers> {
        let (table, errors) = DeTable::parse_recoverable(&self.text);
        if !errors.is_empty() {
            faults.extend(errors.iter().map(|error| Fault {
                origin: self.origin(error.span().map_or(0, |span| span.start)),
                problem: Problem::Syntax(error.message().to_owned()),
            }));
            return None;
        }
        let mut layers = Layers {
            values: BTreeMap::new(),
            sections: BTreeMap::new(),
            end_of_file: self.origin(self.text.len()),
        };
        for (section, content) in table.get_ref() {
            self.sort_section(&mut layers, section, content, faults);
        }
        Some(layers)
    }

    fn sort_section(
        &self,
        layers: &mut Layers,
        section: &Spanned<std::borrow::Cow<'_, str>>,
        content: &Spanned<DeValue<'_>>,
        faults: &mut Vec<Fault>,
    ) {
        let name = section.get_ref().as_ref();
        let origin = self.origin(section.span().start);
        let known = schema::KEYS.iter().find(|key| key.section == name);
        let (known, entries) = match (known, content.get_ref()) {
            (Some(known), DeValue::Table(entries)) => (known, entries),
            (Some(_), other) => {
                let problem = Problem::WrongType {
                    key: name.to_owned(),
                    expected: "a section",
                    found: with_article(other.type_str()),
                };
                return faults.push(Fault { origin, problem });
            }
            (None, DeValue::Table(_)) => {
                let sections = schema::KEYS.iter().map(|key| key.section);
                let problem = Problem::UnknownSection {
                    section: name.to_owned(),
                    hint: match schema::closest(name, sections.clone()) {
                        Some(section) => Hint::DidYouMean(format!("[{section}]")),
                        None => Hint::Known(enumerate(sections.map(|name| format!("[{name}]")))),
                    },
                };
                return faults.push(Fault { origin, problem });
            }
            (None, _) => {
                let problem = unknown_key(None, name);
                return faults.push(Fault { origin, problem });
            }
        };
        layers.sections.insert(known.section, origin);
        for (name, value) in entries {
            match schema::key(known.section, name.get_ref()) {
                Some(key) => {
                    let value = locate(value, &|span| self.origin(span.start));
                    layers.values.insert(key.path, value);
                }
                None => faults.push(Fault {
                    origin: self.origin(name.span().start),
                    problem: unknown_key(Some(known.section), name.get_ref()),
                }),
            }
        }
    }
}

/// Suggests a key of the same section, or else of another one.
fn unknown_key(section: Option<&str>, name: &str) -> Problem {
    let here = section.and_then(|section| {
        schema::closest(name, schema::names_in(section)).map(|name| format!("{section}.{name}"))
    });
    let elsewhere = || {
        let name = schema::closest(name, schema::KEYS.iter().map(|key| key.name))?;
        let key = schema::KEYS.iter().find(|key| key.name == name)?;
        Some(key.path.to_owned())
    };
    let known = || match section {
        Some(section) => enumerate(schema::names_in(section).map(str::to_owned)),
        None => "keys in sections only, such as node.id".to_owned(),
    };
    let suggestion = here.or_else(elsewhere).map(Hint::DidYouMean);
    Problem::UnknownKey {
        key: section.map_or(name.to_owned(), |section| format!("{section}.{name}")),
        hint: suggestion.unwrap_or_else(|| Hint::Known(known())),
    }
}

/// `a, b, c`, each once.
fn enumerate(names: impl Iterator<Item = String>) -> String {
    let mut names: Vec<_> = names.collect();
    names.dedup();
    names.join(", ")
}

fn locate(
    value: &Spanned<DeValue<'_>>,
    origin_of: &dyn Fn(Range<usize>) -> Origin,
) -> Located<Raw> {
    let raw = match value.get_ref() {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(integer) => {
            let parsed = i128::from_str_radix(integer.as_str(), integer.radix());
            // Digits only, so that failing means: too many of them.
            let saturated = match integer.as_str().starts_with('-') {
                true => i128::MIN,
                false => i128::MAX,
            };
            Raw::Integer(parsed.unwrap_or(saturated))
        }
        DeValue::Array(items) => {
            Raw::Array(items.iter().map(|item| locate(item, origin_of)).collect())
        }
        DeValue::Table(entries) => {
            let entries = entries.iter().map(|(name, value)| {
                let name = Located {
                    value: name.get_ref().to_string(),
                    origin: origin_of(name.span()),
                };
                (name, locate(value, origin_of))
            });
            Raw::Table(entries.collect())
        }
        other => Raw::Other(other.type_str()),
    };
    Located {
        value: raw,
        origin: origin_of(value.span()),
    }
}

/// `an integer`, `a string`.
pub(super) fn with_article(noun: &str) -> String {
    let article = match noun.starts_with(['a', 'e', 'i', 'o', 'u']) {
        true => "an",
        false => "a",
    };
    format!("{article} {noun}")
}
