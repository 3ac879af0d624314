//! Compiles src/bpf and generates its Rust bindings.
//!
//! Every checkout builds the same program: neither the BPF side's line numbers nor the bindings
//! tell where it lies, as far as its target directory is inside. What the lab's machine does then
//! depends on the commit alone, and a test that failed elsewhere fails here.

use std::env;
use std::path::{Path, PathBuf};

fn main() -> anyhow::Result<()> {
    let root = env::var("CARGO_MANIFEST_DIR")?;
    let out = env::var("OUT_DIR")?;
    scx_cargo::BpfBuilder::new()?
        .add_cflag(&format!("-ffile-prefix-map={root}=."))
        .add_cflag(&format!("-ffile-prefix-map={out}=."))
        .enable_intf("src/bpf/intf.h", "bpf_intf.rs")
        .enable_skel("src/bpf/main.bpf.c", "bpf")
        .build()?;
    let generated = seen_from_src(&root, Path::new(&out));
    println!("cargo::rustc-env=GENERATED={}", generated.display());
    Ok(())
}

/// The folder as a source file in src includes it.
fn seen_from_src(root: &str, folder: &Path) -> PathBuf {
    folder.strip_prefix(root).map_or_else(
        |_| folder.to_path_buf(),
        |inside| Path::new("..").join(inside),
    )
}
