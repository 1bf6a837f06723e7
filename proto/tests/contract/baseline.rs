//! What was released stays readable: no message, field, enum value or rpc of
//! the baseline is gone, renumbered, renamed or of another type. This holds for
//! the peer protocol too, since a cluster is upgraded node by node.
//!
//! The baseline is `proto/baseline.txt`, one fact a line, and is kept at what
//! the .proto files say. A field may go when its number and name are
//! `reserved`. To take a change over:
//!
//! ```sh
//! HUNTLOG_PROTO_BASELINE=additions cargo test -p huntlog-proto
//! HUNTLOG_PROTO_BASELINE=breaking cargo test -p huntlog-proto # old clients fail
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

use crate::elements::{Kind, compiled, elements};

const ACCEPT: &str = "HUNTLOG_PROTO_BASELINE";

/// What goes over the wire and into generated code, one line each.
fn facts(set: &FileDescriptorSet) -> BTreeSet<String> {
    let mut facts = BTreeSet::new();
    for element in elements(set) {
        let path = &element.path;
        match element.kind {
            Kind::File(_) | Kind::Oneof | Kind::Service => {}
            Kind::Enum(_) => {
                facts.insert(format!("enum {path}"));
            }
            Kind::EnumValue(_, number) => {
                facts.insert(format!("value {path} = {number}"));
            }
            Kind::Rpc(rpc) => {
                let stream = |streams| if streams { "stream " } else { "" };
                facts.insert(format!(
                    "rpc {path} ({}{}) ({}{})",
                    stream(rpc.client_streaming()),
                    rpc.input_type(),
                    stream(rpc.server_streaming()),
                    rpc.output_type(),
                ));
            }
            Kind::Message(message) => {
                facts.insert(format!("message {path}"));
                for field in &message.field {
                    facts.insert(field_fact(path, message, field));
                }
                for range in &message.reserved_range {
                    facts.extend(
                        (range.start()..range.end()).map(|number| reserved_number(path, number)),
                    );
                }
                for name in &message.reserved_name {
                    facts.insert(reserved_name(path, name));
                }
            }
            // Told with their messages, which know their oneofs and maps.
            Kind::Field => {}
        }
    }
    facts
}

fn field_fact(path: &str, message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let entry = message.nested_type.iter().find(|nested| {
        nested.options.as_ref().is_some_and(|o| o.map_entry())
            && field.type_name().ends_with(&format!(".{}", nested.name()))
    });
    let kind = match entry {
        Some(entry) => format!(
            "map {} {}",
            type_of(&entry.field[0]),
            type_of(&entry.field[1])
        ),
        None => type_of(field),
    };
    let label = match field.oneof_index {
        _ if entry.is_some() => String::new(),
        _ if field.proto3_optional() => "optional ".to_owned(),
        Some(index) => {
            let index = usize::try_from(index).expect("an index");
            format!("oneof {} ", message.oneof_decl[index].name())
        }
        None if field.label() == prost_types::field_descriptor_proto::Label::Repeated => {
            "repeated ".to_owned()
        }
        None => String::new(),
    };
    format!(
        "field {path}.{} = {}: {label}{kind}",
        field.name(),
        field.number()
    )
}

fn type_of(field: &FieldDescriptorProto) -> String {
    match field.type_name() {
        "" => format!("{:?}", field.r#type()).to_lowercase(),
        name => name.trim_start_matches('.').to_owned(),
    }
}

fn reserved_number(path: &str, number: i32) -> String {
    format!("reserved {path} = {number}")
}

fn reserved_name(path: &str, name: &str) -> String {
    format!("reserved {path}.{name}")
}

/// Which of `before` do not hold any more.
fn broken<'a>(before: &'a BTreeSet<String>, now: &BTreeSet<String>) -> Vec<&'a str> {
    let is_reserved = |fact: &str| {
        let field = fact.strip_prefix("field ");
        let Some((path, rest)) = field.and_then(|field| field.split_once(" = ")) else {
            return false;
        };
        let number = rest.split(':').next().and_then(|n| n.parse().ok());
        let (Some(number), Some((message, name))) = (number, path.rsplit_once('.')) else {
            return false;
        };
        now.contains(&reserved_number(message, number))
            && now.contains(&reserved_name(message, name))
    };
    before
        .iter()
        .map(String::as_str)
        .filter(|fact| !now.contains(*fact) && !is_reserved(fact))
        .collect()
}

#[test]
fn what_was_released_stays_readable() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("baseline.txt");
    let now = facts(&compiled());
    let text = fs::read_to_string(&file).unwrap_or_default();
    let before: BTreeSet<String> = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    let accept = std::env::var(ACCEPT).unwrap_or_default();
    let broken = broken(&before, &now);
    assert!(
        broken.is_empty() || accept == "breaking",
        "clients and nodes of the last release break, for these are gone or changed:\n{}\n\
         put them back, or reserve number and name of a field that goes; {ACCEPT}=breaking \
         takes it over all the same",
        broken.join("\n")
    );
    if before == now {
        return;
    }
    if accept == "additions" || accept == "breaking" {
        let mut lines = String::from(
            "# What the .proto files promise, one fact a line. Written by tests/contract/baseline.rs.\n",
        );
        for fact in &now {
            lines.push_str(fact);
            lines.push('\n');
        }
        fs::write(&file, lines).expect("the baseline can be written");
        return;
    }
    let new: Vec<_> = now.difference(&before).map(String::as_str).collect();
    panic!(
        "the baseline is not up to date, new is:\n{}\nrecord it: \
         {ACCEPT}=additions cargo test -p huntlog-proto",
        new.join("\n")
    );
}

/// The check finds what it is for.
#[test]
fn changes_that_break_are_found() {
    const BEFORE: &str = r#"
        message M { string a = 1; repeated string b = 2; oneof o { uint32 c = 3; } map<string, M> d = 4; }
        enum E { E_UNSPECIFIED = 0; E_A = 1; }
        service S { rpc R(M) returns (stream M); }
    "#;
    let compile = |body: &str| {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("huntlog.proto");
        let source = format!("syntax = \"proto3\";\npackage huntlog.v1;\n{body}");
        fs::write(&file, source).expect("written");
        facts(&protox::compile([&file], [directory.path()]).expect("it compiles"))
    };
    let before = compile(BEFORE);
    let after = |from: &str, to: &str| {
        assert!(BEFORE.contains(from), "{from}");
        let now = compile(&BEFORE.replace(from, to));
        broken(&before, &now).len()
    };
    for (from, to) in [
        ("string a = 1;", ""),
        ("string a = 1;", "reserved 1;"),
        ("string a = 1;", "string a = 5;"),
        ("string a = 1;", "string e = 1;"),
        ("string a = 1;", "bytes a = 1;"),
        ("string a = 1;", "optional string a = 1;"),
        ("repeated string b", "string b"),
        ("oneof o { uint32 c = 3; }", "uint32 c = 3;"),
        ("map<string, M>", "map<string, string>"),
        ("E_A = 1;", ""),
        ("E_A = 1;", "E_A = 2;"),
        ("rpc R(M) returns (stream M);", ""),
        ("returns (stream M)", "returns (M)"),
    ] {
        assert_eq!(after(from, to), 1, "{from} -> {to}");
    }
    for (from, to) in [
        ("string a = 1;", "string a = 1; string e = 9;"),
        ("string a = 1;", "reserved 1; reserved \"a\";"),
        ("E_A = 1;", "E_A = 1; E_B = 2;"),
    ] {
        assert_eq!(after(from, to), 0, "{from} -> {to}");
    }
}
