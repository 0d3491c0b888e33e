//! The tree of a layer in memory. Paths are resolved as the kernel resolves them beneath a root, so that a layer becomes
//! the same tree whether it is unpacked into a directory or written as an image.

use std::collections::{BTreeMap, HashMap, VecDeque};

use rustix::io::Errno;

use super::format::Chunk;
use crate::apply::tree::{LINKS, parts};

/// The number of a node.
pub(crate) type Id = u32;

/// The root directory.
pub(crate) const ROOT: Id = 0;

/// Nodes of one layer, replaced ones included.
pub(crate) const NODES: usize = 2 << 20;

/// Bytes of memory that names, attributes and maps take.
pub(crate) const BYTES: usize = 256 << 20;

/// Bytes of a name, as everywhere in Linux.
const NAME: usize = 255;

/// A file, directory, ….
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    /// Permission bits.
    pub(crate) mode: u16,
    pub(crate) owner: (u32, u32),
    pub(crate) time: (i64, u32),
    /// Places in [`Tree::xattrs`].
    pub(crate) xattrs: Vec<u32>,
}

/// What a node is.
#[derive(Debug)]
pub(crate) enum Kind {
    Directory(Directory),
    File {
        size: u64,
        content: FileContent,
    },
    Symlink(Box<[u8]>),
    /// A device with its number as the kernel encodes it.
    Device {
        block: bool,
        number: u32,
    },
    Fifo,
    /// A character device 0/0.
    Whiteout,
}

/// A directory's entries.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) parent: Id,
    pub(crate) entries: BTreeMap<Box<[u8]>, Id>,
    /// It hides what lower layers have.
    pub(crate) opaque: bool,
}

/// Where a file's bytes are.
#[derive(Debug)]
pub(crate) enum FileContent {
    /// In the archive, from this block on.
    Tar { block: u32 },
    /// In the image itself, in blocks that follow each other from this one on.
    Own { block: u32 },
    /// In pieces of a block times two to the power `bits`.
    Chunks { bits: u8, chunks: Vec<Chunk> },
}

/// A layer as it is read.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) nodes: Vec<Node>,
    /// Each attribute once, with the number of nodes that have had it.
    pub(crate) xattrs: Vec<Xattr>,
    known_xattrs: HashMap<Xattr, u32>,
    pub(crate) bytes: usize,
    /// The directory of the last entry: archives are sorted by directory, mostly.
    parent: Option<(Vec<u8>, Id)>,
}

/// Name and value of an extended attribute.
pub(crate) type Xattr = (Box<[u8]>, Box<[u8]>);

/// Why a node is not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// What the kernel would say.
    Errno(Errno),
    /// There are [`NODES`], or they take [`BYTES`].
    Full,
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Refusal {
        Refusal::Errno(errno)
    }
}

impl Tree {
    pub(crate) fn new() -> Tree {
        let mut tree = Tree {
            nodes: Vec::new(),
            xattrs: Vec::new(),
            known_xattrs: HashMap::new(),
            bytes: 0,
            parent: None,
        };
        tree.nodes.push(implied(ROOT, false));
        tree
    }

    pub(crate) fn node(&self, id: Id) -> &Node {
        &self.nodes[id as usize]
    }

    pub(crate) fn node_mut(&mut self, id: Id) -> &mut Node {
        &mut self.nodes[id as usize]
    }

    pub(crate) fn directory(&self, id: Id) -> Option<&Directory> {
        match &self.node(id).kind {
            Kind::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    pub(crate) fn directory_mut(&mut self, id: Id) -> Option<&mut Directory> {
        match &mut self.node_mut(id).kind {
            Kind::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    /// The entry `name` of a directory.
    pub(crate) fn entry(&self, directory: Id, name: &[u8]) -> Option<Id> {
        self.directory(directory)?.entries.get(name).copied()
    }

    /// Adds a node, in place of what is there.
    pub(crate) fn add(&mut self, parent: Id, name: &[u8], node: Node) -> Result<Id, Refusal> {
        if self.nodes.len() >= NODES {
            return Err(Refusal::Full);
        }
        let id = Id::try_from(self.nodes.len()).map_err(|_| Refusal::Full)?;
        self.charge(size_of::<Node>())?;
        self.link(parent, name, id)?;
        self.nodes.push(node);
        Ok(id)
    }

    /// Gives a node one more name, in place of what is there.
    pub(crate) fn link(&mut self, parent: Id, name: &[u8], node: Id) -> Result<(), Refusal> {
        if name.len() > NAME {
            return Err(Errno::NAMETOOLONG.into());
        }
        self.charge(name.len() + 48)?;
        let directory = self.directory_mut(parent).ok_or(Errno::NOTDIR)?;
        if directory.entries.insert(name.into(), node).is_some() {
            // The way to the remembered directory may have led through what is gone.
            self.parent = None;
        }
        Ok(())
    }

    /// Takes away what has a name, if anything has.
    pub(crate) fn unlink(&mut self, parent: Id, name: &[u8]) {
        if self.directory_mut(parent).is_some_and(|directory| directory.entries.remove(name).is_some()) {
            // The way to the remembered directory may have led through it.
            self.parent = None;
        }
    }

    /// Whether `directory` lies in `above`, or is it.
    pub(crate) fn lies_in(&self, directory: Id, above: Id) -> bool {
        let mut at = directory;
        while at != above {
            match self.directory(at) {
                Some(Directory { parent, .. }) if at != ROOT => at = *parent,
                _ => return false,
            }
        }
        true
    }

    /// The place of an attribute in the table.
    pub(crate) fn xattr(&mut self, name: &[u8], value: &[u8]) -> Result<u32, Refusal> {
        let xattr: Xattr = (name.into(), value.into());
        if let Some(known) = self.known_xattrs.get(&xattr) {
            return Ok(*known);
        }
        self.charge(2 * (name.len() + value.len()) + 96)?;
        let place = u32::try_from(self.xattrs.len()).map_err(|_| Refusal::Full)?;
        self.xattrs.push(xattr.clone());
        self.known_xattrs.insert(xattr, place);
        Ok(place)
    }

    /// Counts memory.
    pub(crate) fn charge(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.bytes += bytes;
        if self.bytes > BYTES { Err(Refusal::Full) } else { Ok(()) }
    }

    /// The directory `path`, made when it is not there; links of the layer are followed as if its root were `/`.
    pub(crate) fn parent(&mut self, path: &[u8]) -> Result<Id, Refusal> {
        if path.is_empty() {
            return Ok(ROOT);
        }
        if let Some((known, directory)) = &self.parent
            && known == path
        {
            return Ok(*directory);
        }
        let directory = self.walk(path, true)?;
        self.parent = Some((path.to_vec(), directory));
        Ok(directory)
    }

    /// The directory `path` when it is there.
    pub(crate) fn find(&mut self, path: &[u8]) -> Result<Id, Refusal> {
        self.walk(path, false)
    }

    fn walk(&mut self, path: &[u8], make: bool) -> Result<Id, Refusal> {
        let mut left: VecDeque<Vec<u8>> = parts(path).collect();
        let mut at = ROOT;
        let mut links = 0;
        while let Some(part) = left.pop_front() {
            if part == b".." {
                at = self.directory(at).map_or(ROOT, |directory| directory.parent);
                continue;
            }
            if part.len() > NAME {
                return Err(Errno::NAMETOOLONG.into());
            }
            let found = self.entry(at, &part);
            match found.map(|id| (id, &self.node(id).kind)) {
                Some((id, Kind::Directory(_))) => at = id,
                Some((_, Kind::Symlink(target))) => {
                    links += 1;
                    if links > LINKS {
                        return Err(Errno::LOOP.into());
                    }
                    if target.starts_with(b"/") {
                        at = ROOT;
                    }
                    for part in parts(target).collect::<Vec<_>>().into_iter().rev() {
                        left.push_front(part);
                    }
                }
                Some((_, Kind::Whiteout)) if make => at = self.add(at, &part, implied(at, true))?,
                None if make => at = self.add(at, &part, implied(at, false))?,
                None => return Err(Errno::NOENT.into()),
                Some(_) => return Err(Errno::NOTDIR.into()),
            }
        }
        Ok(at)
    }
}

/// A directory that the layer does not describe.
pub(crate) fn implied(parent: Id, opaque: bool) -> Node {
    Node {
        kind: Kind::Directory(Directory { parent, entries: BTreeMap::new(), opaque }),
        mode: 0o755,
        owner: (0, 0),
        time: (0, 0),
        xattrs: Vec::new(),
    }
}
