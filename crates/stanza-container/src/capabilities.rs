//! Capabilities by name (capabilities(7)).

use rustix::thread::CapabilitySet;

/// All names in the kernel's order; the index is the number.
pub const ALL_CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The set of the given names (`CAP_NAME`); names the kernel does not know are left out.
pub fn capability_set<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> CapabilitySet {
    let mut bits = 0u64;
    for name in names {
        if let Some(number) = ALL_CAPABILITIES.iter().position(|known| *known == name.as_ref()) {
            bits |= 1 << number;
        }
    }
    CapabilitySet::from_bits_retain(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_at_their_numbers() {
        let set = capability_set(["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_NOPE"]);
        assert_eq!(set.bits(), 1 | 1 << 21);
        assert_eq!(capability_set(["CAP_CHECKPOINT_RESTORE"]).bits(), 1 << 40);
    }
}
