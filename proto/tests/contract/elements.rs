//! The contract's descriptors as one flat list of what has a name.

use std::collections::HashMap;

use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    MethodDescriptorProto,
};

/// Something that has a name in a .proto file.
pub struct Element<'a> {
    /// Its file, below `proto/`.
    pub file: &'a str,
    /// Its full name.
    pub path: String,
    /// Its own name.
    pub name: &'a str,
    /// The comment before it.
    pub comment: Option<&'a str>,
    pub kind: Kind<'a>,
}

/// What it is.
pub enum Kind<'a> {
    File(&'a FileDescriptorProto),
    Message(&'a DescriptorProto),
    Field,
    Oneof,
    Enum(&'a EnumDescriptorProto),
    /// With its enum and its number.
    EnumValue(&'a EnumDescriptorProto, i32),
    Service,
    Rpc(&'a MethodDescriptorProto),
}

/// The descriptors that the crate was compiled from.
pub fn compiled() -> FileDescriptorSet {
    FileDescriptorSet::decode(huntlog_proto::FILE_DESCRIPTOR_SET).expect("descriptors decode")
}

/// Everything of huntlog's own packages.
pub fn elements(set: &FileDescriptorSet) -> Vec<Element<'_>> {
    let mut all = Vec::new();
    for file in &set.file {
        if file.package().starts_with("huntlog") {
            Walk::new(file, &mut all).file(file);
        }
    }
    all
}

struct Walk<'a, 'o> {
    file: &'a str,
    comments: HashMap<&'a [i32], &'a str>,
    all: &'o mut Vec<Element<'a>>,
}

impl<'a, 'o> Walk<'a, 'o> {
    fn new(file: &'a FileDescriptorProto, all: &'o mut Vec<Element<'a>>) -> Self {
        let locations = file.source_code_info.iter().flat_map(|info| &info.location);
        Self {
            file: file.name(),
            comments: locations
                .filter(|location| !location.leading_comments().trim().is_empty())
                .map(|location| (location.path.as_slice(), location.leading_comments()))
                .collect(),
            all,
        }
    }

    fn add(&mut self, scope: &str, name: &'a str, place: &[i32], kind: Kind<'a>) -> String {
        let path = format!("{scope}.{name}");
        self.all.push(Element {
            file: self.file,
            path: path.clone(),
            name,
            comment: self.comments.get(place).copied(),
            kind,
        });
        path
    }

    /// The numbers in places are those of descriptor.proto's fields.
    fn file(&mut self, file: &'a FileDescriptorProto) {
        let package = file.package();
        self.all.push(Element {
            file: self.file,
            path: file.name().to_owned(),
            name: file.name(),
            comment: None,
            kind: Kind::File(file),
        });
        for (index, message) in numbered(&file.message_type) {
            self.message(package, message, &[4, index]);
        }
        for (index, of) in numbered(&file.enum_type) {
            self.enumeration(package, of, &[5, index]);
        }
        for (index, service) in numbered(&file.service) {
            let path = self.add(package, service.name(), &[6, index], Kind::Service);
            for (method_index, method) in numbered(&service.method) {
                let place = [6, index, 2, method_index];
                self.add(&path, method.name(), &place, Kind::Rpc(method));
            }
        }
    }

    fn message(&mut self, scope: &str, message: &'a DescriptorProto, place: &[i32]) {
        if message.options.as_ref().is_some_and(|o| o.map_entry()) {
            return;
        }
        let path = self.add(scope, message.name(), place, Kind::Message(message));
        for (index, field) in numbered(&message.field) {
            let place = [place, &[2, index]].concat();
            self.add(&path, field.name(), &place, Kind::Field);
        }
        for (index, oneof) in numbered(&message.oneof_decl) {
            // `optional` is described as a oneof of one field.
            let optional = message
                .field
                .iter()
                .any(|field| field.oneof_index == Some(index) && field.proto3_optional());
            if !optional {
                let place = [place, &[8, index]].concat();
                self.add(&path, oneof.name(), &place, Kind::Oneof);
            }
        }
        for (index, nested) in numbered(&message.nested_type) {
            self.message(&path, nested, &[place, &[3, index]].concat());
        }
        for (index, nested) in numbered(&message.enum_type) {
            self.enumeration(&path, nested, &[place, &[4, index]].concat());
        }
    }

    fn enumeration(&mut self, scope: &str, of: &'a EnumDescriptorProto, place: &[i32]) {
        let path = self.add(scope, of.name(), place, Kind::Enum(of));
        for (index, value) in numbered(&of.value) {
            let place = [place, &[2, index]].concat();
            self.add(
                &path,
                value.name(),
                &place,
                Kind::EnumValue(of, value.number()),
            );
        }
    }
}

fn numbered<T>(items: &[T]) -> impl Iterator<Item = (i32, &T)> {
    items
        .iter()
        .enumerate()
        .map(|(index, item)| (i32::try_from(index).expect("a few"), item))
}
