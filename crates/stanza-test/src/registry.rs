//! Debian's `docker-registry` on a private port and directory.

use std::fs;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::{Layout, free_port, have, tool, wait_until};

/// A registry on loopback; gone when dropped.
#[derive(Debug)]
pub struct Registry {
    port: u16,
    child: Child,
    directory: TempDir,
}

impl Registry {
    /// Starts one.
    ///
    /// # Errors
    /// The reason why there is none.
    pub fn start() -> Result<Registry, String> {
        for (program, package) in [("docker-registry", "docker-registry"), ("skopeo", "skopeo")] {
            if !have(program) {
                return Err(format!("no `{program}` (package {package})"));
            }
        }
        let directory = TempDir::new().map_err(|error| error.to_string())?;
        let port = free_port();
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"127.0.0.1:{port}\"}}\n",
            directory.path().join("data").display()
        );
        let file = directory.path().join("config.yml");
        fs::write(&file, config).map_err(|error| error.to_string())?;
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("`docker-registry` does not start: {error}"))?;
        wait_until("the registry answers", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Ok(Registry { port, child, directory })
    }

    /// `127.0.0.1:PORT/REPOSITORY`.
    #[must_use]
    pub fn name(&self, repository: &str) -> String {
        format!("127.0.0.1:{}/{repository}", self.port)
    }

    /// Pushes an image, its layers compressed as `skopeo` does; gives the digest of its manifest in the registry.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn push(&self, layout: &Layout, repository: &str) -> String {
        let source = TempDir::new_in(self.directory.path()).expect("a directory");
        layout.write(source.path(), "x").expect("the layout is written");
        let target = format!("docker://{}", self.name(repository));
        let pushed = tool(&[
            "skopeo",
            "--insecure-policy",
            "copy",
            "--quiet",
            "--dest-tls-verify=false",
            &format!("oci:{}:x", source.path().display()),
            &target,
        ]);
        assert_eq!(pushed.code, 0, "skopeo copy: {}", pushed.stderr);
        let seen = tool(&[
            "skopeo",
            "--insecure-policy",
            "inspect",
            "--tls-verify=false",
            "--format",
            "{{.Digest}}",
            &target,
        ]);
        assert_eq!(seen.code, 0, "skopeo inspect: {}", seen.stderr);
        seen.stdout.trim().to_owned()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
