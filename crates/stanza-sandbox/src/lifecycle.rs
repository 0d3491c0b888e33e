//! The life of one container, as its monitor leads it.
//!
//! ```text
//!            plan              launched             exited              collected            torn down
//!  Waiting ───────▶ Starting ───────────▶ Running ──────────▶ Draining ───────────▶ Clearing ───────────▶ Ended
//!     │                │ launch failed                                                 ▲
//!     │ door gone      └───────────────────────────────────────────────────────────────┘
//!     └───────────────────────────────────────────────────────────────────────────────────────────────▶ Ended
//! ```
//!
//! Pure: [`next`] says what is to be done, the monitor does it and comes back with what happened. Restart policies and
//! health checks will be further events of `Running` and a way back from `Clearing` to `Starting`.

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitStatus {
    /// It called exit.
    Code(i32),
    /// A signal killed it.
    Signal(i32),
}

impl ExitStatus {
    /// The exit code that shells and Docker show.
    pub(crate) fn code(self) -> i32 {
        match self {
            ExitStatus::Code(code) => code,
            ExitStatus::Signal(signal) => 128 + signal,
        }
    }
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The monitor was started ahead of time and has no plan yet.
    Waiting,
    /// The first process is being made.
    Starting,
    /// The first process runs.
    Running,
    /// It has ended; what it wrote last is being collected.
    Draining(ExitStatus),
    /// Cgroup, network and files are being removed. `None`: it never ran.
    Clearing(Option<ExitStatus>),
    /// Nothing is left; the exit is on record when there was a run.
    Ended,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The door sent the plan.
    PlanReceived,
    /// The door went away without sending one.
    DoorGone,
    /// The program runs.
    Launched,
    /// It does not.
    LaunchFailed,
    /// The first process ended.
    InitExited(ExitStatus),
    /// Nothing more can come out of the container.
    OutputCollected,
    /// Everything that was made for the container is gone.
    TornDown,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Make the first process.
    Launch,
    /// Write `state.json`, tell the door, begin to serve clients.
    AnnounceStart,
    /// Kill what is left of the container and read what it wrote.
    CollectOutput,
    /// Remove cgroup, network, run directory.
    TearDown,
    /// Write `exit.json`.
    RecordExit(ExitStatus),
    /// Tell the door why there is no container.
    AnnounceFailure,
    /// Tell every client how it ended.
    AnnounceExit,
}

/// An event that cannot happen in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{event:?}` cannot happen while `{state:?}`")]
pub(crate) struct Refused {
    state: State,
    event: Event,
}

/// What comes after `event` in `state`.
pub(crate) fn next(state: State, event: Event) -> Result<(State, Vec<Effect>), Refused> {
    Ok(match (state, event) {
        (State::Waiting, Event::PlanReceived) => (State::Starting, vec![Effect::Launch]),
        (State::Waiting, Event::DoorGone) => (State::Ended, vec![]),
        (State::Starting, Event::Launched) => (State::Running, vec![Effect::AnnounceStart]),
        (State::Starting, Event::LaunchFailed) => (State::Clearing(None), vec![Effect::TearDown]),
        (State::Running, Event::InitExited(status)) => (State::Draining(status), vec![Effect::CollectOutput]),
        (State::Draining(status), Event::OutputCollected) => {
            (State::Clearing(Some(status)), vec![Effect::TearDown])
        }
        (State::Clearing(Some(status)), Event::TornDown) => {
            (State::Ended, vec![Effect::RecordExit(status), Effect::AnnounceExit])
        }
        (State::Clearing(None), Event::TornDown) => (State::Ended, vec![Effect::AnnounceFailure]),
        (
            State::Waiting
            | State::Starting
            | State::Running
            | State::Draining(_)
            | State::Clearing(_)
            | State::Ended,
            event,
        ) => return Err(Refused { state, event }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DONE: ExitStatus = ExitStatus::Code(3);
    const STATES: [State; 7] = [
        State::Waiting,
        State::Starting,
        State::Running,
        State::Draining(DONE),
        State::Clearing(Some(DONE)),
        State::Clearing(None),
        State::Ended,
    ];
    const EVENTS: [Event; 7] = [
        Event::PlanReceived,
        Event::DoorGone,
        Event::Launched,
        Event::LaunchFailed,
        Event::InitExited(DONE),
        Event::OutputCollected,
        Event::TornDown,
    ];

    #[test]
    fn the_table_is_complete() {
        let legal = [
            (State::Waiting, Event::PlanReceived, State::Starting),
            (State::Waiting, Event::DoorGone, State::Ended),
            (State::Starting, Event::Launched, State::Running),
            (State::Starting, Event::LaunchFailed, State::Clearing(None)),
            (State::Running, Event::InitExited(DONE), State::Draining(DONE)),
            (State::Draining(DONE), Event::OutputCollected, State::Clearing(Some(DONE))),
            (State::Clearing(Some(DONE)), Event::TornDown, State::Ended),
            (State::Clearing(None), Event::TornDown, State::Ended),
        ];
        for state in STATES {
            for event in EVENTS {
                let expected =
                    legal.iter().find(|(from, on, _)| (*from, *on) == (state, event)).map(|(_, _, to)| *to);
                assert_eq!(next(state, event).ok().map(|(to, _)| to), expected, "{state:?} {event:?}");
            }
        }
    }

    #[test]
    fn an_exit_is_recorded_only_after_everything_is_gone() {
        let (_, effects) = next(State::Draining(DONE), Event::OutputCollected).unwrap();
        assert_eq!(effects, [Effect::TearDown]);
        let (_, effects) = next(State::Clearing(Some(DONE)), Event::TornDown).unwrap();
        assert_eq!(effects, [Effect::RecordExit(DONE), Effect::AnnounceExit]);
    }

    #[test]
    fn codes_are_as_a_shell_shows_them() {
        assert_eq!((ExitStatus::Code(7).code(), ExitStatus::Signal(9).code()), (7, 137));
    }
}
