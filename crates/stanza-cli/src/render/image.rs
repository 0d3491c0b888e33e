//! An image in Docker's words.

use stanza_image::Image;
use stanza_spec::Instant;
use stanza_spec::Reference;
use stanza_spec::units::human_size;

use super::json::{Json, list_or_null};
use crate::format::listing::Row;
use crate::format::time;

/// Titles of the columns of `images`.
pub(crate) const TITLES: &[(&str, &str)] = &[
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("VirtualSize", "SIZE"),
];

const NONE: &str = "<none>";

/// The rows of an image: one for every name, one when it has none.
pub(crate) fn rows(image: &Image, containers: Option<usize>, truncate: bool, now: Instant) -> Vec<Row> {
    let digest_of = |repository: &str| {
        image
            .digests
            .iter()
            .find(|digest| digest.familiar_repository() == repository)
            .and_then(Reference::digest)
            .map_or_else(|| NONE.to_owned(), ToString::to_string)
    };
    let row = |repository: &str, tag: &str| {
        let id = if truncate { image.id.short() } else { image.id.as_str() };
        let created = image.created.as_deref().unwrap_or_default();
        Row::default()
            .with("ID", id)
            .with("Repository", repository)
            .with("Tag", tag)
            .with("Digest", digest_of(repository))
            .with("CreatedSince", time::ago(created, now))
            .with("CreatedAt", time::listed(created))
            .with("Size", human_size(image.size))
            .with("Containers", containers.map_or_else(|| "N/A".to_owned(), |count| count.to_string()))
            .with("SharedSize", "N/A")
            .with("UniqueSize", "N/A")
            .with("VirtualSize", human_size(image.size))
    };
    let mut rows: Vec<Row> = image
        .names
        .iter()
        .filter(|name| name.tag().is_some())
        .map(|name| row(&name.familiar_repository(), name.tag().unwrap_or(NONE)))
        .collect();
    if rows.is_empty() {
        let repository = image.names.first().or(image.digests.first()).map(Reference::familiar_repository);
        rows.push(row(repository.as_deref().unwrap_or(NONE), NONE));
    }
    rows
}

/// What `image inspect` shows.
pub(crate) fn inspect(image: &Image) -> Json {
    let names: Vec<String> =
        image.names.iter().filter(|name| name.tag().is_some()).map(Reference::familiar).collect();
    let digests: Vec<String> = image.digests.iter().map(Reference::familiar).collect();
    let layers: Vec<String> = image.layers.iter().map(|layer| layer.diff_id.to_string()).collect();
    let platform = image.platform();
    let last = image.config.history().iter().flatten().next_back();
    let comment = last.and_then(|step| step.comment().clone()).unwrap_or_default();
    let mut fields = vec![
        ("Id", image.id.as_str().into()),
        ("RepoTags", names.into()),
        ("RepoDigests", digests.into()),
        ("Parent", "".into()),
        ("Comment", comment.into()),
        ("Created", image.created.clone().unwrap_or_default().into()),
        ("DockerVersion", "".into()),
        ("Author", image.config.author().clone().unwrap_or_default().into()),
        ("Config", config(image)),
        ("Architecture", platform.architecture.into()),
    ];
    if let Some(variant) = platform.variant {
        fields.push(("Variant", variant.into()));
    }
    fields.extend([
        ("Os", platform.os.into()),
        ("Size", image.size.into()),
        ("GraphDriver", Json::object([("Data", Json::NULL), ("Name", "overlay".into())])),
        ("RootFS", Json::object([("Type", "layers".into()), ("Layers", list_or_null(&layers))])),
        // When a name was given is not kept: Go's zero time stands for that.
        ("Metadata", Json::object([("LastTagTime", "0001-01-01T00:00:00Z".into())])),
        (
            "Descriptor",
            Json::object([
                ("mediaType", image.manifest_type.as_str().into()),
                ("digest", image.manifest.as_str().into()),
                ("size", image.manifest_size.into()),
            ]),
        ),
    ]);
    Json::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn config(image: &Image) -> Json {
    let Some(config) = image.config.config() else { return Json::object([]) };
    let empty_objects = |names: Option<&Vec<String>>| match names {
        Some(names) if !names.is_empty() => {
            let mut names = names.clone();
            names.sort();
            Json::Object(names.into_iter().map(|name| (name, Json::object([]))).collect())
        }
        _ => Json::NULL,
    };
    let list = |list: &Option<Vec<String>>| list_or_null(list.as_deref().unwrap_or_default());
    let labels = match config.labels() {
        Some(labels) => {
            let sorted: std::collections::BTreeMap<_, _> = labels.iter().collect();
            Json::Object(
                sorted.into_iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect(),
            )
        }
        None => Json::NULL,
    };
    Json::object([
        ("User", config.user().clone().unwrap_or_default().into()),
        ("ExposedPorts", empty_objects(config.exposed_ports().as_ref())),
        ("Env", list(config.env())),
        ("Cmd", list(config.cmd())),
        ("Volumes", empty_objects(config.volumes().as_ref())),
        ("WorkingDir", config.working_dir().clone().unwrap_or_default().into()),
        ("Entrypoint", list(config.entrypoint())),
        ("Labels", labels),
        ("StopSignal", config.stop_signal().clone().unwrap_or_default().into()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(names: &[&str]) -> Image {
        let digest =
            |byte: &str| format!("sha256:{}", byte.repeat(32)).parse::<stanza_spec::Digest>().unwrap();
        let text = serde_json::json!({
            "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []},
            "config": {"Env": ["A=1"], "Cmd": ["sh"], "Labels": {"z": "1", "a": "2"}, "ExposedPorts": {"80/tcp": {}}},
        });
        Image {
            id: digest("ab"),
            manifest: digest("cd"),
            manifest_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            manifest_size: 400,
            names: names.iter().map(|name| name.parse().unwrap()).collect(),
            digests: vec!["busybox".parse::<Reference>().unwrap().with_digest(digest("ef"))],
            config: serde_json::from_value(text).unwrap(),
            layers: Vec::new(),
            size: 4_261_550,
            created: Some("2025-01-31T12:00:00Z".to_owned()),
        }
    }

    #[test]
    fn every_name_is_a_row() {
        let now = Instant::parse_rfc3339("2025-01-31T15:00:00Z").unwrap();
        let shown = |names: &[&str]| -> Vec<String> {
            let cell = |row: &Row, name: &str| row.fields[name].as_str().unwrap_or_default().to_owned();
            let all = rows(&sample(names), None, true, now);
            all.iter()
                .map(|row| {
                    ["Repository", "Tag", "ID", "CreatedSince", "Size"].map(|n| cell(row, n)).join(" ")
                })
                .collect()
        };
        assert_eq!(
            shown(&["busybox:1", "localhost:5000/b:x"]),
            [
                "busybox 1 abababababab 3 hours ago 4.26MB",
                "localhost:5000/b x abababababab 3 hours ago 4.26MB"
            ]
        );
        assert_eq!(shown(&[]), ["busybox <none> abababababab 3 hours ago 4.26MB"]);
    }

    #[test]
    fn inspect_has_dockers_shape() {
        let value = inspect(&sample(&["busybox"])).value();
        assert_eq!(value["RepoTags"], serde_json::json!(["busybox:latest"]));
        assert_eq!(value["RepoDigests"][0], format!("busybox@sha256:{}", "ef".repeat(32)));
        assert_eq!(value["Config"]["ExposedPorts"], serde_json::json!({"80/tcp": {}}));
        assert_eq!(
            (&value["Os"], &value["Config"]["Entrypoint"]),
            (&"linux".into(), &serde_json::Value::Null)
        );
    }
}
