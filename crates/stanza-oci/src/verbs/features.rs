//! `features`: what this runtime knows, for callers that ask before they write a configuration (runtime-spec,
//! "Features Structure").
//!
//! It tells what is understood, whether the host has it or not; only `supportedFlags` depends on the kernel.

use std::io::Write;

use serde_json::{Value, json};
use stanza_container::{ALL_CAPABILITIES, LANDLOCK_ANNOTATION, mount_option_words};

use crate::arguments::{Parsed, Verb};
use crate::context::Context;
use crate::failure::{Doing, Failure};
use crate::verbs::help::SPECIFICATION;

pub(super) static VERB: Verb = Verb {
    name: "features",
    usage: "",
    help: "Print what this runtime knows, as JSON",
    flags: &[],
    own_words: usize::MAX,
    run,
};

const HOOKS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"];

const ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

const OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];

/// Those that a profile may name; the ones that this machine cannot run are passed over.
const ARCHITECTURES: [&str; 23] = [
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_SH",
    "SCMP_ARCH_SHEB",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
];

/// With the kernel's bits (seccomp(2)).
const SECCOMP_FLAGS: [(&str, u32); 4] = [
    ("SECCOMP_FILTER_FLAG_LOG", 1 << 1),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", 1 << 2),
    ("SECCOMP_FILTER_FLAG_TSYNC", 1),
    // Makes no sense to the kernel without a listener.
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", 1 << 5 | 1 << 3),
];

const MEMORY_MODES: [&str; 7] = [
    "MPOL_BIND",
    "MPOL_DEFAULT",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];

const MEMORY_FLAGS: [&str; 3] = ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"];

/// Annotations that change what the runtime does; one that ends in a dot stands for all names that begin so.
const UNSAFE_ANNOTATIONS: [&str; 3] = ["org.systemd.property.", "org.criu.config", LANDLOCK_ANNOTATION];

fn run(_context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    if let Some(word) = parsed.words.first() {
        return Err(Failure::Usage(format!("features takes no words, got `{word}`")));
    }
    let mut text = serde_json::to_string_pretty(&document()).map_err(Failure::below)?;
    text.push('\n');
    std::io::stdout().write_all(text.as_bytes()).step("write to standard output")?;
    Ok(0)
}

fn document() -> Value {
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPECIFICATION,
        "hooks": HOOKS,
        "mountOptions": mount_option_words(),
        "linux": {
            "namespaces": NAMESPACES,
            "capabilities": ALL_CAPABILITIES.as_slice(),
            "cgroup": {"v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true},
            "seccomp": seccomp(),
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "intelRdt": {"enabled": true, "schemata": true, "monitoring": true},
            "memoryPolicy": {"modes": MEMORY_MODES, "flags": MEMORY_FLAGS},
            "mountExtensions": {"idmap": {"enabled": true}},
            "netDevices": {"enabled": true},
        },
        "annotations": {
            "dev.stanza.oci.version": env!("CARGO_PKG_VERSION"),
            "dev.stanza.oci.checkpoint.enabled": "true",
        },
        "potentiallyUnsafeConfigAnnotations": UNSAFE_ANNOTATIONS,
    })
}

fn seccomp() -> Value {
    // The compiler has tables for these (stanza-container, `seccomp/compile.rs`).
    let enabled =
        cfg!(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64", target_arch = "arm"));
    if !enabled {
        return json!({"enabled": false});
    }
    let known: Vec<&str> = SECCOMP_FLAGS.iter().map(|(name, _)| *name).collect();
    let supported: Vec<&str> = SECCOMP_FLAGS
        .iter()
        .filter(|(_, bits)| stanza_sys::seccomp_takes(*bits))
        .map(|(name, _)| *name)
        .collect();
    json!({
        "enabled": true,
        "actions": ACTIONS,
        "operators": OPERATORS,
        "archs": ARCHITECTURES,
        "knownFlags": known,
        "supportedFlags": supported,
    })
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use serde::de::DeserializeOwned;
    use stanza_spec::oci::runtime::{
        Arch, Features, LinuxNamespaceType, LinuxSeccompAction, LinuxSeccompFilterFlag, LinuxSeccompOperator,
        MemoryPolicyFlagType, MemoryPolicyModeType,
    };

    use super::*;

    /// All names that a type of the configuration accepts, from what it says of one that it does not.
    fn accepted<T: DeserializeOwned + Debug>() -> Vec<String> {
        let error = serde_json::from_value::<T>(json!("nonsense")).unwrap_err().to_string();
        let (_, names) = error.split_once("expected one of").unwrap();
        let mut names: Vec<String> = names.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn the_lists_are_what_a_configuration_may_say() {
        assert_eq!(accepted::<LinuxNamespaceType>(), NAMESPACES);
        assert_eq!(accepted::<LinuxSeccompAction>(), ACTIONS);
        assert_eq!(accepted::<LinuxSeccompOperator>(), OPERATORS);
        assert_eq!(accepted::<LinuxSeccompFilterFlag>(), SECCOMP_FLAGS.map(|(name, _)| name));
        assert_eq!(accepted::<MemoryPolicyModeType>(), MEMORY_MODES);
        assert_eq!(accepted::<MemoryPolicyFlagType>(), MEMORY_FLAGS);
        // The specification has no name for the machine's own.
        let architectures: Vec<String> =
            accepted::<Arch>().into_iter().filter(|name| name != "SCMP_ARCH_NATIVE").collect();
        assert_eq!(architectures, ARCHITECTURES);
    }

    #[test]
    fn the_document_is_the_specifications() {
        let features: Features = serde_json::from_value(document()).unwrap();
        assert_eq!(serde_json::to_value(features).unwrap(), document());
    }

    #[test]
    fn a_flag_that_no_kernel_knows_is_not_supported() {
        assert!(!stanza_sys::seccomp_takes(1 << 30));
        assert!(stanza_sys::seccomp_takes(1));
    }
}
