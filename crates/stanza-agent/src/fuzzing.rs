//! Both sides of the protocol, fed with bytes: for the fuzzer.

use stanza_spec::oci::runtime::LinuxResources;

use crate::guest::Orders;
use crate::host::{Event, Session};
use crate::wire::{ExecPlan, GuestAddress, GuestConfig, MAX_REQUEST, ProtocolError};

/// A host that has asked for everything that there is to be asked for.
#[derive(Debug)]
pub struct HostSide {
    session: Session,
    reacts: bool,
}

impl HostSide {
    /// With tasks 1 to 3 processes, and 4 a connection. One that `reacts` does what a monitor does.
    #[must_use]
    pub fn new(exec: &ExecPlan, reacts: bool) -> HostSide {
        let mut session = Session::new();
        let _ = session.configure(GuestConfig::default());
        for task in 1..4 {
            let _ = session.exec(task, exec.clone());
        }
        let _ = session.dial(4, GuestAddress::Unix("/s".into()));
        let _ = (session.stats(), session.update(LinuxResources::default()));
        HostSide { session, reacts }
    }

    /// Takes bytes of the guest; the number of events.
    ///
    /// # Errors
    /// When they are not of the protocol.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<usize, ProtocolError> {
        let events = self.session.receive(bytes)?;
        for event in events.iter().filter(|_| self.reacts) {
            match event {
                Event::Output { task, stream, bytes } => self.session.consumed(*task, *stream, bytes.len()),
                Event::Query { query, .. } => self.session.answer(*query, b"answer"),
                Event::Started { task, .. } => drop(self.session.write_stdin(*task, b"hello")),
                _ => {}
            }
        }
        Ok(events.len())
    }

    /// How many bytes wait for the guest.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.session.waiting().len()
    }
}

/// Takes bytes of the host; the number of orders that a guest would follow.
///
/// # Errors
/// When they are not of the protocol.
pub fn guest_side(bytes: &[u8]) -> Result<usize, ProtocolError> {
    let mut orders = Orders::new();
    let mut count = 0;
    for piece in bytes.chunks(MAX_REQUEST) {
        orders.extend(piece);
        while orders.next()?.is_some() {
            count += 1;
        }
    }
    Ok(count)
}
