//! `events`: what a container uses, every few seconds or once, and each time the kernel kills one of its processes for want
//! of memory; one line of JSON each, as runc's.

use std::io::Write;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use stanza_cgroup::{Event, EventStats, OomEvent, OomWatch};

use crate::arguments::{Parsed, Verb, option, switch};
use crate::context::Context;
use crate::failure::{Doing, Failure};
use crate::log;
use crate::state::{Container, Status};

pub(super) static VERB: Verb = Verb {
    name: "events",
    usage: "ID",
    help: "Print what a container uses and when it runs out of memory",
    flags: &[
        option(&["interval"], "TIME", "how often, as 5s (the default), 500ms or 1m"),
        switch(&["stats"], "print what it uses now, once"),
    ],
    own_words: usize::MAX,
    run,
};

fn run(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let id = parsed.id()?;
    let interval = duration(parsed.value("interval").unwrap_or("5s"))
        .filter(|interval| !interval.is_zero())
        .ok_or_else(|| Failure::Usage("duration interval must be greater than 0".to_owned()))?;
    let container = Container::open(context, id)?;
    if container.status() == Status::Stopped {
        return Err(Failure::State(format!("container with id {id} is not running")));
    }
    if parsed.is_on("stats") {
        print("stats", id, Some(&stats(&container)?))?;
        return Ok(0);
    }
    follow(context, &container, interval)?;
    Ok(0)
}

fn stats(container: &Container) -> Result<EventStats, Failure> {
    let mut stats = container.cgroup().event_stats().map_err(Failure::below)?;
    if let Some(rdt) = &container.record.rdt {
        stats.intel_rdt = rdt.stats().map_err(Failure::below)?;
    }
    Ok(stats)
}

fn print(kind: &str, id: &str, data: Option<&EventStats>) -> Result<(), Failure> {
    let mut text = serde_json::to_vec(&Event { kind, id, data }).map_err(Failure::below)?;
    text.push(b'\n');
    std::io::stdout().write_all(&text).step("write to standard output")
}

/// Until the container ends.
fn follow(context: &Context, container: &Container, interval: Duration) -> Result<(), Failure> {
    let id = &container.record.id;
    let Some(init) = container.init() else { return Ok(()) };
    let mut watch = match container.cgroup().watch_oom() {
        Ok(watch) => Some(watch),
        Err(error) => {
            log::warn(context, &format!("out-of-memory events are not seen: {error}"));
            None
        }
    };
    let mut next = Instant::now() + interval;
    loop {
        let left = Timespec::try_from(next.saturating_duration_since(Instant::now())).unwrap_or_default();
        let mut polled = vec![PollFd::new(&init, PollFlags::IN)];
        polled.extend(watch.as_ref().map(|watch| PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN)));
        match poll(&mut polled, Some(&left)) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.step("wait for events")?,
        };
        let ended = !polled[0].revents().is_empty();
        drop(polled);
        if let Some(watch) = &mut watch {
            tell_kills(watch, id)?;
        }
        if ended {
            return Ok(());
        }
        if Instant::now() >= next {
            next += interval;
            // A container that is just ending cannot be counted.
            if let Ok(stats) = stats(container) {
                print("stats", id, Some(&stats))?;
            }
        }
    }
}

fn tell_kills(watch: &mut OomWatch, id: &str) -> Result<(), Failure> {
    while watch.check().step("watch for a lack of memory")? == OomEvent::Oom {
        print("oom", id, None)?;
    }
    Ok(())
}

/// `5s`, `500ms`, `1m30s`: Go's durations, with whole numbers.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(digits);
        let number: u32 = number.parse().ok()?;
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        total += match unit {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            _ => return None,
        }
        .checked_mul(number)?;
        rest = after;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        assert_eq!(duration("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!((duration("5"), duration("s"), duration("-1s")), (None, None, None));
    }
}
