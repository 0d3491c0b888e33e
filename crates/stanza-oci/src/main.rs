//! `stanza-oci`: the OCI runtime as a program of its own, for callers that know runc.

#![no_main]
#![forbid(unsafe_code)]

stanza_sys::plain_main!(program);

fn program() -> i32 {
    stanza_sys::ignore_broken_pipes();
    stanza_oci::main(std::env::args().skip(1).collect()).into()
}
