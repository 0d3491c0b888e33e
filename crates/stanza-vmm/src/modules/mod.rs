//! The kernel's modules that a guest needs: found, decompressed, in the order in which they are loaded.
//!
//! What a module depends on is read in the module itself (`.modinfo`), not in `modules.dep`: an unpacked package has none,
//! `depmod` makes it when the package is installed.

mod elf;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::bounded;
use crate::compression::Compression;

/// The longest module that is read: the longest that are needed have 0.4 MB.
const MODULE_LIMIT: u64 = 16 << 20;
/// A modules directory has 1,100 modules in Debian's cloud kernels, 4,500 in its general ones.
const ENTRIES_LIMIT: usize = 100_000;
const DEPTH_LIMIT: usize = 16;

/// One module, ready for `finit_module`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its name, with `_` for `-`: `virtio_blk`.
    pub name: String,
    /// The ELF, decompressed; its signature is kept.
    pub content: Vec<u8>,
}

/// Why the modules cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ModulesError {
    /// The directory cannot be read.
    #[error("cannot read `{path}`")]
    Directory {
        /// The directory, or the file in it.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Neither built in nor a module.
    #[error("the kernel has no {}: they are neither in it nor in `{directory}`", quoted(.names))]
    Missing {
        /// What is missing.
        names: Vec<String>,
        /// The modules directory.
        directory: PathBuf,
    },
    /// A module that cannot be read.
    #[error("cannot read the module `{path}`")]
    Module {
        /// The module.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file that is no module.
    #[error("`{0}` is not a kernel module: it has no section `.modinfo`")]
    NotAModule(PathBuf),
    /// Modules that need each other.
    #[error("the module `{0}` depends on itself")]
    Circle(String),
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// What there is in one modules directory, `/lib/modules/VERSION`.
#[derive(Debug)]
pub struct Modules {
    directory: PathBuf,
    files: BTreeMap<String, PathBuf>,
    built_in: BTreeSet<String>,
}

impl Modules {
    /// Lists a modules directory.
    ///
    /// # Errors
    /// When `directory` or its `modules.builtin` cannot be read, or is larger than any kernel's.
    pub fn open(directory: &Path) -> Result<Modules, ModulesError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| ModulesError::Directory { path, source }
        };
        let list = directory.join("modules.builtin");
        let built_in = bounded::read_file(&list, MODULE_LIMIT).map_err(failed(&list))?;
        let built_in = String::from_utf8_lossy(&built_in)
            .lines()
            .filter_map(|line| module_name(Path::new(line)))
            .collect();
        let mut files = BTreeMap::new();
        let tree = directory.join("kernel");
        walk(&tree, DEPTH_LIMIT, &mut files).map_err(failed(&tree))?;
        Ok(Modules { directory: directory.to_owned(), files, built_in })
    }

    /// The modules `names` and all that they need, each once, after what it needs; without what is built in, and
    /// without what is in `loaded`.
    ///
    /// # Errors
    /// All names that the kernel does not have at once; a module that cannot be read.
    pub fn closure(&self, names: &[&str], loaded: &[Module]) -> Result<Vec<Module>, ModulesError> {
        let missing: Vec<String> =
            names.iter().filter(|name| !self.has(name)).map(|name| (*name).to_owned()).collect();
        if !missing.is_empty() {
            return Err(ModulesError::Missing { names: missing, directory: self.directory.clone() });
        }
        let mut closure = Closure {
            modules: self,
            states: loaded.iter().map(|module| (module.name.clone(), Visit::Done)).collect(),
            order: Vec::new(),
        };
        for name in names {
            closure.visit(name)?;
        }
        Ok(closure.order)
    }

    /// Whether the kernel has it, built in or as a module.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.built_in.contains(name) || self.files.contains_key(name)
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, ModulesError> {
        let failed = |source| ModulesError::Module { path: path.to_owned(), source };
        let bytes = bounded::read_file(path, MODULE_LIMIT).map_err(failed)?;
        match Compression::of(&bytes) {
            None => Ok(bytes),
            Some(compression) => compression.decompress(&bytes, MODULE_LIMIT).map_err(failed),
        }
    }
}

enum Visit {
    Begun,
    Done,
}

struct Closure<'a> {
    modules: &'a Modules,
    states: BTreeMap<String, Visit>,
    order: Vec<Module>,
}

impl Closure<'_> {
    fn visit(&mut self, name: &str) -> Result<(), ModulesError> {
        match self.states.get(name) {
            Some(Visit::Done) => return Ok(()),
            Some(Visit::Begun) => return Err(ModulesError::Circle(name.to_owned())),
            None => {}
        }
        if self.modules.built_in.contains(name) {
            return Ok(());
        }
        let Some(path) = self.modules.files.get(name) else {
            return Err(ModulesError::Missing {
                names: vec![name.to_owned()],
                directory: self.modules.directory.clone(),
            });
        };
        self.states.insert(name.to_owned(), Visit::Begun);
        let content = self.modules.read(path)?;
        let needed =
            elf::module_values(&content, "depends").ok_or_else(|| ModulesError::NotAModule(path.clone()))?;
        for needed in needed.iter().flat_map(|value| value.split(',')).filter(|needed| !needed.is_empty()) {
            self.visit(&canonical(needed))?;
        }
        // What it would rather have is loaded when there is such a module: these names may be aliases.
        for hint in elf::module_values(&content, "softdep").unwrap_or_default() {
            let before = hint.split_whitespace().skip_while(|word| *word != "pre:").skip(1);
            for wanted in before.take_while(|word| *word != "post:").map(canonical) {
                if self.modules.has(&wanted) {
                    self.visit(&wanted)?;
                }
            }
        }
        self.states.insert(name.to_owned(), Visit::Done);
        self.order.push(Module { name: name.to_owned(), content });
        Ok(())
    }
}

/// The kernel takes `-` and `_` in a module's name for the same.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// `virtio_blk` of `…/virtio-blk.ko.xz`; `None` for what is not a module.
fn module_name(path: &Path) -> Option<String> {
    let (name, rest) = path.file_name()?.to_str()?.split_once('.')?;
    matches!(rest, "ko" | "ko.xz" | "ko.zst" | "ko.gz").then(|| canonical(name))
}

fn walk(directory: &Path, depth: usize, files: &mut BTreeMap<String, PathBuf>) -> io::Result<()> {
    let too_large = || io::Error::other("it has more files or levels than a kernel's modules");
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), depth.checked_sub(1).ok_or_else(too_large)?, files)?;
        } else if let Some(name) = module_name(&entry.path()) {
            files.insert(name, entry.path());
        }
        if files.len() > ENTRIES_LIMIT {
            return Err(too_large());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::elf::tests::module;
    use super::*;

    fn directory(modules: &[(&str, &str)], built_in: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("modules.builtin"), built_in).unwrap();
        for (path, strings) in modules {
            let path = directory.path().join("kernel").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let mut content = module(strings);
            if path.extension().unwrap() == "zst" {
                content = zstd::encode_all(&content[..], 1).unwrap();
            }
            fs::write(path, content).unwrap();
        }
        directory
    }

    fn names(modules: &[Module]) -> Vec<&str> {
        modules.iter().map(|module| module.name.as_str()).collect()
    }

    #[test]
    fn each_module_comes_once_after_what_it_needs() {
        let directory = directory(
            &[
                ("fs/erofs/erofs.ko.zst", "depends=netfs,libcrc32c\0"),
                ("fs/netfs/netfs.ko", "depends=\0"),
                ("lib/libcrc32c.ko", "depends=\0softdep=pre: crc32c other-hint post: late\0"),
                ("lib/other-hint.ko", "depends=netfs\0"),
                ("drivers/late.ko", "depends=\0"),
                ("drivers/virtio-blk.ko", "depends=netfs\0"),
            ],
            "kernel/drivers/virtio/virtio.ko\n",
        );
        let modules = Modules::open(directory.path()).unwrap();
        let first = modules.closure(&["erofs", "virtio"], &[]).unwrap();
        assert_eq!(names(&first), ["netfs", "other_hint", "libcrc32c", "erofs"]);
        assert!(first.iter().all(|module| module.content.starts_with(b"\x7fELF")));
        assert_eq!(names(&modules.closure(&["virtio_blk", "erofs"], &first).unwrap()), ["virtio_blk"]);
    }

    #[test]
    fn what_is_missing_is_named_at_once_and_circles_are_refused() {
        let directory = directory(&[("a.ko", "depends=b\0"), ("b.ko", "depends=a\0")], "");
        let modules = Modules::open(directory.path()).unwrap();
        let error = modules.closure(&["a", "virtio_blk", "erofs"], &[]).unwrap_err().to_string();
        assert!(
            error.starts_with("the kernel has no `virtio_blk`, `erofs`: they are neither in it nor in `/")
        );
        let error = modules.closure(&["a"], &[]).unwrap_err().to_string();
        assert_eq!(error, "the module `a` depends on itself");
        fs::write(directory.path().join("kernel/a.ko"), "text").unwrap();
        let error = modules.closure(&["a"], &[]).unwrap_err().to_string();
        assert!(error.ends_with("/kernel/a.ko` is not a kernel module: it has no section `.modinfo`"));
    }
}
