//! `spec`: writes a `config.json` to start from, the same one as runc's.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

use rustix::process::{getegid, geteuid};
use stanza_cgroup::Layout;

use super::help::SPECIFICATION;
use crate::arguments::{Parsed, Verb, option, switch};
use crate::context::Context;
use crate::failure::{Doing, Failure};

pub(super) static VERB: Verb = Verb {
    name: "spec",
    usage: "",
    help: "Write a config.json to start from",
    flags: &[
        option(&["bundle", "b"], "DIR", "the bundle (default: the working directory)"),
        switch(&["rootless"], "one that its user can run without root"),
    ],
    own_words: usize::MAX,
    run,
};

/// runc's text for root on control groups of version 1; what differs elsewhere is replaced by name below.
const TEXT: &str = include_str!("default_config.json");

/// The name of the file in a bundle.
const FILE: &str = "config.json";

fn run(_context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    if !parsed.words.is_empty() {
        return Err(Failure::Usage("\"spec\" requires exactly 0 argument(s)".to_owned()));
    }
    let bundle = parsed.value("bundle").filter(|path| !path.is_empty()).unwrap_or(".");
    let unified = matches!(stanza_cgroup::detect(), Ok(Layout::V2 { .. }));
    let user = parsed.is_on("rootless").then(|| (geteuid().as_raw(), getegid().as_raw()));
    let path = Path::new(bundle).join(FILE);
    let mut file = match OpenOptions::new().write(true).create_new(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(Failure::State(format!("File {FILE} exists. Remove it first")));
        }
        Err(error) => return Err(error).doing("open", path),
    };
    file.write_all(text(user, unified).as_bytes()).doing("write", path)?;
    Ok(0)
}

/// The configuration; `user` is who is to run it without root, `unified` whether control groups are of version 2 alone.
fn text(user: Option<(u32, u32)>, unified: bool) -> String {
    let mut text = TEXT.replace("@VERSION@", SPECIFICATION);
    if unified {
        let mount = namespace("mount");
        text = text.replace(&mount, &format!("{mount},\n{}", namespace("cgroup")));
    }
    let Some((uid, gid)) = user else { return text };
    // Without root there is no group 5 to give terminals to, no sysfs to mount in the host's network, and no resources.
    text = text.replace(",\n\t\t\t\t\"gid=5\"", "");
    text = text.replace("\"type\": \"sysfs\",\n\t\t\t\"source\": \"sysfs\",\n\t\t\t\"options\": [", SYS_BIND);
    text = text.replace(&format!("{},\n", namespace("network")), "");
    let last = namespace(if unified { "cgroup" } else { "mount" });
    text = text.replace(&last, &format!("{last},\n{}", namespace("user")));
    let mappings = format!("{},\n\t\t{},\n", mapping("uidMappings", uid), mapping("gidMappings", gid));
    text.replace(RESOURCES, &format!("\t\t{mappings}"))
}

const SYS_BIND: &str =
    "\"type\": \"none\",\n\t\t\t\"source\": \"/sys\",\n\t\t\t\"options\": [\n\t\t\t\t\"rbind\",";

const RESOURCES: &str = "\t\t\"resources\": {\n\t\t\t\"devices\": [\n\t\t\t\t{\n\t\t\t\t\t\"allow\": false,\n\t\t\t\t\t\"access\": \"rwm\"\n\t\t\t\t}\n\t\t\t]\n\t\t},\n";

fn namespace(kind: &str) -> String {
    format!("\t\t\t{{\n\t\t\t\t\"type\": \"{kind}\"\n\t\t\t}}")
}

fn mapping(name: &str, id: u32) -> String {
    format!(
        "\"{name}\": [\n\t\t\t{{\n\t\t\t\t\"containerID\": 0,\n\t\t\t\t\"hostID\": {id},\n\t\t\t\t\"size\": 1\n\t\t\t}}\n\t\t]"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn parsed(user: Option<(u32, u32)>, unified: bool) -> Value {
        serde_json::from_str(&text(user, unified)).unwrap()
    }

    fn namespaces(value: &Value) -> Vec<&str> {
        value["linux"]["namespaces"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["type"].as_str().unwrap())
            .collect()
    }

    #[test]
    fn the_configuration_is_one_that_create_takes() {
        let value = parsed(None, false);
        assert_eq!(value["ociVersion"], SPECIFICATION);
        assert_eq!(value["process"]["args"], serde_json::json!(["sh"]));
        assert_eq!(namespaces(&value), ["pid", "network", "ipc", "uts", "mount"]);
        assert_eq!(namespaces(&parsed(None, true)), ["pid", "network", "ipc", "uts", "mount", "cgroup"]);
        serde_json::from_value::<stanza_spec::oci::runtime::Spec>(value).unwrap();
    }

    #[test]
    fn without_root_all_that_needs_it_is_left_out() {
        let value = parsed(Some((1000, 100)), false);
        assert_eq!(namespaces(&value), ["pid", "ipc", "uts", "mount", "user"]);
        assert_eq!(namespaces(&parsed(Some((1, 2)), true)), ["pid", "ipc", "uts", "mount", "cgroup", "user"]);
        assert_eq!(
            value["linux"]["uidMappings"],
            serde_json::json!([{"containerID": 0, "hostID": 1000, "size": 1}])
        );
        assert_eq!(
            value["linux"]["gidMappings"],
            serde_json::json!([{"containerID": 0, "hostID": 100, "size": 1}])
        );
        assert_eq!(value["linux"]["resources"], Value::Null);
        let mount = |place: &str| {
            value["mounts"]
                .as_array()
                .unwrap()
                .iter()
                .find(|mount| mount["destination"] == place)
                .unwrap()
                .clone()
        };
        assert_eq!(
            mount("/sys"),
            serde_json::json!({"destination": "/sys", "type": "none", "source": "/sys",
                "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]})
        );
        let terminals = mount("/dev/pts")["options"].to_string();
        assert!(!terminals.contains("gid=") && terminals.contains("mode=0620"), "{terminals}");
    }
}
