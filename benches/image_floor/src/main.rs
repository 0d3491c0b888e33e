//! The least that a pull of an image has to do, for `cargo xtask bench image`.
//!
//! ```text
//!   image-floor verify HOST:PORT REPOSITORY            LAYER…     socket -> sha256 -> inflate -> sha256
//!   image-floor files  HOST:PORT REPOSITORY DIRECTORY  LAYER…     … -> the files, by the simplest calls
//!   LAYER = gzip|zstd,DIGEST,DIFF_ID
//! ```
//!
//! A thread for each layer, one pass, nothing kept: no manifest, no blob, no owners, modes, times or attributes, no device, no check
//! of a name, nothing synced. Whatever an engine does more is what it does for its user. The archives are the bench's own:
//! this is no reader for anybody else's.

#![forbid(unsafe_code)]

mod untar;

use std::fmt::Write as _;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use sha2::{Digest as _, Sha256};

/// Large enough for few calls, small enough to stay in the processor's cache between socket, hash and inflate.
const BUFFER: usize = 256 * 1024;

/// What passes is hashed.
struct Hashed<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Hashed<R> {
    fn new(inner: R) -> Hashed<R> {
        Hashed { inner, hash: Sha256::new() }
    }

    /// Whether all that passed has this digest.
    fn check(self, digest: &str) -> io::Result<()> {
        let mut found = "sha256:".to_owned();
        for byte in self.hash.finalize() {
            let _ = write!(found, "{byte:02x}");
        }
        if found == digest { Ok(()) } else { Err(io::Error::other(format!("{found} is not {digest}"))) }
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

/// The body of a blob.
fn get(host: &str, repository: &str, digest: &str) -> io::Result<io::Take<BufReader<TcpStream>>> {
    let mut stream = TcpStream::connect(host)?;
    write!(
        stream,
        "GET /v2/{repository}/blobs/{digest} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )?;
    let mut reader = BufReader::with_capacity(BUFFER, stream);
    let (mut length, mut line) = (None, String::new());
    reader.read_line(&mut line)?;
    if line.split(' ').nth(1) != Some("200") {
        return Err(io::Error::other(format!("{digest}: {}", line.trim())));
    }
    while !line.trim().is_empty() {
        line.clear();
        reader.read_line(&mut line)?;
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok();
        }
    }
    Ok(reader.take(length.ok_or_else(|| io::Error::other("a blob without a length"))?))
}

fn layer(host: &str, repository: &str, directory: Option<&Path>, words: &str) -> io::Result<()> {
    let mut words = words.split(',');
    let mut word = || words.next().ok_or_else(|| io::Error::other("a layer is gzip|zstd,DIGEST,DIFF_ID"));
    let (kind, digest, diff_id) = (word()?, word()?, word()?);
    let blob = BufReader::with_capacity(BUFFER, Hashed::new(get(host, repository, digest)?));
    let mut blob = if kind == "zstd" {
        let decoder = zstd::Decoder::with_buffer(blob)?;
        unpack(decoder, directory, diff_id)?.finish()
    } else {
        unpack(flate2::bufread::MultiGzDecoder::new(blob), directory, diff_id)?.into_inner()
    };
    io::copy(&mut blob, &mut io::sink())?;
    blob.into_inner().check(digest)
}

fn unpack<R: Read>(inflated: R, directory: Option<&Path>, diff_id: &str) -> io::Result<R> {
    let mut tar = BufReader::with_capacity(BUFFER, Hashed::new(inflated));
    if let Some(directory) = directory {
        untar::untar(&mut tar, directory)?;
    }
    loop {
        let length = tar.fill_buf()?.len();
        if length == 0 {
            break;
        }
        tar.consume(length);
    }
    let Hashed { inner, hash } = tar.into_inner();
    Hashed { inner: io::empty(), hash }.check(diff_id)?;
    Ok(inner)
}

fn run(words: &[String]) -> io::Result<()> {
    let usage = || io::Error::other("image-floor verify|files HOST:PORT REPOSITORY [DIRECTORY] LAYER…");
    let [mode, host, repository, rest @ ..] = words else { return Err(usage()) };
    let (directory, layers) = match (mode.as_str(), rest) {
        ("verify", layers) => (None, layers),
        ("files", [directory, layers @ ..]) => (Some(PathBuf::from(directory)), layers),
        _ => return Err(usage()),
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = layers
            .iter()
            .enumerate()
            .map(|(number, words)| {
                let own = directory.as_ref().map(|directory| directory.join(number.to_string()));
                scope.spawn(move || layer(host, repository, own.as_deref(), words))
            })
            .collect();
        let mut ended = threads.into_iter().map(|thread| thread.join());
        ended.try_for_each(|result| result.unwrap_or_else(|_| Err(io::Error::other("a thread panicked"))))
    })
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("image-floor: {error}");
            ExitCode::FAILURE
        }
    }
}
