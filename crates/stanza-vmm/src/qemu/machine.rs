//! The guest kernel's command line.
//!
//! For Debian's cloud kernels; what a whole boot costs under emulation is measured by `examples/measure.rs`.

use crate::spec::Accelerator;

/// Parts of the kernel that a sandbox does not use: keys of the distribution, self-encrypting drives, an entropy source that
/// the host's replaces, and keys in the file system. Emulated, the first three take 0.6 s of a boot (`initcall_debug`).
const UNUSED: &str =
    "initcall_blacklist=load_system_certificate_list,sed_opal_init,jent_mod_init,init_encrypted";

/// The command line. `tsc_khz` is the frequency of the host's time stamp counter.
pub(crate) fn kernel_command_line(accelerator: Accelerator, tsc_khz: Option<u64>) -> String {
    let mut words = vec![
        // A panic ends the machine at once: QEMU runs with `-no-reboot`.
        "panic=-1".to_owned(),
        "reboot=t".to_owned(),
        "quiet".to_owned(),
        // There is no keyboard controller to look for.
        "i8042.noaux".to_owned(),
        "i8042.nokbd".to_owned(),
        "i8042.nopnp".to_owned(),
        "i8042.dumbkbd".to_owned(),
        "cryptomgr.notests".to_owned(),
        "random.trust_cpu=on".to_owned(),
        UNUSED.to_owned(),
        "console=ttyS0".to_owned(),
    ];
    if accelerator == Accelerator::Tcg {
        // Without a paravirtual clock the kernel calibrates by a timer that this machine does not have, and hangs.
        words.push(format!("tsc_early_khz={}", tsc_khz.unwrap_or(DEFAULT_TSC_KHZ)));
        words.push("tsc=reliable".to_owned());
        words.push("no_timer_check".to_owned());
    }
    words.join(" ")
}

/// For a host that does not tell its frequency. The guest's clock then runs as wrong as this is.
const DEFAULT_TSC_KHZ: u64 = 2_500_000;

/// The frequency of this host's time stamp counter, by what it tells of its processor: emulation hands the counter on.
#[must_use]
pub fn host_tsc_khz() -> Option<u64> {
    tsc_khz_of(&stanza_sys::read_proc("/proc/cpuinfo").ok()?)
}

/// A guest's or a server's processor runs at one frequency; a laptop's line changes with its load, and the model's name
/// has the nominal one (`@ 2.60GHz`).
fn tsc_khz_of(cpuinfo: &str) -> Option<u64> {
    let value = |key: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(key))?;
        line.split_once(':').map(|(_, value)| value.trim())
    };
    let nominal = value("model name").and_then(|name| name.rsplit_once("@ ")).and_then(|(_, frequency)| {
        frequency.strip_suffix("GHz")?.trim().parse::<f64>().ok().map(|value| value * 1000.0)
    });
    let mhz = nominal.or_else(|| value("cpu MHz")?.parse().ok())?;
    if !(100.0..100_000.0).contains(&mhz) {
        return None;
    }
    format!("{:.0}", mhz * 1000.0).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frequency_is_the_nominal_one_where_it_is_told() {
        let text = "processor\t: 0\nmodel name\t: AMD EPYC\ncpu MHz\t\t: 2596.132\n";
        assert_eq!(tsc_khz_of(text), Some(2_596_132));
        let text = "model name\t: Intel(R) Core(TM) i7 CPU @ 2.60GHz\ncpu MHz\t\t: 800.000\n";
        assert_eq!(tsc_khz_of(text), Some(2_600_000));
        assert_eq!(tsc_khz_of("cpu MHz : -1\n"), None);
        assert_eq!(tsc_khz_of(""), None);
    }

    #[test]
    fn emulation_is_told_its_clock() {
        let line = kernel_command_line(Accelerator::Tcg, Some(2_596_132));
        assert!(line.ends_with("console=ttyS0 tsc_early_khz=2596132 tsc=reliable no_timer_check"), "{line}");
        assert!(!kernel_command_line(Accelerator::Kvm, Some(2_596_132)).contains("tsc"));
    }
}
