//! Debian's `docker-registry` with TLS, client certificates and users.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::{Layout, free_port, have, tool, wait_until};

/// What a [`SecureRegistry`] demands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Demands {
    /// TLS, with a certificate of [`SecureRegistry::authority`] for `127.0.0.1`, `localhost` and `registry.test`.
    pub tls: bool,
    /// A client certificate of that authority.
    pub client_certificate: bool,
    /// The user [`SecureRegistry::USER`].
    pub login: bool,
}

/// A registry on loopback; gone when dropped.
#[derive(Debug)]
pub struct SecureRegistry {
    port: u16,
    child: Child,
    directory: TempDir,
    demands: Demands,
}

/// `open sesame`, by `htpasswd -B`.
const HTPASSWD: &str = "ann:$2y$04$m3JcnAjaIUrItFeo74vj.OEJeCWyzS82OGmrTngf/ntF7pH815ntO\n";

impl SecureRegistry {
    /// The user that a login wants.
    pub const USER: &str = "ann";
    /// The user's password.
    pub const PASSWORD: &str = "open sesame";

    /// Starts one.
    ///
    /// # Errors
    /// The reason why there is none.
    pub fn start(demands: Demands) -> Result<SecureRegistry, String> {
        for (program, package) in
            [("docker-registry", "docker-registry"), ("skopeo", "skopeo"), ("openssl", "openssl")]
        {
            if !have(program) {
                return Err(format!("no `{program}` (package {package})"));
            }
        }
        let directory = TempDir::new().map_err(|error| error.to_string())?;
        make_certificates(directory.path())?;
        let path = |name: &str| directory.path().join(name).display().to_string();
        fs::write(path("htpasswd"), HTPASSWD).map_err(|error| error.to_string())?;
        let port = free_port();
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http:\n  addr: \"127.0.0.1:{port}\"\n",
            path("data")
        );
        if demands.tls {
            config.push_str(&format!(
                "  tls:\n    certificate: {}\n    key: {}\n",
                path("server.pem"),
                path("server.key")
            ));
        }
        if demands.client_certificate {
            config.push_str(&format!("    clientcas: [{}]\n", path("ca.pem")));
        }
        if demands.login {
            config.push_str(&format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", path("htpasswd")));
        }
        fs::write(path("config.yml"), &config).map_err(|error| error.to_string())?;
        let log = fs::File::create(path("log")).map_err(|error| error.to_string())?;
        let child = Command::new("docker-registry")
            .args(["serve", &path("config.yml")])
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("`docker-registry` does not start: {error}"))?;
        wait_until("the registry answers", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Ok(SecureRegistry { port, child, directory, demands })
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:PORT/REPOSITORY`.
    #[must_use]
    pub fn name(&self, repository: &str) -> String {
        format!("127.0.0.1:{}/{repository}", self.port)
    }

    /// The authority's certificate.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// A client's certificate and key.
    #[must_use]
    pub fn client(&self) -> (PathBuf, PathBuf) {
        (self.directory.path().join("client.pem"), self.directory.path().join("client.key"))
    }

    /// The requests that were answered, as an HTTP server logs them.
    ///
    /// # Panics
    /// When the log cannot be read.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).expect("the log is read")
    }

    /// Pushes an image.
    ///
    /// # Panics
    /// When that fails.
    pub fn push(&self, layout: &Layout, repository: &str) {
        let source = TempDir::new_in(self.directory.path()).expect("a directory");
        layout.write(source.path(), "x").expect("the layout is written");
        let certificates = TempDir::new_in(self.directory.path()).expect("a directory");
        for (from, to) in [("client.pem", "client.cert"), ("client.key", "client.key")] {
            fs::copy(self.directory.path().join(from), certificates.path().join(to)).expect("a copy");
        }
        let certificates = format!("--dest-cert-dir={}", certificates.path().display());
        let user = format!("--dest-creds={}:{}", Self::USER, Self::PASSWORD);
        let from = format!("oci:{}:x", source.path().display());
        let to = format!("docker://{}", self.name(repository));
        let mut words = vec!["skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"];
        if self.demands.client_certificate {
            words.push(&certificates);
        }
        if self.demands.login {
            words.push(&user);
        }
        words.extend([from.as_str(), to.as_str()]);
        let pushed = tool(&words);
        assert_eq!(pushed.code, 0, "skopeo copy: {}", pushed.stderr);
    }
}

impl Drop for SecureRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An authority, and certificates of it for a server and a client.
fn make_certificates(directory: &Path) -> Result<(), String> {
    let names = "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:registry.test";
    let signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE"];
    let cases: [(&str, &[&str]); 3] = [
        ("ca", &["-addext", "keyUsage=critical,keyCertSign"]),
        ("server", &[&signed[..], &["-addext", names]].concat()),
        ("client", &[&signed[..], &["-addext", "extendedKeyUsage=clientAuth"]].concat()),
    ];
    for (name, rest) in cases {
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
            .args(["-days", "2", "-subj", &format!("/CN=stanza test {name}")])
            .args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem")])
            .args(rest)
            .current_dir(directory)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("`openssl` does not start: {error}"))?;
        if !made.status.success() {
            return Err(format!("openssl makes no certificate: {}", String::from_utf8_lossy(&made.stderr)));
        }
    }
    Ok(())
}
