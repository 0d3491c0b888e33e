use std::path::Path;

use super::*;

fn config(text: &str) -> RegistriesConfig {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r.conf");
    std::fs::write(&path, text).unwrap();
    RegistriesConfig::load_from(Some(path), None, directory.path().join("none")).unwrap()
}

fn places(config: &RegistriesConfig, name: &str) -> Vec<(String, bool, bool)> {
    let endpoints = config.endpoints(&name.parse().unwrap()).unwrap();
    endpoints.into_iter().map(|e| (e.reference.to_string(), e.insecure, e.is_mirror)).collect()
}

#[test]
fn prefixes_are_replaced_and_mirrors_come_first() {
    let config = config(
        r#"
        [[registry]]
        prefix = "r.io/team"
        location = "q.io:5000/x"
        [[registry.mirror]]
        location = "m.io/r"
        insecure = true
        [[registry.mirror]]
        location = "d.io"
        pull-from-mirror = "digest-only"
        [[registry.mirror]]
        location = "t.io"
        pull-from-mirror = "tag-only"
        [[registry]]
        location = "r.io"
        insecure = true
        [[registry]]
        prefix = "*.corp.io"
        insecure = true
        [[registry]]
        location = "docker.io"
        mirror-by-digest-only = true
        [[registry.mirror]]
        location = "hub.io"
        "#,
    );
    let all = |text: &[(&str, bool, bool)]| {
        text.iter()
            .map(|(name, insecure, mirror)| ((*name).to_owned(), *insecure, *mirror))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        places(&config, "r.io/team/a/b:1"),
        all(&[
            ("m.io/r/a/b:1", true, true),
            ("t.io/a/b:1", false, true),
            ("q.io:5000/x/a/b:1", false, false)
        ])
    );
    assert_eq!(places(&config, "r.io/teams/a"), all(&[("r.io/teams/a:latest", true, false)]));
    assert_eq!(places(&config, "a.b.corp.io:5000/x"), all(&[("a.b.corp.io:5000/x:latest", true, false)]));
    assert_eq!(places(&config, "corp.io/x"), all(&[("corp.io/x:latest", false, false)]));
    assert_eq!(places(&config, "busybox"), all(&[("docker.io/library/busybox:latest", false, false)]));
    let digest = format!("@sha256:{}", "0".repeat(64));
    assert_eq!(
        places(&config, &format!("busybox{digest}")),
        all(&[
            (&format!("hub.io/library/busybox{digest}"), false, true),
            (&format!("docker.io/library/busybox{digest}"), false, false),
        ])
    );
    assert_eq!(places(&config, &format!("r.io/team/a{digest}"))[1], (format!("d.io/a{digest}"), false, true));
}

#[test]
fn a_wildcard_can_lead_to_one_host() {
    let config = config("[[registry]]\nprefix = \"*.corp.io\"\nlocation = \"q.io/all\"\n");
    assert_eq!(places(&config, "a.corp.io/x:1"), [("q.io/all/x:1".to_owned(), false, false)]);
}

#[test]
fn a_blocked_registry_is_told_with_its_file() {
    let config = config("[[registry]]\nlocation = \"r.io\"\nblocked = true\n");
    let error = config.endpoints(&"r.io/a:1".parse().unwrap()).unwrap_err();
    assert!(
        matches!(&error, SetupError::Blocked { prefix, path, reference }
            if prefix == "r.io" && path.ends_with("r.conf") && reference == "r.io/a:1"),
        "{error:?}"
    );
}

#[test]
fn wrong_files_are_told_with_the_line() {
    for (text, line, part) in [
        ("\n[[registry]\n", Some(2), ""),
        ("[[registry]]\nlocation = 5\n", Some(2), "string"),
        ("\n\n[[registry]]\ninsecure = true\n", Some(3), "needs a `prefix` or a `location`"),
        ("[[registry]]\nprefix = \"a.*.io\"\n", Some(1), "at its beginning only"),
        ("[[registry]]\nprefix = \"r.io\"\n", Some(1), "needs a `location`"),
        ("[[registry]]\nlocation = \"team/x\"\n", Some(1), "does not begin with a host"),
        (
            "[[registry]]\nlocation = \"r.io\"\n[[registry.mirror]]\nlocation = \"m.io\"\npull-from-mirror = \"x\"\n",
            Some(3),
            "`all`, `digest-only` or `tag-only`, not `x`",
        ),
        (
            "[[registry]]\nlocation = \"r.io\"\nmirror-by-digest-only = true\n[[registry.mirror]]\n\
             location = \"m.io\"\npull-from-mirror = \"tag-only\"\n",
            Some(4),
            "not for one registry",
        ),
        (
            "[[registry]]\nlocation = \"r.io\"\n[[registry]]\nprefix = \"r.io\"\nlocation = \"x.io\"\n",
            Some(3),
            "a second",
        ),
        ("[registries.search]\nregistries = [\"r.io\"]\n", Some(1), "version 1"),
        ("[aliases]\n\"a\" = \"b/c\"\n", Some(2), "not `HOST/NAME`"),
        ("[aliases]\n\"a\" = \"r.io/c:1\"\n", Some(2), "not `HOST/NAME`"),
    ] {
        match file::parse(Path::new("/x/r.conf"), text).unwrap_err() {
            SetupError::Wrong { line: found, reason, .. } => {
                assert_eq!(found, line, "{text}: {reason}");
                assert!(reason.contains(part), "{text}: {reason}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn drop_ins_come_by_name_and_the_user_comes_before_the_system() {
    let directory = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = directory.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("s/registries.conf", "unqualified-search-registries = [\"s.io\"]\n[aliases]\n\"a\" = \"s.io/a\"\n");
    write("s/registries.conf.d/10.conf", "[aliases]\n\"b\" = \"ten.io/b\"\n\"c\" = \"ten.io/c\"\n");
    write("s/registries.conf.d/20.conf", "[aliases]\n\"b\" = \"twenty.io/b\"\n\"c\" = \"\"\n");
    write("s/registries.conf.d/30.txt", "nonsense");
    write("u/registries.conf.d/1.conf", "[aliases]\n\"a\" = \"u.io/a\"\n");
    let load = || {
        let user = Some(directory.path().join("u"));
        RegistriesConfig::load_from(None, user, directory.path().join("s")).unwrap()
    };
    let config = load();
    let alias = |name| config.resolve_alias(name);
    assert_eq!((alias("a").as_deref(), alias("b").as_deref()), (Some("u.io/a"), Some("twenty.io/b")));
    assert_eq!((alias("c"), alias("d")), (None, None));
    assert_eq!(config.unqualified_search_registries(), ["s.io"]);
    write("u/registries.conf", "");
    let config = load();
    assert_eq!((config.resolve_alias("a").as_deref(), config.resolve_alias("b")), (Some("u.io/a"), None));
    assert_eq!(config.unqualified_search_registries(), [""; 0]);
}

#[test]
fn the_short_name_ends_before_tag_and_digest() {
    for (text, name) in [("a", "a"), ("a/b:1", "a/b"), ("r:5000/a", "r:5000/a"), ("a:1@sha256:x", "a")] {
        assert_eq!(short_name(text), name);
    }
}
