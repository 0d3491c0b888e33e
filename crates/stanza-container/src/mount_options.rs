//! The option words of an OCI mount, taken apart (runtime-spec, "Linux mount options").

use stanza_sys::MountAttributes;

use MountAttributes as A;

/// What the option words of one mount ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MountOptions {
    /// Attributes of the mount itself.
    pub(crate) attributes: MountAttributes,
    /// Attributes of the whole tree below (`rro`, `rnosuid`, …).
    pub(crate) recursive: MountAttributes,
    /// `bind` (false) or `rbind` (true).
    pub(crate) bind: Option<bool>,
    /// Propagation (`MS_*`) and whether it goes down the tree.
    pub(crate) propagation: Option<(u64, bool)>,
    /// Fill a tmpfs with what the image has there.
    pub(crate) copy_up: bool,
    /// Owners are translated: `idmap` (false) or `ridmap` (true).
    pub(crate) idmap: Option<bool>,
    /// Change the mount that is there instead of making one.
    pub(crate) remount: bool,
    /// A symbolic link as source is bound itself.
    pub(crate) source_link: bool,
    /// A symbolic link as destination is mounted on itself.
    pub(crate) destination_link: bool,
    /// A symbolic link as source is made again at the destination.
    pub(crate) copy_link: bool,
    /// What is left: the file system's own options, with or without value.
    pub(crate) data: Vec<(String, Option<String>)>,
}

const MS_UNBINDABLE: u64 = 1 << 17;
const MS_PRIVATE: u64 = 1 << 18;
/// A slave: hears of its master's mounts and tells nothing.
pub(crate) const MS_SLAVE: u64 = 1 << 19;
const MS_SHARED: u64 = 1 << 20;

/// The attribute bits that a word sets and clears. All but the last two have a recursive form with an `r` before.
const ATTRIBUTES: [(&str, u64, u64); 21] = [
    ("ro", A::READ_ONLY, 0),
    ("rw", 0, A::READ_ONLY),
    ("nosuid", A::NOSUID, 0),
    ("suid", 0, A::NOSUID),
    ("nodev", A::NODEV, 0),
    ("dev", 0, A::NODEV),
    ("noexec", A::NOEXEC, 0),
    ("exec", 0, A::NOEXEC),
    ("noatime", A::NOATIME, A::ATIME_MASK),
    ("atime", 0, A::ATIME_MASK),
    ("strictatime", A::STRICTATIME, A::ATIME_MASK),
    ("nostrictatime", 0, A::ATIME_MASK),
    ("relatime", 0, A::ATIME_MASK),
    ("norelatime", A::STRICTATIME, A::ATIME_MASK),
    ("nodiratime", A::NODIRATIME, 0),
    ("diratime", 0, A::NODIRATIME),
    ("nosymfollow", A::NOSYMFOLLOW, 0),
    ("symfollow", 0, A::NOSYMFOLLOW),
    ("defaults", 0, 0),
    ("silent", 0, 0),
    ("loud", 0, 0),
];
const WITHOUT_RECURSIVE_FORM: [&str; 3] = ["defaults", "silent", "loud"];

const PROPAGATIONS: [(&str, u64); 4] =
    [("private", MS_PRIVATE), ("slave", MS_SLAVE), ("shared", MS_SHARED), ("unbindable", MS_UNBINDABLE)];

/// What a word says about how a mount is made.
type Manner = fn(&mut MountOptions);

/// Words about how a mount is made.
const MANNERS: [(&str, Manner); 14] = [
    ("bind", |options| options.bind = Some(false)),
    ("rbind", |options| options.bind = Some(true)),
    ("idmap", |options| options.idmap = Some(false)),
    ("ridmap", |options| options.idmap = Some(true)),
    ("remount", |options| options.remount = true),
    ("tmpcopyup", |options| options.copy_up = true),
    ("copy-up", |options| options.copy_up = true),
    ("src-nofollow", |options| options.source_link = true),
    ("dest-nofollow", |options| options.destination_link = true),
    ("copy-symlink", |options| options.copy_link = true),
    ("acl", |_| {}),
    ("noacl", |_| {}),
    // Every file system that can count versions does.
    ("iversion", |_| {}),
    ("noiversion", |_| {}),
];

/// Words that every file system takes, given to it as they are (`fs_context`'s common flags).
const OF_ALL_FILE_SYSTEMS: [&str; 7] =
    ["sync", "async", "dirsync", "lazytime", "nolazytime", "mand", "nomand"];

/// Every option word that does not belong to one kind of file system, sorted.
#[must_use]
pub fn mount_option_words() -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for (word, ..) in ATTRIBUTES {
        words.push(word.to_owned());
        if !WITHOUT_RECURSIVE_FORM.contains(&word) {
            words.push(format!("r{word}"));
        }
    }
    words.extend(PROPAGATIONS.iter().flat_map(|(word, _)| [(*word).to_owned(), format!("r{word}")]));
    words.extend(MANNERS.iter().map(|(word, _)| (*word).to_owned()));
    words.extend(OF_ALL_FILE_SYSTEMS.map(str::to_owned));
    words.sort_unstable();
    words
}

fn attribute(word: &str) -> Option<(u64, u64)> {
    ATTRIBUTES.iter().find(|(name, ..)| *name == word).map(|(_, set, clear)| (*set, *clear))
}

fn recursive_attribute(word: &str) -> Option<(u64, u64)> {
    let word = word.strip_prefix('r').filter(|word| !WITHOUT_RECURSIVE_FORM.contains(word))?;
    attribute(word)
}

/// A word of propagation: its bits, and whether it goes down the tree.
pub(crate) fn propagation(word: &str) -> Option<(u64, bool)> {
    let find = |word: &str| PROPAGATIONS.iter().find(|(name, _)| *name == word).map(|(_, bits)| *bits);
    find(word)
        .map(|bits| (bits, false))
        .or_else(|| word.strip_prefix('r').and_then(find).map(|bits| (bits, true)))
}

impl MountOptions {
    pub(crate) fn parse<S: AsRef<str>>(words: &[S]) -> MountOptions {
        let mut options = MountOptions::default();
        for word in words.iter().map(AsRef::as_ref) {
            if let Some((set, clear)) = attribute(word) {
                merge(&mut options.attributes, set, clear);
            } else if let Some((set, clear)) = recursive_attribute(word) {
                merge(&mut options.recursive, set, clear);
            } else if let Some(found) = propagation(word) {
                options.propagation = Some(found);
            } else if let Some((_, apply)) = MANNERS.iter().find(|(name, _)| *name == word) {
                apply(&mut options);
            } else if !word.is_empty() {
                options.data.push(match word.split_once('=') {
                    Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                    None => (word.to_owned(), None),
                });
            }
        }
        options
    }

    /// Whether the mount binds what is there, and then whether with what is mounted below.
    pub(crate) fn binds(&self, kind: Option<&str>) -> Option<bool> {
        self.bind.or_else(|| (kind == Some("bind")).then_some(false))
    }
}

/// Later words win over earlier ones.
fn merge(attributes: &mut MountAttributes, set: u64, clear: u64) {
    attributes.set = attributes.set & !clear | set;
    attributes.clear = attributes.clear & !set | clear;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_attributes_propagation_and_data() {
        let options = MountOptions::parse(&[
            "rbind",
            "ro",
            "rnosuid",
            "rslave",
            "size=64k",
            "nosuid",
            "mode=755",
            "newinstance",
            "ridmap",
        ]);
        assert_eq!(options.bind, Some(true));
        assert_eq!(options.attributes.set, A::READ_ONLY | A::NOSUID);
        assert_eq!(options.recursive.set, A::NOSUID);
        assert_eq!(options.propagation, Some((MS_SLAVE, true)));
        assert_eq!(options.idmap, Some(true));
        assert_eq!(
            options.data,
            [
                ("size".into(), Some("64k".into())),
                ("mode".into(), Some("755".into())),
                ("newinstance".into(), None)
            ]
        );
    }

    #[test]
    fn the_last_word_wins() {
        let options = MountOptions::parse(&["ro", "rw", "noatime", "strictatime"]);
        assert_eq!(options.attributes.set, A::STRICTATIME);
        assert_eq!(options.attributes.clear, A::READ_ONLY | A::ATIME_MASK);
    }

    #[test]
    fn all_words_told_are_understood() {
        for word in mount_option_words() {
            let options = MountOptions::parse(&[&word]);
            let own = OF_ALL_FILE_SYSTEMS.contains(&word.as_str());
            assert_eq!(options.data.is_empty(), !own, "{word}");
        }
    }
}
