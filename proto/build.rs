//! Compiles the .proto files with protox, so that no protoc is needed.

use std::path::PathBuf;

use prost::Message as _;

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
        .compile_fds(descriptors)?;
    Ok(())
}
