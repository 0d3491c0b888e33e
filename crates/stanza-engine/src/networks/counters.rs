//! What went through the network devices of a running container, as the kernel counts it.

use std::fs;

use stanza_spec::{ContainerId, NetworkMode};

use super::NetworkError;
use crate::Engine;
use crate::container::State;
use crate::database::Record;

/// The counters of one device, seen from inside, since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceCounters {
    /// The device, as `eth0`.
    pub name: String,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Packets received that were broken.
    pub rx_errors: u64,
    /// Packets received that nobody took.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
    /// Packets that were not sent for want of room.
    pub tx_dropped: u64,
}

impl Engine {
    /// The counters of a container's devices but for loopback; none when it does not run, or has none of its own.
    ///
    /// # Errors
    /// When there is no such container, or its state cannot be read.
    pub fn network_counters(&mut self, id: &ContainerId) -> Result<Vec<InterfaceCounters>, NetworkError> {
        let record = self.record(id)?;
        let state = self.state(&record)?;
        Ok(state.map(|state| self.counters_of(&record, &state)).unwrap_or_default())
    }

    /// The same of a container on record.
    pub(crate) fn counters_of(&self, record: &Record, state: &State) -> Vec<InterfaceCounters> {
        let State::Running(running) = state else { return Vec::new() };
        if self.network_mode(&record.config) == NetworkMode::Host {
            return Vec::new();
        }
        // One that ended a moment ago has no counters any more.
        parse(&fs::read_to_string(format!("/proc/{}/net/dev", running.pid)).unwrap_or_default())
    }
}

/// `/proc/net/dev` (`man 5 proc_pid_net`): two lines of headings, then the device and sixteen numbers, eight of each way.
fn parse(text: &str) -> Vec<InterfaceCounters> {
    let device = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        let [
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            _,
            _,
            _,
            _,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
            ..,
        ] = numbers[..]
        else {
            return None;
        };
        Some(InterfaceCounters {
            name: name.trim().to_owned(),
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
        })
    };
    text.lines().skip(2).filter_map(device).filter(|device| device.name != "lo").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read_without_loopback() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
            lo:     100       2    0    0    0     0          0         0      100       2    0    0    0     0       0          0\n  \
            eth0:    1024      10    1    2    0     0          0         3     2048      20    4    5    0     0       0          0\n";
        let expected = InterfaceCounters {
            name: "eth0".to_owned(),
            rx_bytes: 1024,
            rx_packets: 10,
            rx_errors: 1,
            rx_dropped: 2,
            tx_bytes: 2048,
            tx_packets: 20,
            tx_errors: 4,
            tx_dropped: 5,
        };
        assert_eq!(parse(text), [expected]);
        assert_eq!(parse(""), []);
    }
}
