//! Who runs the guest's instructions on this host: found out by booting a guest.
//!
//! That `/dev/kvm` is there and takes calls proves little: some have been seen that run a few instructions and hang with a
//! kernel. So a guest is booted with it once for each kernel, QEMU and boot of the host; the verdict is remembered.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::boot::Boot;
use crate::qemu::{BootError, Process, Qemu};
use crate::spec::{Accelerator, Memory};
use crate::store::{self, Store, StoreError};
use crate::template::{Shape, plain_machine};

/// A guest that the processor runs is ready in a quarter of a second.
const WATCHDOG: Duration = Duration::from_secs(3);
const DEVICE: &str = "/dev/kvm";

/// The choice, and what to say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Who it is.
    pub accelerator: Accelerator,
    /// One line for the user, when it is not the processor.
    pub notice: Option<String>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Verdict {
    guest: String,
    qemu: String,
    host_boot: String,
    /// Why the processor cannot run the guest; absent when it can.
    refusal: Option<String>,
}

impl Accelerator {
    /// Chooses the processor if it runs this guest, emulation if not.
    ///
    /// # Errors
    /// When the verdict cannot be kept.
    pub fn choose(store: &Store, qemu: &Qemu, boot: &Boot) -> Result<Choice, StoreError> {
        choose(store, qemu, boot, Path::new(DEVICE), &|| probe(qemu, boot))
    }
}

fn choose(
    store: &Store,
    qemu: &Qemu,
    boot: &Boot,
    device: &Path,
    probe: &dyn Fn() -> Result<(), BootError>,
) -> Result<Choice, StoreError> {
    if let Err(error) = OpenOptions::new().read(true).write(true).open(device) {
        return Ok(emulated(&match error.kind() {
            io::ErrorKind::NotFound => format!("there is no `{}`", device.display()),
            _ => format!("cannot open `{}`: {error}", device.display()),
        }));
    }
    let path = store.path("accelerator.json");
    let host_boot =
        stanza_sys::boot_id().map_err(|error| StoreError::new("read", Path::new("/proc"), error))?;
    let known = || -> Option<Verdict> {
        let verdict: Verdict = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
        let same =
            verdict.guest == boot.key && verdict.qemu == qemu.identity && verdict.host_boot == host_boot;
        same.then_some(verdict)
    };
    let verdict = match known() {
        Some(verdict) => verdict,
        None => {
            let making = store.lock()?;
            match known() {
                Some(verdict) => verdict,
                None => {
                    let refusal = probe().err().map(|error| error.to_string());
                    let (guest, qemu) = (boot.key.clone(), qemu.identity.clone());
                    let verdict = Verdict { guest, qemu, host_boot: host_boot.clone(), refusal };
                    let text = serde_json::to_vec_pretty(&verdict)
                        .map_err(|error| StoreError::new("write", &path, error.into()))?;
                    store::write_whole(&making, &path, &text)?;
                    verdict
                }
            }
        }
    };
    Ok(match verdict.refusal {
        None => Choice { accelerator: Accelerator::Kvm, notice: None },
        Some(reason) => emulated(&format!("`{}` does not run a guest: {reason}", device.display())),
    })
}

fn emulated(reason: &str) -> Choice {
    let reason = reason.lines().next().unwrap_or_default();
    let notice =
        format!("{reason}; the virtual machine is emulated: slow, and no wall that QEMU's authors vouch for");
    Choice { accelerator: Accelerator::Tcg, notice: Some(notice) }
}

fn probe(qemu: &Qemu, boot: &Boot) -> Result<(), BootError> {
    let shape = Shape { accelerator: Accelerator::Kvm, memory_mib: 128, cpus: 1 };
    let mut machine = Process::start(qemu, plain_machine(boot, shape, Memory::Private), WATCHDOG)?;
    machine.wait_ready(&boot.greeting, WATCHDOG)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::kernel::Kernel;

    #[test]
    fn a_verdict_is_remembered_for_this_guest_and_told_in_one_line() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let qemu = Qemu { program: "/qemu".into(), version: (7, 2), identity: "7.2".into() };
        let boot = |key: &str| Boot {
            kernel: Kernel { vmlinux: "/k".into(), modules: "/m".into(), digest: "d".into() },
            initramfs: "/i".into(),
            key: key.into(),
            greeting: Vec::new(),
        };
        let probes = Cell::new(0);
        let probe = || {
            probes.set(probes.get() + 1);
            if probes.get() == 1 { Err(BootError::Silent(WATCHDOG)) } else { Ok(()) }
        };
        let device = root.path().join("kvm");
        let asked = |key: &str| choose(&store, &qemu, &boot(key), &device, &probe).unwrap();
        let absent = asked("a").notice.unwrap();
        assert!(
            absent.starts_with("there is no `/") && absent.contains("; the virtual machine is emulated"),
            "{absent}"
        );
        assert_eq!(probes.get(), 0);
        fs::write(&device, "").unwrap();
        for _ in 0..2 {
            let choice = asked("a");
            assert_eq!(choice.accelerator, Accelerator::Tcg);
            let notice = choice.notice.unwrap();
            assert!(notice.contains("the virtual machine's agent was not ready within 3 s"), "{notice}");
        }
        assert_eq!(probes.get(), 1);
        assert_eq!(asked("b"), Choice { accelerator: Accelerator::Kvm, notice: None });
        assert_eq!(probes.get(), 2);
        fs::write(store.path("accelerator.json"), "garbage").unwrap();
        asked("b");
        assert_eq!(probes.get(), 3);
    }
}
