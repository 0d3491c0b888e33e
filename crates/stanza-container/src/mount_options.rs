//! The option words of an OCI mount, taken apart (runtime-spec, "Linux mount options").

use stanza_sys::MountAttributes;

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
    /// What is left: the file system's own options, with or without value.
    pub(crate) data: Vec<(String, Option<String>)>,
}

const MS_UNBINDABLE: u64 = 1 << 17;
const MS_PRIVATE: u64 = 1 << 18;
const MS_SLAVE: u64 = 1 << 19;
const MS_SHARED: u64 = 1 << 20;

/// The attribute bits a word sets or clears.
fn attribute(word: &str) -> Option<(u64, u64)> {
    use MountAttributes as A;
    Some(match word {
        "ro" => (A::READ_ONLY, 0),
        "rw" => (0, A::READ_ONLY),
        "nosuid" => (A::NOSUID, 0),
        "suid" => (0, A::NOSUID),
        "nodev" => (A::NODEV, 0),
        "dev" => (0, A::NODEV),
        "noexec" => (A::NOEXEC, 0),
        "exec" => (0, A::NOEXEC),
        "noatime" => (A::NOATIME, A::ATIME_MASK),
        "strictatime" => (A::STRICTATIME, A::ATIME_MASK),
        "relatime" => (0, A::ATIME_MASK),
        "nodiratime" => (A::NODIRATIME, 0),
        "diratime" => (0, A::NODIRATIME),
        "nosymfollow" => (A::NOSYMFOLLOW, 0),
        "symfollow" => (0, A::NOSYMFOLLOW),
        _ => return None,
    })
}

fn propagation(word: &str) -> Option<(u64, bool)> {
    let (name, recursive) = word.strip_prefix('r').map_or((word, false), |name| (name, true));
    let bits = match name {
        "private" => MS_PRIVATE,
        "slave" => MS_SLAVE,
        "shared" => MS_SHARED,
        "unbindable" => MS_UNBINDABLE,
        _ => return None,
    };
    Some((bits, recursive))
}

impl MountOptions {
    pub(crate) fn parse<S: AsRef<str>>(words: &[S]) -> MountOptions {
        let mut options = MountOptions::default();
        for word in words.iter().map(AsRef::as_ref) {
            if let Some((set, clear)) = attribute(word) {
                merge(&mut options.attributes, set, clear);
            } else if let Some((set, clear)) = word.strip_prefix('r').and_then(attribute) {
                merge(&mut options.recursive, set, clear);
            } else if let Some(found) = propagation(word) {
                options.propagation = Some(found);
            } else {
                match word {
                    "bind" => options.bind = Some(false),
                    "rbind" => options.bind = Some(true),
                    "tmpcopyup" | "copy-up" => options.copy_up = true,
                    "defaults" | "" => {}
                    _ => options.data.push(match word.split_once('=') {
                        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                        None => (word.to_owned(), None),
                    }),
                }
            }
        }
        options
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
        ]);
        assert_eq!(options.bind, Some(true));
        assert_eq!(options.attributes.set, MountAttributes::READ_ONLY | MountAttributes::NOSUID);
        assert_eq!(options.recursive.set, MountAttributes::NOSUID);
        assert_eq!(options.propagation, Some((MS_SLAVE, true)));
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
        assert_eq!(options.attributes.set, MountAttributes::STRICTATIME);
        assert_eq!(options.attributes.clear, MountAttributes::READ_ONLY | MountAttributes::ATIME_MASK);
    }
}
