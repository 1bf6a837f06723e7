//! Compiles the .proto files with protox, so that no protoc is needed.

use std::path::PathBuf;

use prost::Message as _;
use prost_types::FileDescriptorSet;

const FILES: [&str; 4] = [
    "huntlog/v1/event_service.proto",
    "huntlog/v1/hunt_service.proto",
    "huntlog/v1/admin_service.proto",
    "huntlog/peer/v1/peer.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out_dir = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out_dir.join("huntlog.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(descriptors.clone())?;
    let encoded_dir = out_dir.join("encoded");
    std::fs::create_dir_all(&encoded_dir)?;
    tonic_prost_build::configure()
        .out_dir(encoded_dir)
        .extern_path(".huntlog.v1.ReadResponse", "crate::encoded::Page")
        .extern_path(".huntlog.v1.SubscribeResponse", "crate::encoded::Page")
        .extern_path(".huntlog.v1", "crate::v1")
        .compile_fds(event_service_alone(descriptors))?;
    Ok(())
}

/// What is generated a second time, with other types for the pages of events.
fn event_service_alone(mut descriptors: FileDescriptorSet) -> FileDescriptorSet {
    descriptors
        .file
        .retain(|file| file.package() != "huntlog.peer.v1");
    for file in &mut descriptors.file {
        file.service
            .retain(|service| service.name() == "EventService");
    }
    descriptors
}
