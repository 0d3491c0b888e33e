//! What the guest is told: the container's plan in words that hold behind another kernel.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use stanza_agent::{
    ContainerPlan, Disk, FileSystem, GuestConfig, GuestFile, Hex, Interface, Root, Route, Upper,
};
use stanza_container::CopyUp;
use stanza_container::seccomp::Filter;
use stanza_network::{Endpoint, NetworkPlan};
use stanza_spec::oci::runtime::{LinuxNamespaceType, Mount, Spec};

use super::shares::{LONGEST_FILE, Shared};
use crate::frame::Refusal;
use crate::plan::SandboxPlan;

/// What the guest calls its disks.
pub(super) const LOWER: &str = "lower";
/// See [`LOWER`].
pub(super) const UPPER: &str = "upper";
/// Where in the guest the host's files for the container are.
const FILES: &str = "/run/stanza/files";
/// Random bytes for a guest, which may know what others know.
const ENTROPY: usize = 64;

/// What makes this guest differ from others.
pub(super) fn config(plan: &SandboxPlan, shares: &[Shared]) -> Result<GuestConfig, Refusal> {
    let mut entropy = vec![0; ENTROPY];
    rustix::rand::getrandom(&mut entropy, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| Refusal::of_io("failed to get random bytes for the guest", &error.into()))?;
    let upper = match plan.machine.as_ref().and_then(|machine| machine.upper.as_ref()) {
        Some(_) => Upper::Disk(Disk { serial: UPPER.to_owned(), file_system: FileSystem::Ext4 }),
        None => Upper::Memory(None),
    };
    let (interfaces, dns_relay) = match &plan.network {
        NetworkPlan::Endpoints(plan) => {
            (plan.endpoints.iter().map(interface).collect(), plan.resolver.is_some())
        }
        _ => (Vec::new(), false),
    };
    let sysctls = plan.spec.linux().as_ref().and_then(|linux| linux.sysctl().clone()).unwrap_or_default();
    Ok(GuestConfig {
        entropy: Hex(entropy),
        // Its disks and cards came after its template had booted.
        rescan: true,
        clock: Some(stanza_sys::realtime()),
        hostname: plan.spec.hostname().clone(),
        machine_id: plan.id.as_str().get(..32).map(str::to_owned),
        root: Root::Overlay {
            lower: Disk { serial: LOWER.to_owned(), file_system: FileSystem::Erofs },
            upper,
        },
        shares: shares.iter().map(Shared::in_guest).collect(),
        disks: Vec::new(),
        interfaces,
        // The container shares the guest's network: these are the guest's.
        sysctls: sysctls
            .into_iter()
            .filter(|(name, _)| name.starts_with("net."))
            .map(|(name, value)| (name.replace('.', "/"), value))
            .collect::<BTreeMap<_, _>>(),
        dns_relay,
    })
}

/// An endpoint, as the guest is to have it.
fn interface(endpoint: &Endpoint) -> Interface {
    let subnet = |address: IpAddr| endpoint.network.subnet_of(address);
    let addresses = endpoint
        .addresses()
        .filter_map(|address| Some((address, subnet(address)?.subnet.prefix())))
        .collect();
    let any = |gateway: IpAddr| match gateway {
        IpAddr::V4(_) => (IpAddr::from([0; 4]), 0),
        IpAddr::V6(_) => (IpAddr::from([0; 16]), 0),
    };
    let gateways = endpoint.addresses().filter_map(|address| subnet(address)?.gateway);
    let routes = gateways
        .filter(|_| endpoint.default_route && !endpoint.network.internal)
        .map(|gateway| Route { to: any(gateway), gateway: Some(gateway) })
        .collect();
    let mac: Vec<String> = endpoint.mac.iter().map(|byte| format!("{byte:02x}")).collect();
    Interface {
        mac: mac.join(":"),
        name: endpoint.interface.clone(),
        mtu: endpoint.network.mtu,
        addresses,
        routes,
    }
}

/// The container inside.
pub(super) fn container(
    plan: &SandboxPlan,
    filter: Option<&Filter>,
    shares: &[Shared],
) -> Result<ContainerPlan, Refusal> {
    let mut files = Vec::new();
    let spec = spec(plan, &mut files, shares)?;
    Ok(ContainerPlan {
        spec,
        filter: filter.map(|filter| Hex(filter.to_bytes())),
        copy_up: copy_up(plan, shares),
        files,
        tty: plan.tty,
        console_size: plan.console_size,
        open_stdin: plan.open_stdin,
    })
}

/// The empty volumes, as the guest has them. One that is served read-only stays empty.
fn copy_up(plan: &SandboxPlan, shares: &[Shared]) -> Vec<CopyUp> {
    let there = |copy: &CopyUp| {
        let share = shares.iter().find(|share| share.is_for(&copy.destination) && !share.read_only())?;
        Some(CopyUp { source: share.path_in_guest(), destination: copy.destination.clone() })
    };
    plan.copy_up.iter().filter_map(there).collect()
}

fn spec(plan: &SandboxPlan, files: &mut Vec<GuestFile>, shares: &[Shared]) -> Result<Spec, Refusal> {
    let mut spec = plan.spec.clone();
    for mount in spec.mounts_mut().iter_mut().flatten() {
        if let Some(share) = shares.iter().find(|share| share.is_for(mount.destination())) {
            mount.set_source(Some(share.path_in_guest()));
        } else if let Some(source) = bound(mount) {
            let inside = PathBuf::from(FILES).join(files.len().to_string());
            files.push(file(&source, &inside)?);
            mount.set_source(Some(inside));
        }
    }
    if let Some(linux) = spec.linux_mut() {
        if let Some(namespaces) = linux.namespaces_mut() {
            namespaces
                .retain(|one| !matches!(one.typ(), LinuxNamespaceType::Network | LinuxNamespaceType::User));
        }
        linux.set_uid_mappings(None).set_gid_mappings(None).set_cgroups_path(None).set_seccomp(None);
        let sysctl = linux.sysctl().clone().unwrap_or_default();
        let left = sysctl.into_iter().filter(|(name, _)| !name.starts_with("net.")).collect();
        linux.set_sysctl(Some(left));
    }
    // The guest's kernel has its own.
    if let Some(process) = spec.process_mut() {
        process.set_apparmor_profile(None).set_selinux_label(None);
    }
    Ok(spec)
}

/// The host's path of a bind mount.
pub(super) fn bound(mount: &Mount) -> Option<PathBuf> {
    let options = mount.options().as_deref().unwrap_or_default();
    let binds =
        mount.typ().as_deref() == Some("bind") || options.iter().any(|one| one == "bind" || one == "rbind");
    mount.source().clone().filter(|_| binds)
}

/// A file of the host's, as the guest is to have it.
fn file(source: &Path, inside: &Path) -> Result<GuestFile, Refusal> {
    let failed = |error: io::Error| Refusal::of_io(&format!("failed to read `{}`", source.display()), &error);
    let metadata = fs::metadata(source).map_err(failed)?;
    if !metadata.is_file() || metadata.len() > LONGEST_FILE {
        return Err(Refusal {
            message: format!("`{}` cannot be mounted in a virtual machine", source.display()),
            kind: "unsupported".to_owned(),
            hint: Some("use `--isolation container`, or copy it into the image".to_owned()),
        });
    }
    let content = fs::read(source).map_err(failed)?;
    let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
    Ok(GuestFile { path: inside.to_owned(), content: Hex(content), mode })
}
