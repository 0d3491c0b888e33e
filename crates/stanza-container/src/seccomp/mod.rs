//! seccomp: the OCI rules of a container, made into the BPF program that the kernel runs at each of its system calls.
//!
//! ```text
//!  Docker profile JSON --parse_docker_profile--> LinuxSeccomp --compile--> Filter (BPF + flags) --> install
//!  capabilities --default_profile-------------->
//! ```
//!
//! The shape of a program, for a profile of x86_64 with its two sub-architectures:
//!
//! ```text
//!  ld arch ── x86_64 ── ld nr ── binary search over ranges of numbers ── ret ACTION
//!          │                     (x32's numbers, bit 30 set, are ranges too)  └── argument tests ── ret ACTION
//!          ├─ x86 ───── ld nr ── binary search ...
//!          └─ any other ── ret KILL_PROCESS
//! ```
//!
//! What a program answers, which is what libseccomp's and runc's users know:
//! * A rule without arguments wins over rules with arguments for the same call; of several without, the first.
//!   Among rules with arguments the first that matches wins.
//! * The tests of one rule must all hold; but a rule that tests the same argument twice means *any* of its tests,
//!   as runc and crun read it.
//! * A rule whose action is the default action says nothing.
//! * On 32-bit architectures, x32 included, only the low 32 bits of arguments and values count.
//! * On x86 a rule without arguments for `socket`, `semop` and their kin also holds for that operation of
//!   `socketcall` and `ipc`.
//! * A name that no architecture has is passed over: profiles name calls that are yet to come or long gone.
//! * The machine's own architecture is always included. One that is not in the profile is killed, x32 included;
//!   one that this machine cannot run is left out.
//! * When the default action is an error other than `ENOSYS`, a number above the highest that the profile's rules
//!   name on that architecture gets `ENOSYS`. The author of the profile cannot have meant to forbid what did not exist,
//!   and C libraries take `ENOSYS`, and only that, as "use the older call". runc does the same (`patchbpf`).
//!
//! Not done here: installing (`seccomp(2)`, by the container's init), the conversation over a notify descriptor.

mod compile;
mod default;
mod docker;
mod emit;
mod filter;
mod numbers;
#[cfg(test)]
mod tests;

pub use compile::{CompileError, compile};
pub use default::default_profile;
pub use docker::{ProfileError, parse_docker_profile};
pub use filter::{Filter, FilterError};
