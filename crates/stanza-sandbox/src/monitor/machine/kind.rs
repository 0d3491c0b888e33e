//! What machines of a kind have in common: found and made ready once for all of them.

use std::time::Duration;

use stanza_vmm::{Accelerator, Agent, Boot, Kernel, KernelError, KernelFiles, Qemu, Shape, Store, Template};

use crate::error::chain;
use crate::frame::Refusal;
use crate::plan::MachinePlan;

/// How long a guest may take to boot: an emulated one on a loaded machine takes half a minute.
const PATIENCE: Duration = Duration::from_secs(120);

/// A kind of machine.
pub(super) struct Kind {
    pub(super) qemu: Qemu,
    pub(super) boot: Boot,
    pub(super) accelerator: Accelerator,
    /// A guest that has booted, from which this kind's go on; a machine with shares boots.
    pub(super) template: Option<Template>,
    /// What the user should know.
    pub(super) notice: Option<String>,
}

impl Kind {
    /// The kind that a plan's machine is of; `boots` when it cannot go on from a template.
    pub(super) fn of(machine: &MachinePlan, boots: bool) -> Result<Kind, Refusal> {
        let program = stanza_agent::program().map_err(|error| Refusal::of(&error))?;
        let store = Store::open(&machine.root)
            .map_err(|error| refused("failed to open the store of virtual machines", &error))?;
        let qemu = Qemu::find(&store).map_err(|error| refused("failed to find QEMU", &error))?;
        let no_kernel = |error: KernelError| refused("failed to get a guest's kernel", &error);
        let files = KernelFiles::find(&store).map_err(no_kernel)?;
        let kernel = Kernel::prepare(&store, &files).map_err(no_kernel)?;
        let agent = Agent { program, greeting: &stanza_agent::greeting() };
        let boot = Boot::prepare(&store, kernel, agent)
            .map_err(|error| refused("failed to make a guest's first files", &error))?;
        let choice = Accelerator::choose(&store, &qemu, &boot)
            .map_err(|error| refused("failed to choose who runs the guest", &error))?;
        let shape =
            Shape { accelerator: choice.accelerator, memory_mib: machine.memory_mib, cpus: machine.cpus };
        let template = (!boots)
            .then(|| Template::ensure(&store, &qemu, &boot, shape, PATIENCE))
            .transpose()
            .map_err(|error| refused("failed to make the template of virtual machines", &error))?;
        Ok(Kind { qemu, boot, accelerator: choice.accelerator, template, notice: choice.notice })
    }
}

/// A refusal of the floor below, whose errors have no kinds.
pub(super) fn refused(what: &str, error: &(dyn std::error::Error + 'static)) -> Refusal {
    Refusal { message: format!("{what}: {}", chain(error)), kind: "unavailable".to_owned(), hint: None }
}
