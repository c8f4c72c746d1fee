//! Generates the client from the protos of the checkout. No protoc is needed: `protox` is one.

use std::{env, path::PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let checkout = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../..");
    let roots = [
        "protos",
        ".build/protos/googleapis",
        ".build/protos/protovalidate",
    ]
    .map(|root| checkout.join(root));
    println!("cargo:rerun-if-changed={}", roots[0].display());
    let parsed = protox::compile(["cove/gateway/v1/gateway.proto"], &roots)?;
    tonic_prost_build::configure()
        .build_server(false)
        .include_file("cove.rs")
        .compile_fds(parsed)?;
    Ok(())
}
