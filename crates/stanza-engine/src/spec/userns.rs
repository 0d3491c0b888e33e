//! User namespaces: which ids of the machine a container's ids are.

use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder};

/// Ids in one container's range.
pub(crate) const RANGE: u32 = 65_536;

/// Where ranges come from when /etc/subuid grants none: far above what distributions give to users, who start at
/// 100000 and seldom pass 600100000.
pub(crate) const DEFAULT_POOL: (u32, u32) = (0x4000_0000, 0x4000_0000);

/// The users of /etc/subuid whose ranges a root's engine may use, the first that is there.
const OWNERS: [&str; 2] = ["stanza", "containers"];

/// The first id and number of ids that /etc/subuid (or /etc/subgid) grants for containers; `None` when it grants
/// less than one container's range.
pub(crate) fn pool(subid: &str) -> Option<(u32, u32)> {
    OWNERS.iter().find_map(|owner| {
        subid.lines().find_map(|line| {
            let mut fields = line.split(':');
            if fields.next()? != *owner {
                return None;
            }
            let first = fields.next()?.trim().parse().ok()?;
            let length = fields.next()?.trim().parse().ok()?;
            (length >= RANGE && u32::checked_add(first, length).is_some()).then_some((first, length))
        })
    })
}

/// One mapping: `size` ids from `container` on are those of the machine from `host` on.
pub(crate) fn mapping(container: u32, host: u32, size: u32) -> LinuxIdMapping {
    LinuxIdMappingBuilder::default()
        .container_id(container)
        .host_id(host)
        .size(size)
        .build()
        .unwrap_or_default()
}

/// The mappings of a container in which `own` stays what it is: inside an engine's user namespace of `size` ids, whose
/// id 0 is the calling user, every other id moves up or down by one.
pub(crate) fn keep_id(own: u32, size: u32) -> Vec<LinuxIdMapping> {
    let below = own.min(size.saturating_sub(1));
    let above = size.saturating_sub(1).saturating_sub(below);
    let mut mappings = Vec::with_capacity(3);
    if below > 0 {
        mappings.push(mapping(0, 1, below));
    }
    mappings.push(mapping(own, 0, 1));
    if above > 0 {
        mappings.push(mapping(own + 1, below + 1, above));
    }
    mappings
}

/// A line of `/proc/self/uid_map` that maps id 0: the outer id, and how many ids the namespace has in all.
pub(crate) fn outer(map: &str) -> Option<(u32, u32)> {
    let rows: Vec<[u32; 3]> = map
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace().map(|field| field.parse::<u32>().ok());
            Some([fields.next()??, fields.next()??, fields.next()??])
        })
        .collect();
    let own = rows.iter().find(|row| row[0] == 0)?[1];
    Some((own, rows.iter().map(|row| row[2]).fold(0, u32::saturating_add)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subid_files_grant_a_pool() {
        assert_eq!(
            pool("user:100000:65536\ncontainers:2147483647:2147483648\n"),
            Some((2_147_483_647, 2_147_483_648))
        );
        assert_eq!(pool("containers:1:70000\nstanza:5:65536"), Some((5, 65536)));
        assert_eq!(pool("stanza:5:10\nbroken\nstanza:x:y"), None);
        assert_eq!(pool("stanza:4294967295:65536"), None);
    }

    #[test]
    fn keep_id_leaves_the_callers_id_and_moves_the_rest() {
        let numbers = |own, size| {
            keep_id(own, size).iter().map(|m| (m.container_id(), m.host_id(), m.size())).collect::<Vec<_>>()
        };
        assert_eq!(numbers(1000, 65537), [(0, 1, 1000), (1000, 0, 1), (1001, 1001, 64536)]);
        assert_eq!(numbers(0, 10), [(0, 0, 1), (1, 1, 9)]);
        assert_eq!(numbers(5_000_000, 65537), [(0, 1, 65536), (5_000_000, 0, 1)]);
        assert_eq!(numbers(1000, 1), [(1000, 0, 1)]);
    }

    #[test]
    fn the_outer_id_is_read_from_the_kernels_map() {
        assert_eq!(
            outer("         0       1000          1\n         1     100000      65536\n"),
            Some((1000, 65537))
        );
        assert_eq!(outer("         0          0 4294967295\n"), Some((0, u32::MAX)));
        assert_eq!(outer(""), None);
    }
}
