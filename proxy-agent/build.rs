//! Puts the compiled eBPF programs where the agent embeds them from.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-env-changed=FERROUTE_EBPF_OBJECT");
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let object = env::var_os("FERROUTE_EBPF_OBJECT")
        .map_or_else(|| manifest.with_file_name("target").join("bpf/proxy-ebpf"), PathBuf::from);
    // Watched also while it is missing, so that the first build of it is noticed.
    println!("cargo::rerun-if-changed={}", object.display());
    let out = Path::new(&env::var_os("OUT_DIR").unwrap_or_default()).join("proxy-ebpf");
    if object.exists() {
        fs::copy(&object, out)?;
    } else {
        println!("cargo::warning=no eBPF object at {}: `cargo xtask build` makes it", object.display());
        fs::write(out, [])?;
    }
    Ok(())
}
