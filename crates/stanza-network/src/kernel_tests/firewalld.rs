//! Beside firewalld, which makes its own rules anew whenever it is told to.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, ChildStdout};

use super::*;
use crate::Firewall;

/// Runs firewalld with a bus of its own; reloads it for each line that it is given, and ends with its input.
const SCRIPT: &str = r#"
dir=$(mktemp -d); export DBUS_SYSTEM_BUS_ADDRESS=unix:path=$dir/bus
trap 'kill $firewalld $bus 2>/dev/null; wait; rm -rf "$dir"' EXIT
cat > "$dir/bus.conf" <<END
<busconfig><type>system</type><listen>unix:path=$dir/bus</listen><auth>EXTERNAL</auth><policy context="default">
<allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_type="method_call"/>
</policy></busconfig>
END
dbus-daemon --config-file="$dir/bus.conf" --nofork --nopidfile >&2 & bus=$!
until [ -S "$dir/bus" ]; do kill -0 $bus || exit; sleep 0.1; done
firewalld --nofork --nopid --system-config "$dir" >&2 & firewalld=$!
until firewall-cmd --state >&2; do kill -0 $firewalld || exit; sleep 0.2; done
echo running
while read -r way; do firewall-cmd "--$way"; done
"#;

struct Firewalld {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Firewalld {
    /// `None` where it is not installed, or does not run here.
    fn start(host: &Space) -> Option<Firewalld> {
        let mut child = host.run(|| {
            let (input, output) = (Stdio::piped(), Stdio::piped());
            Command::new("bash")
                .args(["-c", SCRIPT])
                .stdin(input)
                .stdout(output)
                .stderr(Stdio::null())
                .spawn()
                .ok()
        })?;
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take()?);
        let mut firewalld = Firewalld { child, orders, answers };
        if firewalld.answer() != "running\n" {
            skipped("firewalld does not run here");
            return None;
        }
        Some(firewalld)
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line
    }

    fn reload(&mut self, way: &str) {
        writeln!(self.orders.as_mut().unwrap(), "{way}").unwrap();
        assert_eq!(self.answer(), "success\n", "{way}");
    }
}

impl Drop for Firewalld {
    fn drop(&mut self) {
        drop(self.orders.take());
        let _ = self.child.wait();
    }
}

#[test]
fn firewalld_closes_what_respects_it_lets_in_what_is_open_and_its_reloads_change_neither() {
    let Some(world) = World::new() else { return };
    let Some(mut firewalld) = Firewalld::start(&world.host) else { return };
    let closed = tcp(None, 8080, 80);
    let closed = EndpointsPlan { publish: Publish::RespectFirewall, ..plan(2, &[closed]) };
    let (closed, open) = (world.start(closed), world.container(3, &[tcp(None, 8081, 80)]));
    for (container, name) in [(&closed, "closed"), (&open, "open")] {
        serve_tcp(&container.space, container.address(), 80, name);
    }
    let seen = Firewall {
        drops_ipv4: true,
        drops_ipv6: true,
        forward_drops: vec!["inet firewalld filter_FORWARD".to_owned()],
        ..Firewall::default()
    };
    assert_eq!(world.host.run(|| Firewall::look().unwrap()), seen);
    let check = |when: &str| {
        ask_tcp_for(&world.outside, HOST, 8080, SILENCE).expect_err(when);
        assert_eq!(ask_tcp(&world.outside, HOST, 8081).expect(when), "open 192.0.2.2");
        assert_eq!(ask_tcp(&world.host, HOST, 8080).expect(when), "closed 192.0.2.1");
    };
    check("before");
    for way in ["reload", "complete-reload"] {
        firewalld.reload(way);
        check(way);
    }
    nft(&world.host, "add rule inet stanza user meta l4proto tcp ct original proto-dst 8080 accept").unwrap();
    firewalld.reload("reload");
    assert_eq!(ask_tcp(&world.outside, HOST, 8080).unwrap(), "closed 192.0.2.2");
}
