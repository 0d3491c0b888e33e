//! Making the rules anew, after somebody emptied them (`nft flush ruleset`), or the host's firewall changed.

use stanza_spec::{Classify, ErrorKind};

use crate::netlink::{Conversation, Family, NetlinkError};
use crate::{EndpointsPlan, Firewall, PortMap, firewall, rules};

/// The rules could not be made anew; they are as before.
#[derive(Debug, thiserror::Error)]
#[error("cannot make the nft tables `{}` and `{}` anew", rules::HOST, rules::GUARD)]
pub struct ReloadError {
    #[from]
    source: NetlinkError,
}

impl Classify for ReloadError {
    fn kind(&self) -> ErrorKind {
        self.source.kind()
    }

    fn hint(&self) -> Option<String> {
        self.source.hint()
    }
}

/// Makes both tables anew in one transaction, with what `live` containers have and nothing else, and returns what the host's
/// firewall does. The chain `user` stays, if it is still there.
///
/// A container that starts makes the tables too when they are gone, but puts only itself into them: what others
/// published is closed, and they are not kept to their addresses, until this is called. It changes no devices.
///
/// The caller has to keep containers from starting and ending meanwhile: one that `live` does not name is forgotten.
///
/// # Errors
///
/// Nothing is changed then.
pub fn reload(live: &[(EndpointsPlan, Vec<PortMap>)]) -> Result<Firewall, ReloadError> {
    let mut netfilter = Conversation::open(Family::Netfilter)?;
    let firewall = firewall::look(&mut netfilter)?;
    rules::restore(&mut netfilter, live, &firewall.families())?;
    Ok(firewall)
}
