//! Style. The rules and their names are those of buf's STANDARD and COMMENTS
//! (https://buf.build/docs/lint/rules), and one of our own.

use std::collections::BTreeMap;

use prost_types::FileDescriptorSet;

use crate::elements::{Element, Kind, compiled, elements};

/// What is allowed all the same, and why.
const EXCEPTIONS: [(&str, &str); 13] = [
    // A batch is the same alone and in a stream, and is forwarded as it came.
    (
        "RPC_REQUEST_STANDARD_NAME",
        "huntlog.v1.EventService.AppendStream",
    ),
    (
        "RPC_REQUEST_RESPONSE_UNIQUE",
        "huntlog.v1.EventService.Append",
    ),
    (
        "RPC_REQUEST_RESPONSE_UNIQUE",
        "huntlog.v1.EventService.AppendStream",
    ),
    // Both carry Raft's AppendEntries.
    (
        "RPC_REQUEST_STANDARD_NAME",
        "huntlog.peer.v1.PeerService.AppendStream",
    ),
    (
        "RPC_RESPONSE_STANDARD_NAME",
        "huntlog.peer.v1.PeerService.AppendStream",
    ),
    (
        "RPC_REQUEST_RESPONSE_UNIQUE",
        "huntlog.peer.v1.PeerService.AppendStream",
    ),
    (
        "RPC_REQUEST_RESPONSE_UNIQUE",
        "huntlog.peer.v1.PeerService.AppendEntries",
    ),
    // A pre-vote asks what a vote asks.
    (
        "RPC_REQUEST_STANDARD_NAME",
        "huntlog.peer.v1.PeerService.PreVote",
    ),
    (
        "RPC_RESPONSE_STANDARD_NAME",
        "huntlog.peer.v1.PeerService.PreVote",
    ),
    (
        "RPC_REQUEST_RESPONSE_UNIQUE",
        "huntlog.peer.v1.PeerService.PreVote",
    ),
    (
        "RPC_REQUEST_RESPONSE_UNIQUE",
        "huntlog.peer.v1.PeerService.Vote",
    ),
    // The name says it; operators read it from huntctl.
    ("COMMENT_FIELD", "huntlog/v1/admin_service.proto"),
    ("COMMENT_ENUM_VALUE", "huntlog/v1/admin_service.proto"),
];

/// Names that can not be written as a field of a message object.
const PYTHON_KEYWORDS: [&str; 35] = [
    "False", "None", "True", "and", "as", "assert", "async", "await", "break", "class", "continue",
    "def", "del", "elif", "else", "except", "finally", "for", "from", "global", "if", "import",
    "in", "is", "lambda", "nonlocal", "not", "or", "pass", "raise", "return", "try", "while",
    "with", "yield",
];

/// Breaches as `rule: element`, but for `exceptions`.
fn breaches(set: &FileDescriptorSet, exceptions: &[(&str, &str)]) -> Vec<String> {
    let elements = elements(set);
    let mut lint = Lint {
        exceptions,
        breaches: Vec::new(),
    };
    let mut messages_of_rpcs: BTreeMap<&str, Vec<&Element<'_>>> = BTreeMap::new();
    for element in &elements {
        if let Kind::Rpc(rpc) = &element.kind {
            for message in [rpc.input_type(), rpc.output_type()] {
                messages_of_rpcs.entry(message).or_default().push(element);
            }
        }
    }
    for used in messages_of_rpcs.values().filter(|rpcs| rpcs.len() > 1) {
        for rpc in used {
            lint.rule(false, "RPC_REQUEST_RESPONSE_UNIQUE", rpc);
        }
    }
    for element in &elements {
        lint.names(element);
        let of_an_rpc = messages_of_rpcs.contains_key(format!(".{}", element.path).as_str());
        lint.comments(element, of_an_rpc);
    }
    lint.breaches.sort();
    lint.breaches.dedup();
    lint.breaches
}

struct Lint<'e> {
    exceptions: &'e [(&'e str, &'e str)],
    breaches: Vec<String>,
}

impl Lint<'_> {
    fn rule(&mut self, holds: bool, rule: &str, element: &Element<'_>) {
        let excepted = self
            .exceptions
            .iter()
            .any(|(name, of)| *name == rule && (*of == element.path || *of == element.file));
        if !holds && !excepted {
            self.breaches.push(format!("{rule}: {}", element.path));
        }
    }

    fn names(&mut self, element: &Element<'_>) {
        let name = element.name;
        match &element.kind {
            Kind::File(file) => {
                let (directory, base) = name.rsplit_once('/').unwrap_or(("", name));
                let package = file.package();
                let version = package.rsplit('.').next().unwrap_or("");
                let versioned = version
                    .strip_prefix('v')
                    .is_some_and(|number| number.parse::<u32>().is_ok_and(|number| number > 0));
                let base = base.strip_suffix(".proto").unwrap_or(base);
                self.rule(file.syntax() == "proto3", "SYNTAX_SPECIFIED", element);
                self.rule(
                    package.split('.').all(is_lower_snake),
                    "PACKAGE_LOWER_SNAKE_CASE",
                    element,
                );
                self.rule(
                    directory == package.replace('.', "/"),
                    "PACKAGE_DIRECTORY_MATCH",
                    element,
                );
                self.rule(versioned, "PACKAGE_VERSION_SUFFIX", element);
                self.rule(is_lower_snake(base), "FILE_LOWER_SNAKE_CASE", element);
                self.rule(
                    file.public_dependency.is_empty(),
                    "IMPORT_NO_PUBLIC",
                    element,
                );
                self.rule(file.weak_dependency.is_empty(), "IMPORT_NO_WEAK", element);
            }
            Kind::Message(_) => self.rule(is_pascal(name), "MESSAGE_PASCAL_CASE", element),
            Kind::Field => {
                self.rule(is_lower_snake(name), "FIELD_LOWER_SNAKE_CASE", element);
                self.rule(
                    !PYTHON_KEYWORDS.contains(&name),
                    "FIELD_NO_PYTHON_KEYWORD",
                    element,
                );
            }
            Kind::Oneof => self.rule(is_lower_snake(name), "ONEOF_LOWER_SNAKE_CASE", element),
            Kind::Enum(of) => {
                let alias = of.options.as_ref().is_some_and(|o| o.allow_alias());
                self.rule(is_pascal(name), "ENUM_PASCAL_CASE", element);
                self.rule(!alias, "ENUM_NO_ALLOW_ALIAS", element);
            }
            Kind::EnumValue(of, number) => {
                let prefix = upper_snake(of.name());
                let zero = format!("{prefix}_UNSPECIFIED");
                self.rule(is_upper_snake(name), "ENUM_VALUE_UPPER_SNAKE_CASE", element);
                self.rule(
                    name.starts_with(&format!("{prefix}_")),
                    "ENUM_VALUE_PREFIX",
                    element,
                );
                self.rule(
                    *number != 0 || name == zero,
                    "ENUM_ZERO_VALUE_SUFFIX",
                    element,
                );
            }
            Kind::Service => {
                self.rule(is_pascal(name), "SERVICE_PASCAL_CASE", element);
                self.rule(name.ends_with("Service"), "SERVICE_SUFFIX", element);
            }
            Kind::Rpc(rpc) => {
                let is_named = |message: &str, suffix: &str| {
                    message.rsplit('.').next() == Some(format!("{name}{suffix}").as_str())
                };
                self.rule(is_pascal(name), "RPC_PASCAL_CASE", element);
                self.rule(
                    is_named(rpc.input_type(), "Request"),
                    "RPC_REQUEST_STANDARD_NAME",
                    element,
                );
                self.rule(
                    is_named(rpc.output_type(), "Response"),
                    "RPC_RESPONSE_STANDARD_NAME",
                    element,
                );
            }
        }
    }

    /// Everything public says what it is. A request or response is explained by
    /// its rpc, an unspecified value by its name; the peer protocol explains
    /// itself to those who read Raft's paper.
    fn comments(&mut self, element: &Element<'_>, of_an_rpc: bool) {
        let rule = match &element.kind {
            _ if !element.file.starts_with("huntlog/v1/") => return,
            Kind::Message(_) if of_an_rpc => return,
            Kind::EnumValue(_, 0) | Kind::File(_) => return,
            Kind::Message(_) => "COMMENT_MESSAGE",
            Kind::Field => "COMMENT_FIELD",
            Kind::Oneof => "COMMENT_ONEOF",
            Kind::Enum(_) => "COMMENT_ENUM",
            Kind::EnumValue(..) => "COMMENT_ENUM_VALUE",
            Kind::Service => "COMMENT_SERVICE",
            Kind::Rpc(_) => "COMMENT_RPC",
        };
        self.rule(element.comment.is_some(), rule, element);
    }
}

fn is_pascal(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.chars().all(|c| c.is_ascii_alphanumeric())
}

fn is_lower_snake(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('_')
        && !name.contains("__")
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn is_upper_snake(name: &str) -> bool {
    is_lower_snake(&name.to_ascii_lowercase()) && name == name.to_ascii_uppercase()
}

/// `RejectReason` as `REJECT_REASON`.
fn upper_snake(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(c.to_ascii_uppercase());
    }
    text
}

#[test]
fn the_contract_keeps_the_rules() {
    let breaches = breaches(&compiled(), &EXCEPTIONS);
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn every_exception_is_needed() {
    let set = compiled();
    for needless in EXCEPTIONS {
        let others: Vec<_> = EXCEPTIONS
            .into_iter()
            .filter(|exception| *exception != needless)
            .collect();
        assert!(!breaches(&set, &others).is_empty(), "{needless:?}");
    }
}

/// Every rule finds what breaks it.
#[test]
fn breaches_are_found() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("huntlog/v1/Bad-File.proto");
    std::fs::create_dir_all(file.parent().expect("it has one")).expect("made");
    let source = r#"
        syntax = "proto3";
        package huntlog.Bad;
        service lookup { rpc get_it(in_message) returns (in_message); }
        message in_message {
            string from = 1;
            string CamelCase = 2;
            oneof Which { string a = 3; }
        }
        message Uncommented { string b = 1; }
        enum color { option allow_alias = true; NONE = 0; COLOR_red = 1; COLOR_RED = 1; }
    "#;
    std::fs::write(&file, source).expect("written");
    let set = protox::compile([&file], [directory.path()]).expect("it compiles");
    let found = breaches(&set, &EXCEPTIONS);
    for rule in [
        "PACKAGE_LOWER_SNAKE_CASE",
        "PACKAGE_DIRECTORY_MATCH",
        "PACKAGE_VERSION_SUFFIX",
        "FILE_LOWER_SNAKE_CASE",
        "MESSAGE_PASCAL_CASE",
        "FIELD_LOWER_SNAKE_CASE",
        "FIELD_NO_PYTHON_KEYWORD",
        "ONEOF_LOWER_SNAKE_CASE",
        "ENUM_PASCAL_CASE",
        "ENUM_NO_ALLOW_ALIAS",
        "ENUM_VALUE_UPPER_SNAKE_CASE",
        "ENUM_VALUE_PREFIX",
        "ENUM_ZERO_VALUE_SUFFIX",
        "SERVICE_PASCAL_CASE",
        "SERVICE_SUFFIX",
        "RPC_PASCAL_CASE",
        "RPC_REQUEST_STANDARD_NAME",
        "RPC_RESPONSE_STANDARD_NAME",
        "RPC_REQUEST_RESPONSE_UNIQUE",
        "COMMENT_MESSAGE",
        "COMMENT_FIELD",
        "COMMENT_ONEOF",
        "COMMENT_ENUM",
        "COMMENT_ENUM_VALUE",
        "COMMENT_SERVICE",
        "COMMENT_RPC",
    ] {
        let breaks = |breach: &String| breach.starts_with(&format!("{rule}: "));
        assert!(found.iter().any(breaks), "{rule} in {found:?}");
    }
}
