//! The images: four layers that hold what makes pulls slow, compressed twice, and the first two of them as an image of
//! ordinary size. Made once, and kept below `target/bench`.
//!
//! ```text
//!   1  a minimal Debian (debootstrap)                      211 MB   6,800 entries
//!   2  20,000 small files in 3,000 directories             ~130 MB  as a tree of `node_modules`
//!   3  one file of 200 MB that nothing compresses
//!   4  whiteouts, opaque directories, 200 hard links, attributes, a capability, a fifo, long paths, set-id files,
//!      times with fractions of a second
//!   image:gzip, image:zstd = 1 2 3 4    debian:1 = 1 2, gzip
//! ```

use std::fs;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::random::Random;
use crate::shell::{find, output};

/// What the recipe makes; another recipe is another number.
const RECIPE: &str = "1";

/// A layer as a registry has it.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub(super) digest: String,
    pub(super) diff_id: String,
    /// `gzip` or `zstd`.
    pub(super) kind: &'static str,
}

/// The images in an OCI layout, and the archives of one of them.
#[derive(Debug)]
pub(super) struct Reference {
    /// The layout.
    pub(super) layout: PathBuf,
    /// Where a registry keeps them.
    pub(super) storage: PathBuf,
    /// `debian:1` as `docker save` writes it.
    pub(super) docker_archive: PathBuf,
    /// `debian:1` as a layout in an archive.
    pub(super) oci_archive: PathBuf,
}

fn told<T>(what: &str, result: std::io::Result<T>) -> Result<T, String> {
    result.map_err(|error| format!("cannot make the image: {what}: {error}"))
}

/// A file of the digest's own name; its digest and its size.
fn settle(blobs: &Path, path: &Path) -> Result<(String, u64), String> {
    let line = output(&["sha256sum", &path.display().to_string()])?;
    let hex = line.split_whitespace().next().unwrap_or_default().to_owned();
    let size = told("size", fs::metadata(path))?.len();
    told("rename", fs::rename(path, blobs.join(&hex)))?;
    Ok((format!("sha256:{hex}"), size))
}

/// A layer's archive, compressed both ways.
#[derive(Debug)]
struct Made {
    diff_id: String,
    gzip: (String, u64),
    zstd: (String, u64),
}

impl Reference {
    /// What was made before, or all of it made now.
    pub(super) fn open() -> Result<Reference, String> {
        let home = crate::root().join(format!("target/bench/image-{RECIPE}"));
        if !home.is_dir() {
            for (program, package) in
                [("debootstrap", "debootstrap"), ("skopeo", "skopeo"), ("zstd", "zstd"), ("setfattr", "attr")]
            {
                find(program).ok_or(format!("no `{program}` (package {package})"))?;
            }
            let making = home.with_extension(format!("making-{}", std::process::id()));
            let made = make(&making).and_then(|()| told("rename", fs::rename(&making, &home)));
            if let Err(error) = made {
                // A tree of debootstrap has what only a patient `rm` removes.
                let _ = output(&["rm", "-rf", &making.display().to_string()]);
                return Err(error);
            }
        }
        Ok(Reference {
            layout: home.join("oci"),
            storage: home.join("registry"),
            docker_archive: home.join("docker.tar"),
            oci_archive: home.join("oci.tar"),
        })
    }

    fn blob(&self, digest: &str) -> Result<Value, String> {
        let path = self.layout.join("blobs").join(digest.replace(':', "/"));
        let text = told("read", fs::read_to_string(&path))?;
        serde_json::from_str(&text).map_err(|error| format!("`{}`: {error}", path.display()))
    }

    /// The layers of the image called so in the layout.
    pub(super) fn layers(&self, name: &str) -> Result<Vec<Layer>, String> {
        let text = told("read", fs::read_to_string(self.layout.join("index.json")))?;
        let index: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let known = |entry: &&Value| entry["annotations"]["org.opencontainers.image.ref.name"] == name;
        let entry = index["manifests"].as_array().and_then(|all| all.iter().find(known));
        let digest = entry.and_then(|entry| entry["digest"].as_str()).ok_or(format!("no image `{name}`"))?;
        let manifest = self.blob(digest)?;
        let config = self.blob(manifest["config"]["digest"].as_str().unwrap_or_default())?;
        let ids = config["rootfs"]["diff_ids"].as_array().cloned().unwrap_or_default();
        let layers = manifest["layers"].as_array().cloned().unwrap_or_default();
        let layer = |(layer, id): (&Value, &Value)| {
            let zstd = layer["mediaType"].as_str().is_some_and(|kind| kind.ends_with("zstd"));
            Some(Layer {
                digest: layer["digest"].as_str()?.to_owned(),
                diff_id: id.as_str()?.to_owned(),
                kind: if zstd { "zstd" } else { "gzip" },
            })
        };
        layers.iter().zip(&ids).map(layer).collect::<Option<_>>().ok_or_else(|| "no digests".to_owned())
    }
}

fn make(home: &Path) -> Result<(), String> {
    println!("==> making the reference images (once)");
    let (work, layout) = (home.join("work"), home.join("oci"));
    let blobs = layout.join("blobs/sha256");
    for directory in [&work, &blobs] {
        told("directory", fs::create_dir_all(directory))?;
    }
    let mut layers = Vec::new();
    for (name, tar) in
        [("debian", debian as fn(&Path, &Path) -> _), ("small", small), ("large", large), ("odd", odd)]
    {
        let (tree, archive) = (work.join(name), work.join("layer.tar"));
        told(name, fs::create_dir_all(&tree))?;
        tar(&tree, &archive)?;
        let path = archive.display().to_string();
        output(&["gzip", "-6", "-n", "-k", &path])?;
        output(&["zstd", "-q", "-3", "-k", &path])?;
        let gzip = settle(&blobs, &work.join("layer.tar.gz"))?;
        let zstd = settle(&blobs, &work.join("layer.tar.zst"))?;
        let line = output(&["sha256sum", &path])?;
        let hex = line.split_whitespace().next().unwrap_or_default();
        let size = told("size", fs::metadata(&archive))?.len();
        println!("    {name}: {size} bytes, gzip {}, zstd {}", gzip.1, zstd.1);
        layers.push(Made { diff_id: format!("sha256:{hex}"), gzip, zstd });
        told("remove", fs::remove_file(&archive))?;
    }
    output(&["rm", "-rf", &work.display().to_string()])?;
    let mut manifests = Vec::new();
    for (name, count, kind) in [("gzip", 4, "gzip"), ("zstd", 4, "zstd"), ("debian", 2, "gzip")] {
        manifests.push(image(&layout, name, &layers[..count], kind)?);
    }
    let index = json!({ "schemaVersion": 2, "manifests": manifests });
    told("index", fs::write(layout.join("index.json"), index.to_string()))?;
    told("layout", fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#))?;
    let from = format!("oci:{}:debian", layout.display());
    let archive = |to: String| output(&["skopeo", "--insecure-policy", "copy", "--quiet", &from, &to]);
    archive(format!("docker-archive:{}:localhost/debian:1", home.join("docker.tar").display()))?;
    archive(format!("oci-archive:{}:localhost/debian:1", home.join("oci.tar").display()))?;
    told("registry", fs::create_dir_all(home.join("registry")))
}

/// Writes configuration and manifest of an image; its line of the index.
fn image(layout: &Path, name: &str, layers: &[Made], kind: &str) -> Result<Value, String> {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({
        "created": "2024-01-01T00:00:00Z", "architecture": architecture, "os": "linux",
        "config": { "Cmd": ["sh"], "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"] },
        "rootfs": { "type": "layers", "diff_ids": layers.iter().map(|layer| &layer.diff_id).collect::<Vec<_>>() },
        "history": layers.iter().map(|_| json!({ "created_by": "bench" })).collect::<Vec<_>>(),
    });
    let write = |text: String, media_type: &str| {
        let path = layout.join("blob");
        told("document", fs::write(&path, text))?;
        let (digest, size) = settle(&layout.join("blobs/sha256"), &path)?;
        Ok::<Value, String>(json!({ "mediaType": media_type, "digest": digest, "size": size }))
    };
    let config = write(config.to_string(), "application/vnd.oci.image.config.v1+json")?;
    let descriptor = |layer: &Made| {
        let (digest, size) = if kind == "zstd" { &layer.zstd } else { &layer.gzip };
        let media_type = format!("application/vnd.oci.image.layer.v1.tar+{kind}");
        json!({ "mediaType": media_type, "digest": digest, "size": size })
    };
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_type, "config": config,
        "layers": layers.iter().map(descriptor).collect::<Vec<_>>(),
    });
    let mut entry = write(manifest.to_string(), media_type)?;
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
    Ok(entry)
}

fn tar(options: &[&str], tree: &Path, archive: &Path) -> Result<(), String> {
    let (tree, archive) = (tree.display().to_string(), archive.display().to_string());
    let fixed = ["tar", "--numeric-owner", "--owner=0", "--group=0", "--sort=name"];
    output(&[&fixed[..], options, &["-C", &tree, "-cf", &archive, "."]].concat()).map(|_| ())
}

fn debian(tree: &Path, archive: &Path) -> Result<(), String> {
    output(&["debootstrap", "--variant=minbase", "bookworm", &tree.display().to_string()])?;
    let (from, to) = (tree.display().to_string(), archive.display().to_string());
    output(&["tar", "--numeric-owner", "--sort=name", "-C", &from, "-cf", &to, "."]).map(|_| ())
}

/// Sizes are lognormal round 6 KB; the text is words, so that it compresses as programs do.
fn small(tree: &Path, archive: &Path) -> Result<(), String> {
    const WORDS: &str = "const let var function return if else for while new this module exports require default import from \
                         true false null undefined typeof void async await throw catch try value key name index length";
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    let mut random = Random::new(2);
    let mut directories = vec![tree.join("node_modules")];
    for number in 1..3000 {
        // Most packages are near the top, some have packages inside.
        let parent = if random.below(3) > 0 { 0 } else { random.below(directories.len()) };
        directories.push(directories[parent].join(format!("package-{number}")));
    }
    for directory in &directories {
        told("directory", fs::create_dir_all(directory))?;
    }
    for number in 0..20_000 {
        let directory = &directories[number % directories.len()];
        let size = random.lognormal(8.2, 1.0).min(500_000);
        let mut text = String::with_capacity(size + 32);
        while text.len() < size {
            match random.below(6) {
                0 => text.push_str(&format!("{:x}", random.next() >> 44)),
                1 => text.push_str(" = (\n    "),
                2 => text.push_str("); // "),
                _ => text.push_str(words[random.below(words.len())]),
            }
            text.push(' ');
        }
        told("file", fs::write(directory.join(format!("file-{number}.js")), text))?;
    }
    tar(&["--mtime=@1700000000"], tree, archive)
}

fn large(tree: &Path, archive: &Path) -> Result<(), String> {
    let mut random = Random::new(3);
    let mut file = BufWriter::new(told("file", fs::File::create(tree.join("random")))?);
    for _ in 0..200_000_000 / 8 {
        told("write", file.write_all(&random.next().to_le_bytes()))?;
    }
    told("write", file.flush())?;
    drop(file);
    tar(&["--mtime=@1700000000"], tree, archive)
}

/// Names of the layers below, so that it hides and replaces what is there.
const ODD: &str = r#"
set -e
cd "$1"
mkdir -p usr/share/doc etc/opaque var/links var/odd
touch usr/share/doc/.wh.bash etc/.wh.motd etc/opaque/.wh..wh..opq etc/opaque/new node_modules.d
mkdir -p node_modules/package-1; touch node_modules/package-1/.wh..wh..opq node_modules/.wh.package-2
echo linked >var/links/first
for i in $(seq 200); do ln var/links/first var/links/$i; done
echo attributes >var/odd/attributes
setfattr -n user.bench -v value var/odd/attributes
cp /bin/true var/odd/capable; setcap cap_net_bind_service=ep var/odd/capable
mkfifo var/odd/fifo
long=$(printf 'directory-of-a-long-path/%.0s' 1 2 3 4 5 6 7 8 9 10 11 12)
mkdir -p "var/odd/$long"; echo deep >"var/odd/${long}file"
ln -s "$long" var/odd/link
cp /bin/true var/odd/setuid; chmod 6755 var/odd/setuid
chown -R 1000:1001 var/links
touch -d '2024-01-02 03:04:05.123456789' var/odd/attributes
"#;

fn odd(tree: &Path, archive: &Path) -> Result<(), String> {
    output(&["sh", "-c", ODD, "sh", &tree.display().to_string()])?;
    let (from, to) = (tree.display().to_string(), archive.display().to_string());
    let options =
        ["--format=posix", "--pax-option=delete=atime,delete=ctime", "--xattrs", "--xattrs-include=*"];
    let words = [&["tar", "--numeric-owner", "--sort=name"], &options[..], &["-C", &from, "-cf", &to, "."]];
    output(&words.concat()).map(|_| ())
}
