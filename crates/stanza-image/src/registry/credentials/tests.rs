use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn file(text: &str) -> (tempfile::TempDir, CredentialFiles) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.json");
    std::fs::write(&path, text).unwrap();
    (directory, CredentialFiles::at(vec!["/nonexistent/x".into(), path]))
}

fn basic(user: &str, secret: &str) -> Credentials {
    Credentials::Basic { user: user.to_owned(), secret: secret.to_owned() }
}

#[test]
fn entries_are_found_under_every_common_key() {
    let (_keep, files) = file(
        r#"{"auths":{"https://index.docker.io/v1/":{"auth":"aHViOnB3"},
            "r.io:5000":{"username":"u","password":"p"},"r.io:5000/team":{"auth":"dGVhbTpwdzp4"},
            "q.io":{},"i.io":{"auth":"dTo=","identitytoken":"i"},"t.io":{"registrytoken":"t"}}}"#,
    );
    let found = |domain, path| files.lookup(domain, path).unwrap();
    assert_eq!(found("docker.io", "library/a"), basic("hub", "pw"));
    assert_eq!(found("r.io:5000", "a"), basic("u", "p"));
    assert_eq!(found("r.io:5000", "team/a"), basic("team", "pw:x"));
    assert_eq!(found("r.io:5000", "teams/a"), basic("u", "p"));
    assert_eq!(found("i.io", "a"), Credentials::IdentityToken("i".to_owned()));
    assert_eq!(found("t.io", "a"), Credentials::RegistryToken("t".to_owned()));
    assert_eq!((found("r.io", "a"), found("q.io", "a")), (Credentials::Anonymous, Credentials::Anonymous));
    assert_eq!(found("docker.io", "a").basic().as_deref(), Some("aHViOnB3"));
}

#[test]
fn a_damaged_file_is_named() {
    for text in ["{", r#"{"auths":{"r.io":{"auth":"%"}}}"#, r#"{"auths":{"r.io":{"auth":"dQ=="}}}"#] {
        let (_keep, files) = file(text);
        let error = files.lookup("r.io", "a").unwrap_err();
        assert!(matches!(error, RegistryError::Setup(SetupError::Credentials { .. })), "{text}: {error}");
    }
}

#[test]
fn secrets_are_not_shown() {
    assert_eq!(format!("{:?}", basic("u", "hidden")), "Basic");
}

#[test]
fn a_change_leaves_the_rest_of_the_file_alone_and_follows_links() {
    let directory = tempfile::tempdir().unwrap();
    let (real, link) = (directory.path().join("real/x.json"), directory.path().join("config.json"));
    std::os::unix::fs::symlink("real/x.json", &link).unwrap();
    let mut first = CredentialFile::open(&link).unwrap();
    assert_eq!(
        first.store("docker.io", "", "u", &basic("u", "p")).unwrap(),
        Place::File(link.clone()),
        "the link leads nowhere yet"
    );
    std::fs::write(&real, r#"{"psFormat":"x","auths":{"q.io":{"auth":"YTpi","email":"e"}}}"#).unwrap();
    std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o644)).unwrap();
    CredentialFile::open(&link).unwrap().store("r.io", "team", "u", &basic("u", "p")).unwrap();
    CredentialFile::open(&link)
        .unwrap()
        .store("docker.io", "", "u", &Credentials::IdentityToken("t".to_owned()))
        .unwrap();
    assert!(link.symlink_metadata().unwrap().is_symlink());
    assert_eq!(real.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let read = || serde_json::from_slice::<Value>(&std::fs::read(&real).unwrap()).unwrap();
    assert_eq!(
        read(),
        serde_json::json!({"psFormat": "x", "auths": {
            "q.io": {"auth": "YTpi", "email": "e"},
            "r.io/team": {"auth": "dTpw"},
            "https://index.docker.io/v1/": {"auth": "dTo=", "identitytoken": "t"}}})
    );
    assert!(CredentialFile::open(&link).unwrap().remove("docker.io", "").unwrap());
    assert!(!CredentialFile::open(&link).unwrap().remove("docker.io", "").unwrap());
    assert!(CredentialFile::open(&link).unwrap().remove("r.io", "team").unwrap());
    assert_eq!(
        read(),
        serde_json::json!({"psFormat": "x", "auths": {"q.io": {"auth": "YTpi", "email": "e"}}})
    );
    CredentialFile::open(&link).unwrap().remove_all().unwrap();
    assert_eq!(read(), serde_json::json!({"psFormat": "x", "auths": {}}));
    let names: Vec<_> = std::fs::read_dir(real.parent().unwrap()).unwrap().collect();
    assert_eq!(names.len(), 1, "no draft is left: {names:?}");
}

#[test]
fn the_name_of_a_helper_is_no_path_and_a_missing_one_is_named() {
    for (text, kind) in [
        (r#"{"credsStore":"../x"}"#, io::ErrorKind::InvalidInput),
        (r#"{"credHelpers":{"r.io":"nowhere-to-be-found"}}"#, io::ErrorKind::NotFound),
    ] {
        let (_keep, files) = file(text);
        match files.lookup("r.io", "a").unwrap_err() {
            RegistryError::Setup(SetupError::Helper { action: "get", source, .. }) => {
                assert_eq!(source.kind(), kind);
            }
            other => panic!("{other:?}"),
        }
    }
}
