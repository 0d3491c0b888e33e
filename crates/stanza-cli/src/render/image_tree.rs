//! `images --tree`: images with what is in each of them, as Docker shows them since version 27.

use std::collections::BTreeMap;

use stanza_engine::ImageRow;
use stanza_image::Image;
use stanza_spec::units::human_size;
use stanza_spec::{Digest, Reference};

use super::json::Json;

/// One line of the tree.
struct Line {
    name: String,
    id: String,
    usage: u64,
    content: u64,
    used: bool,
}

/// Bytes on disk: the blobs, and the layers that are unpacked.
fn usage(image: &Image, unpacked: &BTreeMap<Digest, u64>) -> u64 {
    let mut seen = Vec::new();
    let mut total = image.size;
    for layer in &image.layers {
        if !seen.contains(&&layer.diff_id) {
            seen.push(&layer.diff_id);
            total += unpacked.get(&layer.diff_id).copied().unwrap_or(0);
        }
    }
    total
}

/// The tree as text.
pub(crate) fn text(rows: &[ImageRow], unpacked: &BTreeMap<Digest, u64>) -> String {
    let mut lines = Vec::new();
    for row in rows {
        let image = &row.image;
        let usage = usage(image, unpacked);
        let line = |name: String, id: &Digest| Line {
            name,
            id: id.short().to_owned(),
            usage,
            content: image.size,
            used: row.containers > 0,
        };
        let mut names = image.names.iter().map(Reference::familiar);
        lines.push(Some(line(names.next().unwrap_or_else(|| "<untagged>".to_owned()), &image.id)));
        lines.extend(names.map(|name| Some(line(name, &image.id))));
        lines.push(Some(line(format!("└─ {}", image.platform()), &image.manifest)));
        lines.push(None);
    }
    lines.pop();
    let width = lines.iter().flatten().map(|line| line.name.chars().count()).max().unwrap_or(0).max(5);
    let mut text = format!("{:width$}   {:12}   DISK USAGE   CONTENT SIZE   EXTRA\n", "IMAGE", "ID");
    for line in lines {
        if let Some(line) = line {
            let (usage, content) = (human_size(line.usage), human_size(line.content));
            let used = if line.used { "   U" } else { "" };
            text.push_str(&format!(
                "{:width$}   {:12}   {usage:>10}   {content:>12}{used}",
                line.name, line.id
            ));
        }
        text.push('\n');
    }
    text
}

/// The tree for programs: an object a line.
pub(crate) fn json(rows: &[ImageRow], unpacked: &BTreeMap<Digest, u64>) -> String {
    let object = |row: &ImageRow| {
        let image = &row.image;
        let names: Vec<String> = image.names.iter().map(Reference::familiar).collect();
        let usage = usage(image, unpacked);
        let platform = Json::object([
            ("Platform", image.platform().to_string().into()),
            ("ID", image.manifest.as_str().into()),
            ("DiskUsage", usage.into()),
            ("ContentSize", image.size.into()),
        ]);
        Json::object([
            ("Names", names.into()),
            ("ID", image.id.as_str().into()),
            ("DiskUsage", usage.into()),
            ("ContentSize", image.size.into()),
            ("Containers", row.containers.into()),
            ("Platforms", Json::List(vec![platform])),
        ])
    };
    rows.iter().map(|row| serde_json::to_string(&object(row)).unwrap_or_default() + "\n").collect()
}
