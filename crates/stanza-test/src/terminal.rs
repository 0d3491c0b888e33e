//! A command on a terminal of its own.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd as _;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::process::code;

/// The master side of a terminal whose slave side is a command's three streams and controlling terminal.
#[derive(Debug)]
pub struct Terminal {
    master: File,
    child: Child,
    output: Receiver<Vec<u8>>,
    so_far: String,
}

impl Terminal {
    /// Starts `command` on a terminal of 24 rows and 80 columns.
    ///
    /// # Panics
    /// When there is no terminal, or no `setsid`.
    #[must_use]
    pub fn start(command: &Command) -> Terminal {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&master).expect("the terminal is granted");
        unlockpt(&master).expect("the terminal is unlocked");
        let name = ptsname(&master, Vec::new()).expect("the terminal has a name");
        let slave = File::options()
            .read(true)
            .write(true)
            .open(name.to_str().expect("a plain path"))
            .expect("the slave opens");
        let copy = || slave.try_clone().expect("a descriptor");
        let mut session = Command::new("setsid");
        session.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        session.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let child = session.stdin(copy()).stdout(copy()).stderr(slave).spawn().expect("`setsid` starts");
        // Else the slave's descriptors that the command keeps would hold the terminal open.
        drop(session);
        let master = File::from(master);
        let mut reader = master.try_clone().expect("a descriptor");
        let (sender, output) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        let terminal = Terminal { master, child, output, so_far: String::new() };
        terminal.resize(24, 80);
        terminal
    }

    /// Types.
    ///
    /// # Panics
    /// When the terminal is closed.
    pub fn send(&mut self, bytes: &[u8]) {
        self.master.write_all(bytes).expect("the terminal takes input");
    }

    /// Waits until the command reads every byte as it is typed. Before that the terminal itself would take some, as the one for
    /// the end of input.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn wait_raw(&self) {
        crate::wait_until("the terminal is raw", || {
            tcgetattr(&self.master).is_ok_and(|modes| !modes.local_modes.contains(LocalModes::ICANON))
        });
    }

    /// Changes its size.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(self.master.as_fd(), size).expect("the size is set");
    }

    /// Waits until the output since the last call contains `text`; what came before and with it.
    ///
    /// # Panics
    /// When it does not come in time.
    pub fn expect(&mut self, text: &str) -> String {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            self.so_far
                .extend(self.output.try_iter().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()));
            if let Some(at) = self.so_far.find(text) {
                let after = self.so_far.split_off(at + text.len());
                return std::mem::replace(&mut self.so_far, after);
            }
            assert!(Instant::now() < end, "no `{text}` on the terminal, but {:?}", self.so_far);
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for the command's end; its exit code.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn finish(&mut self) -> i32 {
        let child = &mut self.child;
        crate::wait_for("the command on the terminal ends", || {
            child.try_wait().expect("wait works").map(code)
        })
    }

    /// Waits for the command's end; its exit code, and the output that nothing was expected of.
    ///
    /// # Panics
    /// When it does not end in time, or leaves something behind that holds the terminal open.
    pub fn rest(mut self) -> (i32, String) {
        let code = self.finish();
        let end = Instant::now() + Duration::from_secs(20);
        while let Ok(bytes) = self.output.recv_timeout(end.saturating_duration_since(Instant::now())) {
            self.so_far.push_str(&String::from_utf8_lossy(&bytes));
        }
        assert!(Instant::now() < end, "something holds the terminal open after {:?}", self.so_far);
        (code, std::mem::take(&mut self.so_far))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
