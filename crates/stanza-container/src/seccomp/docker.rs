//! Profiles as users write them: Docker's JSON, and the plain OCI form.
//!
//! Docker's form has conditions on each rule (`includes`, `excludes`: capabilities, architectures, a kernel version)
//! and a map of architectures to their sub-architectures. They are resolved here; what is left is the OCI form.

use serde::Deserialize;
use stanza_spec::oci::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSyscall,
};
use stanza_spec::{Classify, ErrorKind};

/// Why a text is not a seccomp profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// Not JSON, or a field, action, architecture or operator that does not exist.
    #[error("read the seccomp profile")]
    Json(#[source] serde_json::Error),
    /// Both ways of saying the architectures.
    #[error("the seccomp profile has both `architectures` and `archMap`")]
    TwoArchitectures,
    /// Both ways of naming the calls of a rule.
    #[error("a rule of the seccomp profile has both `name` and `names`: `{0}`")]
    TwoNames(String),
    /// `minKernel` must be `<major>.<minor>`.
    #[error(
        "`{0}` in `minKernel` of the seccomp profile is not a kernel version: expected `<major>.<minor>`"
    )]
    KernelVersion(String),
}

impl Classify for ProfileError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }

    fn hint(&self) -> Option<String> {
        match self {
            ProfileError::TwoArchitectures => Some("use either `architectures` or `archMap`".into()),
            ProfileError::TwoNames(_) => Some("use either `name` or `names`".into()),
            _ => None,
        }
    }
}

/// Either form, as JSON has it; unknown fields (`comment`, `$schema`) are passed over as Docker does.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    #[serde(default)]
    default_action: Option<LinuxSeccompAction>,
    #[serde(default)]
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Option<Vec<Arch>>,
    #[serde(default)]
    arch_map: Option<Vec<ArchitectureRow>>,
    #[serde(default)]
    flags: Option<Vec<LinuxSeccompFilterFlag>>,
    #[serde(default)]
    listener_path: Option<std::path::PathBuf>,
    #[serde(default)]
    listener_metadata: Option<String>,
    #[serde(default)]
    syscalls: Option<Vec<Rule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchitectureRow {
    architecture: Arch,
    #[serde(default)]
    sub_architectures: Option<Vec<Arch>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    names: Option<Vec<String>>,
    action: LinuxSeccompAction,
    #[serde(default)]
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<LinuxSeccompArg>>,
    #[serde(default)]
    includes: Option<Condition>,
    #[serde(default)]
    excludes: Option<Condition>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Condition {
    #[serde(default)]
    caps: Option<Vec<String>>,
    #[serde(default)]
    arches: Option<Vec<String>>,
    #[serde(default)]
    min_kernel: Option<String>,
}

/// Reads a profile in Docker's or the OCI's form for a container with `capabilities` (names such as
/// `CAP_SYS_ADMIN`) in its bounding set on `architecture`, in Go's or Rust's spelling: `amd64` or `x86_64`.
///
/// `Ok(None)` for a profile without default action and rules: no filter, as Docker has it.
///
/// # Errors
/// [`ProfileError`]; an unknown action, operator or architecture is told by its JSON source with line and column.
pub fn parse_docker_profile(
    json: &str,
    capabilities: &[&str],
    architecture: &str,
) -> Result<Option<LinuxSeccomp>, ProfileError> {
    let release = rustix::system::uname();
    let kernel = version(&release.release().to_string_lossy()).unwrap_or((0, 0));
    parse(json, capabilities, architecture, kernel)
}

pub(super) fn parse(
    json: &str,
    capabilities: &[&str],
    architecture: &str,
    kernel: (u32, u32),
) -> Result<Option<LinuxSeccomp>, ProfileError> {
    let profile: Profile = serde_json::from_str(json).map_err(ProfileError::Json)?;
    let rules = profile.syscalls.unwrap_or_default();
    if profile.default_action.is_none() && rules.is_empty() {
        return Ok(None);
    }
    let machine = go_architecture(architecture);
    let map = profile.arch_map.unwrap_or_default();
    let mut architectures = profile.architectures.unwrap_or_default();
    if !architectures.is_empty() && !map.is_empty() {
        return Err(ProfileError::TwoArchitectures);
    }
    if let Some(row) = map.into_iter().find(|row| seccomp_architecture(machine) == Some(row.architecture)) {
        architectures.push(row.architecture);
        architectures.extend(row.sub_architectures.unwrap_or_default());
    }

    let place = Place { capabilities, machine, kernel };
    let mut syscalls = Vec::with_capacity(rules.len());
    for rule in rules {
        let names = match (rule.name, rule.names) {
            (Some(name), None) => vec![name],
            (Some(name), Some(names)) if !name.is_empty() && !names.is_empty() => {
                return Err(ProfileError::TwoNames(name));
            }
            (Some(name), Some(names)) if names.is_empty() => vec![name],
            (_, names) => names.unwrap_or_default(),
        };
        let excluded = place.meets_any(&rule.excludes.unwrap_or_default())?;
        if excluded || !place.meets_all(&rule.includes.unwrap_or_default())? {
            continue;
        }
        let mut syscall = LinuxSyscall::default();
        syscall.set_names(names).set_action(rule.action).set_errno_ret(rule.errno_ret);
        syscall.set_args(rule.args.filter(|args| !args.is_empty()));
        syscalls.push(syscall);
    }

    let mut seccomp = LinuxSeccomp::default();
    seccomp
        // Go's zero value of an action, which libseccomp's users read as kill.
        .set_default_action(profile.default_action.unwrap_or(LinuxSeccompAction::ScmpActKill))
        .set_default_errno_ret(profile.default_errno_ret)
        .set_architectures(Some(architectures))
        .set_flags(profile.flags)
        .set_listener_path(profile.listener_path)
        .set_listener_metadata(profile.listener_metadata)
        .set_syscalls(Some(syscalls));
    Ok(Some(seccomp))
}

/// What conditions are about.
struct Place<'a> {
    capabilities: &'a [&'a str],
    machine: &'a str,
    kernel: (u32, u32),
}

impl Place<'_> {
    /// `includes`: one of the architectures, all of the capabilities, at least the kernel.
    fn meets_all(&self, condition: &Condition) -> Result<bool, ProfileError> {
        let arches = condition.arches.as_deref().unwrap_or_default();
        let caps = condition.caps.as_deref().unwrap_or_default();
        Ok((arches.is_empty() || self.is_any(arches))
            && caps.iter().all(|cap| self.capabilities.contains(&cap.as_str()))
            && self.kernel_reaches(condition)?.unwrap_or(true))
    }

    /// `excludes`: one of the architectures, or one of the capabilities, or at least the kernel.
    fn meets_any(&self, condition: &Condition) -> Result<bool, ProfileError> {
        let caps = condition.caps.as_deref().unwrap_or_default();
        Ok(self.is_any(condition.arches.as_deref().unwrap_or_default())
            || caps.iter().any(|cap| self.capabilities.contains(&cap.as_str()))
            || self.kernel_reaches(condition)?.unwrap_or(false))
    }

    fn is_any(&self, arches: &[String]) -> bool {
        arches.iter().any(|arch| go_architecture(arch) == self.machine)
    }

    fn kernel_reaches(&self, condition: &Condition) -> Result<Option<bool>, ProfileError> {
        let Some(text) = &condition.min_kernel else { return Ok(None) };
        let wanted = version(text).ok_or_else(|| ProfileError::KernelVersion(text.clone()))?;
        Ok(Some(self.kernel >= wanted))
    }
}

/// `<major>.<minor>` at the start of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Go's name of an architecture; names that are not known stay.
pub(super) fn go_architecture(name: &str) -> &str {
    match name {
        "x86_64" => "amd64",
        "x86" | "i386" => "386",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64",
        "loongarch64" => "loong64",
        other => other,
    }
}

fn seccomp_architecture(go: &str) -> Option<Arch> {
    Some(match go {
        "amd64" => Arch::ScmpArchX86_64,
        "386" => Arch::ScmpArchX86,
        "arm64" => Arch::ScmpArchAarch64,
        "arm" => Arch::ScmpArchArm,
        "riscv64" => Arch::ScmpArchRiscv64,
        "ppc64le" => Arch::ScmpArchPpc64le,
        "s390x" => Arch::ScmpArchS390x,
        "loong64" => Arch::ScmpArchLoongarch64,
        _ => return None,
    })
}
