//! `exec`: one more process in a running container, as a plan that the sandbox carries out.

use std::path::PathBuf;

use stanza_sandbox::ExecPlan;
use stanza_spec::{Classify, ContainerId, ErrorKind, Security};

use crate::Engine;
use crate::container::State;
use crate::database::DatabaseError;
use crate::find::FindError;
use crate::reconcile::SettleError;
use crate::seccomp::SeccompError;
use crate::spec::{self, SpecError};

/// A command to run in a running container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// Program and arguments. Never empty.
    pub command: Vec<String>,
    /// `NAME=VALUE` over the container's environment; a bare `NAME` removes.
    pub env: Vec<String>,
    /// The working directory; `None` is the container's.
    pub workdir: Option<String>,
    /// `user[:group]`; `None` is the container's.
    pub user: Option<String>,
    /// A terminal for it.
    pub tty: bool,
    /// Forward standard input.
    pub open_stdin: bool,
    /// Every capability.
    pub privileged: bool,
    /// Do not wait for its end.
    pub detached: bool,
    /// The bytes that detach; empty for none.
    pub detach_keys: Vec<u8>,
    /// Rows and columns of the terminal.
    pub console_size: Option<(u16, u16)>,
}

/// Why a command cannot run in a container.
#[derive(Debug, thiserror::Error)]
pub enum ExecPlanError {
    /// There is no such container.
    #[error(transparent)]
    Find(#[from] FindError),
    /// It does not run.
    #[error("container {0} is not running")]
    NotRunning(ContainerId),
    /// The request is wrong.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The container's filter.
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
    /// The container's control groups.
    #[error(transparent)]
    Cgroup(#[from] stanza_cgroup::PlanError),
    /// Its state cannot be read.
    #[error(transparent)]
    Status(#[from] stanza_sandbox::StatusError),
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl Classify for ExecPlanError {
    fn kind(&self) -> ErrorKind {
        match self {
            ExecPlanError::Find(error) => error.kind(),
            ExecPlanError::NotRunning(_) => ErrorKind::Conflict,
            ExecPlanError::Spec(error) => error.kind(),
            ExecPlanError::Seccomp(error) => error.kind(),
            ExecPlanError::Cgroup(error) => error.kind(),
            ExecPlanError::Status(error) => error.kind(),
            ExecPlanError::Database(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ExecPlanError::Find(error) => error.hint(),
            ExecPlanError::NotRunning(id) => Some(format!("start it with `stanza start {}`", id.short())),
            ExecPlanError::Spec(error) => error.hint(),
            ExecPlanError::Seccomp(error) => error.hint(),
            ExecPlanError::Cgroup(error) => error.hint(),
            ExecPlanError::Status(error) => error.hint(),
            ExecPlanError::Database(error) => error.hint(),
        }
    }
}

impl From<SettleError> for ExecPlanError {
    fn from(error: SettleError) -> ExecPlanError {
        match error {
            SettleError::Status(error) => error.into(),
            SettleError::Database(error) => error.into(),
        }
    }
}

impl Engine {
    /// The plan of a command in a running container: what is not asked for is as the container's own process has it.
    ///
    /// # Errors
    /// When there is no such container, when it does not run, or when the request is wrong.
    pub fn exec_plan(&mut self, id: &ContainerId, request: &ExecRequest) -> Result<ExecPlan, ExecPlanError> {
        let record = self.record(id)?;
        if !matches!(self.state(&record)?, Some(State::Running(_))) {
            return Err(ExecPlanError::NotRunning(id.clone()));
        }
        if request.command.is_empty() {
            return Err(SpecError::NoCommand.into());
        }
        let mut planned = self.plan_spec(&record)?;
        let mut process = planned.spec.process().clone().unwrap_or_default();
        let env = process.env().clone().unwrap_or_default();
        let mut env = spec::process::merge_environment(env, &request.env, true);
        if request.tty {
            spec::process::add_default(&mut env, "TERM", "xterm");
        }
        if let Some(directory) = &request.workdir {
            if !directory.starts_with('/') {
                return Err(SpecError::Workdir(directory.clone()).into());
            }
            process.set_cwd(PathBuf::from(directory));
        }
        if let Some(user) = &request.user {
            process.set_user(spec::process::user(user));
        }
        // The filter is the container's own, whatever the command may do besides.
        let seccomp = self.ensure_filter(&record.config, &planned.capabilities)?;
        if request.privileged {
            let every = Security { privileged: true, ..Security::default() };
            let own_namespace =
                planned.spec.linux().as_ref().is_some_and(|linux| linux.uid_mappings().is_some());
            let available = if own_namespace { u64::MAX } else { self.available_capabilities() };
            planned.capabilities = spec::capabilities::choose(&every, available)?.0;
            process.set_capabilities(Some(spec::process::capability_sets(&planned.capabilities)));
        }
        process.set_args(Some(request.command.clone())).set_env(Some(env)).set_terminal(Some(request.tty));
        Ok(ExecPlan {
            run_dir: self.options.run_dir(id.as_str()),
            state_dir: self.options.container_dir(id.as_str()),
            process,
            seccomp,
            cgroup: self.cgroup_plan(&record, &planned.spec, &mut Vec::new())?,
            tty: request.tty,
            open_stdin: request.open_stdin,
            console_size: request.console_size,
            detach_keys: request.detach_keys.clone(),
            detached: request.detached,
        })
    }
}
