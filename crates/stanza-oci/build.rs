//! Has `stanza-oci` begin where its own executable is protected (`stanza-sys`, `entry.rs`), before the C library.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for argument in ["-u", "stanza_entry", "-e", "stanza_entry"] {
        println!("cargo::rustc-link-arg-bin=stanza-oci=-Wl,{argument}");
    }
}
