//! The way to a registry: TLS, certificates, mirrors, proxies, aliases, credentials.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use stanza_test::{
    Answer, Demands, FakeRegistry, Layout, Output, Registry, Running, SecureRegistry, Stanza, Terminal,
    fixture, free_port, have, skip,
};

/// Ends the test when there is no registry.
macro_rules! registry {
    ($started:expr) => {
        match $started {
            Ok(registry) => registry,
            Err(reason) => skip!("{reason}"),
        }
    };
}

const PLAIN: Demands = Demands { tls: false, client_certificate: false, login: false };
const TLS: Demands = Demands { tls: true, ..PLAIN };
const LOGIN: Demands = Demands { login: true, ..PLAIN };

fn layout(stanza: &Stanza) -> Layout {
    Layout::new(vec![stanza.busybox().to_vec()], &json!({ "Cmd": ["echo", "here"], "Env": ["PATH=/bin"] }))
}

/// A user with a home of its own, whom no setting of this machine reaches.
struct User<'a> {
    stanza: &'a Stanza,
    variables: Vec<(String, String)>,
}

impl<'a> User<'a> {
    fn new(stanza: &'a Stanza) -> User<'a> {
        let home = stanza.directory().join("user");
        fs::create_dir_all(&home).expect("a home");
        let user = User { stanza, variables: Vec::new() };
        user.file(".config/containers/registries.conf", "");
        user.with("HOME", home.to_str().expect("a plain path"))
    }

    fn with(mut self, name: &str, value: &str) -> User<'a> {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Writes a file below the home.
    fn file(&self, path: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(path);
        fs::create_dir_all(std::path::Path::new(&path).parent().expect("a folder"))
            .expect("the folder is made");
        fs::write(&path, content).expect("the file is written");
        path
    }

    fn path(&self, path: &str) -> String {
        self.stanza.directory().join("user").join(path).display().to_string()
    }

    fn clean(&self, command: &mut Command) {
        for name in [
            "DOCKER_CONFIG",
            "REGISTRY_AUTH_FILE",
            "XDG_RUNTIME_DIR",
            "XDG_CONFIG_HOME",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "ALL_PROXY",
            "NO_PROXY",
            "http_proxy",
            "https_proxy",
            "all_proxy",
            "no_proxy",
            "SSL_CERT_FILE",
        ] {
            command.env_remove(name);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.stanza.command(args);
        self.clean(&mut command);
        command
    }

    fn output(&self, args: &[&str]) -> Output {
        Running::start(self.command(args)).finish()
    }

    fn output_with_input(&self, args: &[&str], input: &[u8]) -> Output {
        let mut running = Running::start(self.command(args));
        running.send(input);
        running.finish()
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.output(args);
        assert_eq!(output.code, 0, "stanza {args:?}\nstdout: {}\nstderr: {}", output.stdout, output.stderr);
        output.stdout
    }

    fn fails(&self, args: &[&str]) -> String {
        let output = self.output(args);
        assert_eq!(output.code, 1, "stanza {args:?}\nstdout: {}\nstderr: {}", output.stdout, output.stderr);
        output.stderr
    }

    /// The same user at another program.
    fn tool(&self, words: &[&str]) -> Output {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        self.clean(&mut command);
        Running::start(command).finish()
    }
}

#[test]
fn a_tls_registry_is_asked_in_http_2_when_its_authority_is_in_certs_d() {
    let stanza = fixture!(Empty);
    let registry = registry!(SecureRegistry::start(TLS));
    registry.push(&layout(&stanza), "room:1");
    let name = registry.name("room:1");
    let user = User::new(&stanza);
    let before = registry.log().lines().count();
    user.file(
        &format!(".config/containers/certs.d/127.0.0.1:{}/ca.crt", registry.port()),
        fs::read(registry.authority()).unwrap(),
    );
    user.ok(&["pull", &name]);
    let log = registry.log();
    let asked: Vec<&str> = log.lines().skip(before).filter(|line| line.contains("\"GET /v2/room/")).collect();
    assert_eq!(asked.len(), 3, "a manifest, a configuration, a layer: {log}");
    assert!(asked.iter().all(|line| line.contains(" HTTP/2.0\" 200 ")), "{log}");
}

#[test]
fn an_unknown_authority_is_refused_with_what_to_do() {
    let stanza = fixture!(Empty);
    let registry = registry!(SecureRegistry::start(TLS));
    registry.push(&layout(&stanza), "room:1");
    let name = registry.name("room:1");
    let user = User::new(&stanza);
    let error = user.fails(&["pull", &name]);
    let port = registry.port();
    assert!(error.contains("certificate: UnknownIssuer"), "{error}");
    assert!(error.contains(&format!("/etc/containers/certs.d/127.0.0.1:{port}/ca.crt")), "{error}");
    let other = registry!(SecureRegistry::start(TLS));
    let place = format!(".docker/certs.d/127.0.0.1:{port}");
    user.file(&format!("{place}/ca.crt"), fs::read(other.authority()).unwrap());
    assert!(user.fails(&["pull", &name]).contains("certificate"), "another authority of the same name");
    let wrong = user.file(&format!("{place}/ca.crt"), "not a certificate");
    assert!(user.fails(&["pull", &name]).contains(&format!("`{wrong}` holds no certificate in PEM form")));
    fs::remove_file(wrong).unwrap();
    user.ok(&["pull", "--tls-verify=false", &name]);
}

#[test]
fn a_client_certificate_is_shown_to_who_demands_it() {
    let stanza = fixture!(Empty);
    let registry = registry!(SecureRegistry::start(Demands { client_certificate: true, ..TLS }));
    registry.push(&layout(&stanza), "room:1");
    let name = registry.name("room:1");
    let user = User::new(&stanza);
    let place = format!(".docker/certs.d/127.0.0.1:{}", registry.port());
    user.file(&format!("{place}/ca.crt"), fs::read(registry.authority()).unwrap());
    let error = user.fails(&["pull", &name]);
    assert!(error.contains("received fatal alert"), "{error}");
    let (certificate, key) = registry.client();
    let shown = user.file(&format!("{place}/client.cert"), fs::read(certificate).unwrap());
    let error = user.fails(&["pull", &name]);
    assert!(error.contains(&format!("client certificate `{shown}` has no key beside it")), "{error}");
    let path = user.file(&format!("{place}/client.key"), fs::read(&key).unwrap());
    user.ok(&["pull", &name]);
    fs::remove_file(shown).unwrap();
    let error = user.fails(&["pull", &name]);
    assert!(error.contains(&format!("key `{path}` has no client certificate beside it")), "{error}");
}

#[test]
fn mirrors_come_first_and_what_they_lack_comes_from_the_registry() {
    let stanza = fixture!(Empty);
    let (registry, mirror) = (registry!(Registry::start()), registry!(Registry::start()));
    let image = layout(&stanza);
    let digest = registry.push(&image, "team/room:1");
    let _ = mirror.push(&image, "copy/mirrored:1");
    let user = User::new(&stanza);
    let (host, nobody) = (registry.name("team"), format!("127.0.0.1:{}", free_port()));
    user.file(
        ".config/containers/registries.conf.d/mirrors.conf",
        format!(
            "[[registry]]\nprefix = \"r.test/team\"\nlocation = \"{host}\"\n[[registry.mirror]]\n\
             location = \"{nobody}\"\n[[registry.mirror]]\nlocation = \"{}\"\n\
             [[registry]]\nprefix = \"gone.test\"\nlocation = \"{nobody}\"\n[[registry.mirror]]\n\
             location = \"{}\"\n",
            mirror.name("copy"),
            mirror.name("copy"),
        ),
    );
    user.ok(&["pull", "gone.test/mirrored:1"]);
    let images: Value =
        serde_json::from_str(&user.ok(&["image", "inspect", "gone.test/mirrored:1"])).unwrap();
    assert_eq!(images[0]["RepoTags"], json!(["gone.test/mirrored:1"]));
    let pulled = user.ok(&["pull", "r.test/team/room:1"]);
    assert!(pulled.contains(&format!("Digest: {digest}")), "{pulled}");
    let error = user.fails(&["pull", "r.test/team/none:1"]);
    assert!(error.contains(&format!("registry `{}` has no `team/none:1`", host.split('/').next().unwrap())));
    assert!(error.contains(&format!("its mirrors before it: cannot reach registry `{nobody}`")), "{error}");
    assert!(error.contains("has no `copy/none:1`"), "{error}");
}

#[test]
fn blobs_that_a_mirror_has_lost_come_from_the_registry() {
    let stanza = fixture!(Empty);
    let registry = registry!(Registry::start());
    let image = layout(&stanza);
    let _ = registry.push(&image, "room:1");
    let manifest_only =
        FakeRegistry::of(
            &image,
            |request, answer| {
                if request.path.contains("/blobs/") { Answer::status(500) } else { answer }
            },
        );
    // The same blobs under the same digests, as the layout has them.
    let whole = FakeRegistry::of(&image, |_, answer| answer);
    let user = User::new(&stanza);
    user.file(
        ".config/containers/registries.conf",
        format!(
            "[[registry]]\nprefix = \"r.test\"\nlocation = \"{}\"\n[[registry.mirror]]\nlocation = \"{}\"\n",
            whole.name("").trim_end_matches('/'),
            manifest_only.name("").trim_end_matches('/'),
        ),
    );
    user.ok(&["pull", "r.test/room:1"]);
    let asked = |registry: &FakeRegistry, part: &str| {
        registry.requests().iter().filter(|request| request.path.contains(part)).count()
    };
    assert_eq!((asked(&whole, "/manifests/"), asked(&whole, "/blobs/")), (0, 2));
    assert!(asked(&manifest_only, "/blobs/") >= 2);
}

#[test]
fn a_mirror_that_stops_halfway_each_time_is_left() {
    let stanza = fixture!(Empty);
    let image = layout(&stanza);
    let short = FakeRegistry::of(&image, |request, mut answer| {
        if request.path.contains("/blobs/") {
            answer.length = Some(answer.body.len());
            answer.body.truncate(10);
        }
        answer
    });
    let whole = FakeRegistry::of(&image, |_, answer| answer);
    let user = User::new(&stanza);
    let place = |registry: &FakeRegistry| registry.name("").trim_end_matches('/').to_owned();
    user.file(
        ".config/containers/registries.conf",
        format!(
            "[[registry]]\nprefix = \"r.test\"\nlocation = \"{}\"\n[[registry.mirror]]\nlocation = \"{}\"\n",
            place(&whole),
            place(&short),
        ),
    );
    user.ok(&["pull", "r.test/room:1"]);
    let blobs = |registry: &FakeRegistry| {
        registry.requests().iter().filter(|request| request.path.contains("/blobs/")).count()
    };
    assert_eq!((blobs(&short), blobs(&whole)), (4, 2), "two tries for each of two blobs");
}

#[test]
fn an_identity_token_is_kept_instead_of_the_password() {
    let stanza = fixture!(Empty);
    let port = Arc::new(Mutex::new(String::new()));
    let own = Arc::clone(&port);
    let registry = FakeRegistry::start(move |request| {
        let authorization = request.headers.get("authorization").map(String::as_str);
        let json = |text: &str| Answer::ok("application/json", text);
        match (request.path.split('?').next().unwrap_or_default(), authorization) {
            ("/v2/", Some("Bearer access")) => json("{}"),
            ("/v2/", _) => {
                let place = own.lock().map(|place| place.clone()).unwrap_or_default();
                let challenge = format!("Bearer realm=\"http://{place}/token\",service=\"s t\"");
                Answer::status(401).header("WWW-Authenticate", &challenge)
            }
            ("/token", Some("Basic YW5uOnB3")) => {
                json("{\"access_token\": \"access\", \"refresh_token\": \"for later\"}")
            }
            ("/token", Some("Basic Ym9iOnB3")) => {
                json("{\"access_token\": \"access\", \"refresh_token\": \"later\"}")
            }
            _ => Answer::status(401),
        }
    });
    let host = registry.name("").trim_end_matches('/').to_owned();
    host.clone_into(&mut port.lock().unwrap());
    let user = User::new(&stanza);
    let config = |user: &User| -> Value {
        serde_json::from_slice(&fs::read(user.path(".docker/config.json")).unwrap()).unwrap()
    };
    user.ok(&["login", "-u", "bob", "-p", "pw", &format!("http://{host}/v2/")]);
    assert_eq!(
        config(&user),
        json!({"auths": {host.as_str(): {"auth": "Ym9iOg==", "identitytoken": "later"}}})
    );
    let token = registry.requests().into_iter().find(|request| request.path.starts_with("/token")).unwrap();
    assert_eq!(token.path, "/token?account=bob&client_id=stanza&offline_token=true&service=s%20t");
    // A token with a space is none that a header could carry.
    user.ok(&["login", "-u", "ann", "-p", "pw", &host]);
    assert_eq!(config(&user), json!({"auths": {host.as_str(): {"auth": "YW5uOnB3"}}}));
    let error = user.fails(&["login", "-u", "eve", "-p", "pw", &host]);
    assert!(error.contains(&format!("registry `{host}` refuses this user name and password")), "{error}");
}

#[test]
fn a_blocked_registry_is_not_asked_and_a_wrong_file_is_named_with_its_line() {
    let stanza = fixture!(Empty);
    let user = User::new(&stanza);
    let file = user.file(
        ".config/containers/registries.conf",
        "[[registry]]\nlocation = \"127.0.0.1:1\"\nblocked = true\n",
    );
    let error = user.fails(&["pull", "127.0.0.1:1/a:1"]);
    assert!(
        error.contains(&format!(
            "registry `127.0.0.1:1` is blocked by `{file}`, so `127.0.0.1:1/a:1` is not fetched"
        )),
        "{error}"
    );
    let other = user.file("other.conf", "\n[[registry]]\ninsecure = 5\n");
    let user = user.with("CONTAINERS_REGISTRIES_CONF", &other);
    let error = user.fails(&["pull", "127.0.0.1:1/a:1"]);
    assert!(error.contains(&format!("`{other}`, line 3, is wrong: ")), "{error}");
}

#[test]
fn an_insecure_registry_needs_no_known_certificate() {
    let stanza = fixture!(Empty);
    let registry = registry!(SecureRegistry::start(TLS));
    registry.push(&layout(&stanza), "room:1");
    let user = User::new(&stanza);
    user.file(
        ".config/containers/registries.conf",
        format!("[[registry]]\nlocation = \"127.0.0.1:{}\"\ninsecure = true\n", registry.port()),
    );
    user.ok(&["pull", &registry.name("room:1")]);
}

#[test]
fn a_short_name_may_be_an_alias() {
    let stanza = fixture!(Empty);
    let registry = registry!(Registry::start());
    let _ = registry.push(&layout(&stanza), "team/room:1");
    let user = User::new(&stanza);
    user.file(
        ".config/containers/registries.conf.d/shortnames.conf",
        format!("[aliases]\n\"parlour\" = \"{}\"\n", registry.name("team/room")),
    );
    assert_eq!(user.ok(&["run", "--rm", "--network", "none", "parlour:1"]), "here\n");
    assert_eq!(user.ok(&["run", "--rm", "--network", "none", "--pull", "never", "parlour:1"]), "here\n");
    let pulled = user.ok(&["pull", "parlour:1"]);
    assert_eq!(pulled.lines().last(), Some(registry.name("team/room:1").as_str()), "{pulled}");
    user.ok(&["rmi", "parlour:1"]);
    let error = user.fails(&["image", "inspect", "parlour:1"]);
    assert!(error.contains("parlour:1") && !error.contains("team"), "{error}");
}

/// A proxy for all hosts, that leads to one port of this machine.
struct Proxy {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// `socks` makes it speak SOCKS 5, and otherwise HTTP.
    fn start(target: u16, socks: bool) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&heads);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let seen = Arc::clone(&seen);
                // A client that goes away is no concern of the proxy.
                std::thread::spawn(move || {
                    if socks { serve_socks(client, target, &seen) } else { serve_http(client, target, &seen) }
                });
            }
        });
        Proxy { port, heads }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("no thread panics with the lock").clone()
    }
}

fn pump(client: TcpStream, server: TcpStream) -> std::io::Result<()> {
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        to.shutdown(Shutdown::Write)
    });
    let (mut from, mut to) = (server, client);
    std::io::copy(&mut from, &mut to)?;
    to.shutdown(Shutdown::Write)
}

fn serve_http(client: TcpStream, target: u16, seen: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    seen.lock().expect("no thread panics with the lock").push(head.clone());
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, target))?;
    let mut client = client;
    if head.starts_with("CONNECT ") {
        client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n")?;
        return pump(client, server);
    }
    // One request for each connection: the path of a URL that names its host.
    let (line, rest) = head.split_once("\r\n").expect("a request line");
    let (method, url) = line.split_once(' ').expect("a method");
    let path = url.splitn(4, '/').nth(3).expect("a path");
    server.write_all(format!("{method} /{path}\r\nConnection: close\r\n{rest}").as_bytes())?;
    pump(client, server)
}

fn serve_socks(mut client: TcpStream, target: u16, seen: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let read = |count: usize, client: &mut TcpStream| {
        let mut bytes = vec![0; count];
        client.read_exact(&mut bytes).map(|()| bytes)
    };
    let methods = read(2, &mut client)?[1];
    read(methods.into(), &mut client)?;
    client.write_all(&[5, 0])?;
    let request = read(5, &mut client)?;
    assert_eq!(request[..4], [5, 1, 0, 3], "a connection to a name");
    let name = read(request[4].into(), &mut client)?;
    let port = read(2, &mut client)?;
    let port = u16::from_be_bytes([port[0], port[1]]);
    seen.lock()
        .expect("no thread panics with the lock")
        .push(format!("{}:{port}", String::from_utf8_lossy(&name)));
    client.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 0])?;
    pump(client, TcpStream::connect((Ipv4Addr::LOCALHOST, target))?)
}

#[test]
fn proxies_of_the_environment_are_used_but_for_loopback() {
    let stanza = fixture!(Empty);
    let registry = registry!(SecureRegistry::start(TLS));
    let image = layout(&stanza);
    registry.push(&image, "room:1");
    let proxy = Proxy::start(registry.port(), false);
    let authority = registry.authority();
    let address = format!("http://u:p%40@127.0.0.1:{}", proxy.port);
    let user = User::new(&stanza)
        .with("SSL_CERT_FILE", authority.to_str().unwrap())
        .with("HTTPS_PROXY", &address)
        .with("NO_PROXY", "127.0.0.1");
    user.ok(&["pull", "registry.test:7000/room:1"]);
    let heads = proxy.heads();
    assert_eq!(heads.len(), 1, "one connection for all: {heads:?}");
    assert!(heads[0].starts_with("CONNECT registry.test:7000 HTTP/1.1\r\n"), "{heads:?}");
    assert!(heads[0].contains("\r\nProxy-Authorization: Basic dTpwQA==\r\n"), "{heads:?}");
    user.ok(&["pull", &registry.name("room:1")]);
    assert_eq!(proxy.heads().len(), 1, "loopback goes past it");
    let user = user.with("NO_PROXY", "x.test, .test");
    let error = user.fails(&["pull", "registry.test:7000/room:1"]);
    assert!(error.contains("cannot reach registry `registry.test:7000`"), "{error}");
    assert_eq!(proxy.heads().len(), 1);
    let user = User::new(&stanza).with("HTTPS_PROXY", &format!("http://127.0.0.1:{}", free_port()));
    let error = user.fails(&["pull", "registry.test:7000/room:1"]);
    assert!(error.contains("proxy `127.0.0.1:"), "{error}");
}

#[test]
fn plain_requests_and_socks_go_through_a_proxy_too() {
    let stanza = fixture!(Empty);
    let registry = registry!(SecureRegistry::start(PLAIN));
    registry.push(&layout(&stanza), "room:1");
    let user = User::new(&stanza);
    user.file(
        ".config/containers/registries.conf",
        "[[registry]]\nlocation = \"registry.test:7000\"\ninsecure = true\n",
    );
    let proxy = Proxy::start(registry.port(), false);
    let user = user.with("ALL_PROXY", &format!("http://u:p@127.0.0.1:{}", proxy.port));
    user.ok(&["pull", "registry.test:7000/room:1"]);
    let heads = proxy.heads();
    let plain: Vec<&String> =
        heads.iter().filter(|head| head.starts_with("GET http://registry.test:7000/v2/")).collect();
    assert_eq!(plain.len(), 3, "{heads:?}");
    assert!(
        plain.iter().all(|head| head.to_lowercase().contains("\r\nproxy-authorization: basic dtpw\r\n")),
        "{heads:?}"
    );
    user.ok(&["rmi", "registry.test:7000/room:1"]);
    let socks = Proxy::start(registry.port(), true);
    let user = user.with("ALL_PROXY", &format!("socks5h://127.0.0.1:{}", socks.port));
    user.ok(&["pull", "registry.test:7000/room:1"]);
    assert!(socks.heads().iter().all(|name| name == "registry.test:7000"), "{:?}", socks.heads());
    assert!(!socks.heads().is_empty());
}

/// A credential helper that keeps what it is given in one file, and says what it was asked.
const HELPER: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 9
input=$(cat)
echo "$1 $input" >> asked
case $1 in
store) printf '%s' "$input" > kept ;;
get) [ -f kept ] || { echo credentials not found in native keychain; exit 1; }; cat kept ;;
erase) rm kept ;;
list) [ -f kept ] && echo "{\"$SERVER\":\"ann\"}" || echo '{}' ;;
esac
"#;

#[test]
fn a_helper_is_given_the_credentials_asked_for_them_and_made_to_forget_them() {
    let stanza = fixture!(Empty);
    let registry = registry!(SecureRegistry::start(LOGIN));
    registry.push(&layout(&stanza), "room:1");
    let host = format!("127.0.0.1:{}", registry.port());
    let user = User::new(&stanza);
    let helper = user.file("bin/docker-credential-safe", HELPER);
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", user.path("bin"), std::env::var("PATH").unwrap());
    let user = user.with("PATH", &path).with("SERVER", &host);
    let config = user.file(".docker/config.json", r#"{"credsStore":"safe","other":1}"#);
    let login = ["login", "-u", "ann", "--password-stdin", host.as_str()];
    let done = user.output_with_input(&login, b"open sesame\n");
    assert_eq!((done.code, done.stdout.as_str(), done.stderr.as_str()), (0, "Login Succeeded\n", ""));
    let read = |path: &str| fs::read_to_string(user.path(path)).unwrap();
    let kept: Value = serde_json::from_str(&read("bin/kept")).unwrap();
    assert_eq!(kept, json!({"ServerURL": host, "Username": "ann", "Secret": "open sesame"}));
    let written: Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
    assert_eq!(written, json!({"credsStore": "safe", "other": 1, "auths": {host.as_str(): {}}}));
    user.ok(&["pull", &registry.name("room:1")]);
    assert!(read("bin/asked").lines().any(|line| line == format!("get {host}")));
    user.ok(&["logout", &host]);
    assert!(!std::path::Path::new(&user.path("bin/kept")).exists());
    assert!(user.fails(&["pull", &registry.name("room:1")]).contains("wants other credentials"));
    let done = user.output_with_input(&login, b"open sesame\n");
    assert_eq!(done.code, 0, "{}", done.stderr);
    user.ok(&["logout", "--all"]);
    assert!(!std::path::Path::new(&user.path("bin/kept")).exists());
    user.file("bin/docker-credential-safe", "#!/bin/sh\necho the safe is locked; exit 1\n");
    let error = user.fails(&["pull", &registry.name("room:1")]);
    assert!(error.contains("`docker-credential-safe get` fails: the safe is locked"), "{error}");
    fs::remove_file(helper).unwrap();
    let error = user.fails(&["pull", &registry.name("room:1")]);
    assert!(error.contains("hint: install `docker-credential-safe`"), "{error}");
}

#[test]
fn login_and_logout_share_their_file_with_skopeo_and_podman() {
    let stanza = fixture!(Empty);
    let registry = registry!(SecureRegistry::start(LOGIN));
    registry.push(&layout(&stanza), "room:1");
    let (host, name) = (format!("127.0.0.1:{}", registry.port()), registry.name("room:1"));
    let user = User::new(&stanza);
    assert!(
        user.fails(&["pull", &name])
            .contains(&format!("hint: check the spelling; if the image is private, `stanza login {host}`"))
    );
    let authfile = user.path("deep/auth.json");
    let option = format!("--authfile={authfile}");
    let refused =
        user.output_with_input(&["login", "-u", "ann", "--password-stdin", &option, &host], b"wrong");
    assert_eq!((refused.code, refused.stdout.as_str()), (1, ""));
    assert!(refused.stderr.contains(&format!("registry `{host}` refuses this user name and password")));
    assert!(!std::path::Path::new(&authfile).exists());
    let done = user.output(&["login", "-u", "ann", "-p", "open sesame", &option, &host]);
    assert_eq!((done.code, done.stdout.as_str()), (0, "Login Succeeded\n"), "{}", done.stderr);
    assert!(
        done.stderr.starts_with("WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n")
    );
    assert!(
        done.stderr.contains(&format!("WARNING! Your password will be stored unencrypted in {authfile}.\n"))
    );
    assert_eq!(fs::metadata(&authfile).unwrap().permissions().mode() & 0o777, 0o600);
    let inspect = |user: &User| {
        user.tool(&["skopeo", "inspect", "--tls-verify=false", &option, &format!("docker://{name}")]).code
    };
    assert_eq!(inspect(&user), 0, "skopeo reads what we wrote");
    let again = user.output(&["login", &option, &host]);
    assert_eq!(again.stdout, "Authenticating with existing credentials...\nLogin Succeeded\n");
    assert_eq!(user.ok(&["logout", &option, &host]), format!("Removing login credentials for {host}\n"));
    assert_eq!(inspect(&user), 1);
    let none = user.output(&["logout", &option, &host]);
    assert_eq!((none.code, none.stderr), (0, format!("warning: there were no credentials for {host}\n")));
    if !have("podman") {
        skip!("no `podman`");
    }
    let done = user.tool(&[
        "podman",
        "login",
        "--tls-verify=false",
        "-u",
        "ann",
        "-p",
        "open sesame",
        &option,
        &host,
    ]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    let user = user.with("REGISTRY_AUTH_FILE", &authfile);
    user.ok(&["pull", &name]);
    let got = user.tool(&["podman", "login", "--get-login", &host]);
    assert_eq!(got.stdout, "ann\n", "{}", got.stderr);
    user.ok(&["logout", &host]);
    assert_eq!(user.tool(&["podman", "login", "--get-login", &host]).code, 125);
}

#[test]
fn a_login_on_a_terminal_asks_and_does_not_show_the_password() {
    let stanza = fixture!(Empty);
    let registry = registry!(SecureRegistry::start(LOGIN));
    let host = format!("127.0.0.1:{}", registry.port());
    let user = User::new(&stanza);
    let mut terminal = Terminal::start(&user.command(&["login", &host]));
    terminal.expect("Username: ");
    terminal.send(b"ann\n");
    terminal.expect("Password: ");
    terminal.wait_raw();
    terminal.send(b"wrong\x15opep\x7fn sesame\r");
    let shown = terminal.expect("Login Succeeded");
    assert!(!shown.contains("sesame"), "{shown:?}");
    let config: Value = serde_json::from_slice(&fs::read(user.path(".docker/config.json")).unwrap()).unwrap();
    assert_eq!(config, json!({"auths": {host.as_str(): {"auth": "YW5uOm9wZW4gc2VzYW1l"}}}));
    let error = user.output(&["login", "--password-stdin", &host]);
    assert_eq!(
        (error.code, error.stderr.lines().next()),
        (1, Some("stanza: Must provide --username with --password-stdin"))
    );
    let error = user.output(&["login", "localhost:1"]);
    assert!(
        error.stderr.contains("Cannot perform an interactive login from a non TTY device"),
        "{}",
        error.stderr
    );
    let error = user.output(&["login", "-u", "a", "-p", "b", "a b"]);
    assert!(error.stderr.contains("`a b` is not the name of a registry"), "{}", error.stderr);
}
