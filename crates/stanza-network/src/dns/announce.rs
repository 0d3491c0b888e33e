//! A container's own names, in the networks whose names its resolver tells.

use std::net::IpAddr;

use super::ResolverNetwork;
use crate::names::{Names, NamesError};
use crate::{Endpoint, EndpointsPlan};

/// Makes the container found in its networks by the names of its endpoints. Done again, also with other names or
/// addresses, it replaces what was there under the same names.
///
/// # Errors
///
/// When the kernel refuses; some names may be there then.
pub fn announce(plan: &EndpointsPlan) -> Result<(), NamesError> {
    for (endpoint, network) in places(plan) {
        let addresses: Vec<IpAddr> = endpoint.addresses().collect();
        Names::create(&network.directory)?.announce(&plan.container, &endpoint.names, &addresses)?;
    }
    Ok(())
}

/// Takes the container's names away again, in all networks of the plan; what failed is told, the rest is done.
pub fn withdraw(plan: &EndpointsPlan) -> Vec<NamesError> {
    let mut errors = Vec::new();
    for (endpoint, network) in places(plan) {
        let addresses: Vec<IpAddr> = endpoint.addresses().collect();
        let withdrawn = Names::open(&network.directory).and_then(|names| match names {
            Some(names) => names.withdraw(&plan.container, &endpoint.names, &addresses),
            None => Ok(()),
        });
        errors.extend(withdrawn.err());
    }
    errors
}

/// Takes away what `old` announced and `new` does not: names of networks that are left, or are others now.
pub fn withdraw_changed(old: &EndpointsPlan, new: &EndpointsPlan) -> Vec<NamesError> {
    let stays = |endpoint: &Endpoint| {
        places(new).any(|(other, _)| {
            other.network.id == endpoint.network.id
                && other.names == endpoint.names
                && other.addresses().eq(endpoint.addresses())
        })
    };
    let endpoints = old.endpoints.iter().filter(|endpoint| !stays(endpoint)).cloned().collect();
    withdraw(&EndpointsPlan { endpoints, ..old.clone() })
}

fn places(plan: &EndpointsPlan) -> impl Iterator<Item = (&Endpoint, &ResolverNetwork)> {
    let networks = plan.resolver.iter().flat_map(|resolver| &resolver.networks);
    networks.filter_map(|network| {
        let endpoint = plan.endpoints.iter().find(|endpoint| endpoint.network.id == network.id)?;
        Some((endpoint, network))
    })
}
