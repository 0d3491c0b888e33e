//! The hooks of a configuration, by kind.

use stanza_container::{HookError, run_hooks};
use stanza_spec::oci::runtime::{Hook, Hooks, Spec};

/// When hooks run (runtime-spec, "Lifecycle").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// In the runtime's namespaces, once all is mounted; the older name of the next.
    Prestart,
    /// As above.
    CreateRuntime,
    /// In the container's namespaces, before its root is changed.
    CreateContainer,
    /// In the container, before its program.
    StartContainer,
    /// In the runtime's namespaces, after the program has started.
    Poststart,
    /// As above, after the container is deleted.
    Poststop,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Prestart => "prestart",
            Kind::CreateRuntime => "createRuntime",
            Kind::CreateContainer => "createContainer",
            Kind::StartContainer => "startContainer",
            Kind::Poststart => "poststart",
            Kind::Poststop => "poststop",
        }
    }

    fn pick(self, hooks: &Hooks) -> Option<&Vec<Hook>> {
        #[allow(deprecated, reason = "Docker and others still use prestart")]
        match self {
            Kind::Prestart => hooks.prestart().as_ref(),
            Kind::CreateRuntime => hooks.create_runtime().as_ref(),
            Kind::CreateContainer => hooks.create_container().as_ref(),
            Kind::StartContainer => hooks.start_container().as_ref(),
            Kind::Poststart => hooks.poststart().as_ref(),
            Kind::Poststop => hooks.poststop().as_ref(),
        }
    }
}

/// Those of one kind, in order.
pub(crate) fn of(spec: &Spec, kind: Kind) -> &[Hook] {
    spec.hooks().as_ref().and_then(|hooks| kind.pick(hooks)).map_or(&[], Vec::as_slice)
}

/// Runs those of one kind, each with `state` on its standard input; stops at the first that fails.
pub(crate) fn run(spec: &Spec, kind: Kind, state: &[u8]) -> Result<(), HookError> {
    run_hooks(kind.name(), of(spec, kind), state)
}

/// Runs all of one kind, also after a failure; every failure.
pub(crate) fn run_all(spec: &Spec, kind: Kind, state: &[u8]) -> Vec<HookError> {
    let hooks = of(spec, kind);
    let run = |(number, hook)| {
        let failed = run_hooks(kind.name(), std::slice::from_ref(hook), state).err();
        failed.map(|error: HookError| HookError { number, ..error })
    };
    hooks.iter().enumerate().filter_map(run).collect()
}
