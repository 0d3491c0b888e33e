//! Whose a file is, on both sides of a user namespace's boundary.

/// The user that an id without a place in the namespace shows as (`/proc/sys/kernel/overflowuid`).
const NOBODY: u32 = 65_534;

/// A run of ids: `count` of them, from `inside` on in the container and from `outside` on where its files are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// The first id in the container.
    pub inside: u32,
    /// The first id on the disk.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// How ids on the disk and in a container belong together. Empty: they are the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnerMap {
    /// Users.
    pub uids: Vec<IdRange>,
    /// Groups.
    pub gids: Vec<IdRange>,
}

impl OwnerMap {
    /// What the container calls these ids; nobody's, where it has no word for them.
    pub(crate) fn inside(&self, uid: u32, gid: u32) -> (u32, u32) {
        let find = |ranges: &[IdRange], id| {
            translate(ranges, id, |range| (range.outside, range.inside)).unwrap_or(NOBODY)
        };
        (find(&self.uids, uid), find(&self.gids, gid))
    }

    /// How these ids of the container are kept on the disk; `None` when the container cannot have them.
    pub(crate) fn outside(&self, uid: u32, gid: u32) -> Option<(u32, u32)> {
        let find = |ranges: &[IdRange], id| translate(ranges, id, |range| (range.inside, range.outside));
        Some((find(&self.uids, uid)?, find(&self.gids, gid)?))
    }
}

fn translate(ranges: &[IdRange], id: u32, sides: impl Fn(&IdRange) -> (u32, u32)) -> Option<u32> {
    if ranges.is_empty() {
        return Some(id);
    }
    ranges.iter().find_map(|range| {
        let (from, to) = sides(range);
        let step = id.checked_sub(from).filter(|step| *step < range.count)?;
        to.checked_add(step)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_translated_both_ways_and_strangers_are_nobody() {
        let range = |inside, outside, count| IdRange { inside, outside, count };
        let map = OwnerMap {
            uids: vec![range(0, 100_000, 10), range(10, 7, 1)],
            gids: vec![range(0, 200_000, 10)],
        };
        assert_eq!(map.inside(100_003, 200_009), (3, 9));
        assert_eq!(map.inside(7, 200_010), (10, NOBODY));
        assert_eq!(map.outside(3, 9), Some((100_003, 200_009)));
        assert_eq!(map.outside(11, 0), None);
        let same = OwnerMap::default();
        assert_eq!((same.inside(5, 6), same.outside(5, 6)), ((5, 6), Some((5, 6))));
    }
}
