//! The filter of a container whose user asks for nothing: Docker's default profile, as data of our own.
//!
//! It is an allow list; all else fails with `EPERM`. What a call needs beyond being harmless stands beside it: a
//! capability in the container's bounding set, or an architecture. The rules are those of `moby/profiles`
//! (`seccomp/default.json`), so that a container sees under stanza what it sees under Docker.
//!
//! Notable: `io_uring`, `keyctl`, `userfaultfd` and `add_key` are in no list. `clone` may make no namespace without
//! `CAP_SYS_ADMIN`; as a filter cannot read `clone3`'s flags (they lie behind a pointer), `clone3` answers `ENOSYS`,
//! upon which C libraries fall back to `clone`. `socket` knows no `AF_VSOCK` (it reaches the host of a virtual
//! machine past every namespace) and no `AF_ALG`; on 32-bit x86 `socketcall` stays as Docker leaves it: open, since
//! its arguments too lie behind a pointer.

use stanza_spec::oci::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompOperator,
    LinuxSyscall,
};

/// Paths, files and what they hold.
const FILES: &str = "\
    _llseek access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat \
    faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown \
    fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr fstat \
    fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futimesat getcwd getdents getdents64 \
    getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch ioctl lchown lchown32 \
    lgetxattr link linkat listmount listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat \
    lstat64 mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open openat openat2 pipe pipe2 pread64 \
    preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv removexattr \
    removexattrat rename renameat renameat2 rmdir sendfile sendfile64 setxattr setxattrat splice stat stat64 \
    statfs statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs tee truncate truncate64 \
    umask unlink unlinkat utime utimensat utimensat_time64 utimes vmsplice write writev";

/// Waiting for descriptors, queues and asynchronous input and output.
const WAITING: &str = "\
    _newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait \
    epoll_wait_old eventfd eventfd2 io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 \
    io_setup io_submit mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend \
    mq_timedsend_time64 mq_unlink poll ppoll ppoll_time64 pselect6 pselect6_time64 select signalfd signalfd4 \
    timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64";

/// Sockets, but for making one: see `SOCKET_FAMILIES`.
const SOCKETS: &str = "\
    accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg \
    recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair";

/// Memory, keys of pages and the System V mechanisms.
const MEMORY: &str = "\
    brk cachestat ipc madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 \
    mlockall mmap mmap2 mprotect mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap \
    pkey_alloc pkey_free pkey_mprotect process_mrelease remap_file_pages semctl semget semop semtimedop \
    semtimedop_time64 shmat shmctl shmdt shmget";

/// Clocks and timers.
const TIME: &str = "\
    adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime \
    clock_gettime64 clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time \
    timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 \
    times";

/// Who a process is, and what it may use.
const IDENTITY: &str = "\
    capget capset getcpu getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getpgid \
    getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit \
    getrusage getsid gettid getuid getuid32 ioprio_get ioprio_set landlock_add_rule landlock_create_ruleset \
    landlock_restrict_self prctl prlimit64 sched_get_priority_max sched_get_priority_min sched_getaffinity \
    sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 \
    sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp setfsgid \
    setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setpgid setpriority setregid \
    setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setuid \
    setuid32 sysinfo ugetrlimit uname";

/// Processes, threads and signals.
const PROCESSES: &str = "\
    execve execveat exit exit_group fork futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake \
    get_robust_list get_thread_area kill pause pidfd_open pidfd_send_signal restart_syscall riscv_hwprobe \
    rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend \
    rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo set_robust_list set_thread_area set_tid_address \
    sigaltstack sigprocmask sigreturn tgkill tkill uretprobe vfork wait4 waitid waitpid";

/// Calls of some architectures, by the names that Go has for those.
const BY_ARCHITECTURE: [(&[&str], &str); 5] = [
    (&["ppc64le"], "sync_file_range2 swapcontext"),
    (
        &["arm", "arm64"],
        "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
    ),
    (&["amd64"], "arch_prctl"),
    (&["amd64", "386"], "modify_ldt"),
    (&["riscv64"], "riscv_flush_icache"),
];

/// Calls that a capability opens.
const BY_CAPABILITY: [(&str, &str); 14] = [
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr \
         lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl \
         quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module init_module finit_module"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("CAP_SYS_RAWIO", "iopl ioperm"),
    ("CAP_SYS_TIME", "settimeofday stime clock_settime clock_settime64"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_BPF", "bpf"),
    ("CAP_PERFMON", "perf_event_open"),
];

/// Linux 4.8 made seccomp run after a tracer's changes; before it, `ptrace` was a way out of a filter. stanza needs
/// a newer kernel anyway (clone3, mount_setattr), so these are always there.
const SINCE_4_8: &str = "process_vm_readv process_vm_writev ptrace";

/// The families beyond 0 to 11 that `socket` may make. Missing: 12 DECnet, 19 Econet, 20 ATM SVC, 23 IrDA,
/// 25 WANPIPE, 34 mISDN, 37 CAIF, 38 ALG, 40 VSOCK, and all that come after 45.
const SOCKET_FAMILIES: [u64; 25] =
    [13, 14, 15, 16, 17, 18, 21, 22, 24, 26, 27, 28, 29, 30, 31, 32, 33, 35, 36, 39, 41, 42, 43, 44, 45];

/// `PER_LINUX`, `PER_LINUX32`, both with `UNAME26`, and the question which it is.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// `CLONE_NEW*`: namespaces of mounts, cgroups, uts, ipc, users, pids, networks.
const NAMESPACES: u64 = 0x7e02_0000;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// The default profile for a container with `capabilities` (names such as `CAP_SYS_ADMIN`) in its bounding set, on
/// this machine's architecture.
#[must_use]
pub fn default_profile(capabilities: &[&str]) -> LinuxSeccomp {
    default_profile_for(capabilities, std::env::consts::ARCH)
}

pub(super) fn default_profile_for(capabilities: &[&str], machine: &str) -> LinuxSeccomp {
    let go = super::docker::go_architecture(machine);
    let has = |capability: &str| capabilities.contains(&capability);
    let lists = [FILES, WAITING, SOCKETS, MEMORY, TIME, IDENTITY, PROCESSES, SINCE_4_8].into_iter();
    let local = BY_ARCHITECTURE.iter().filter(|(these, _)| these.contains(&go)).map(|(_, names)| *names);
    let earned = BY_CAPABILITY.iter().filter(|(capability, _)| has(capability)).map(|(_, names)| *names);
    let mut names: Vec<String> = Vec::with_capacity(512);
    names.extend(lists.chain(local).chain(earned).flat_map(str::split_whitespace).map(str::to_owned));

    let mut syscalls = vec![rule(names, None)];
    let equal = LinuxSeccompOperator::ScmpCmpEq;
    let one = |name: &str, test| rule(vec![name.to_owned()], Some(test));
    syscalls.push(one("socket", argument(0, LinuxSeccompOperator::ScmpCmpLt, 12)));
    syscalls.extend(SOCKET_FAMILIES.map(|family| one("socket", argument(0, equal, family))));
    syscalls.extend(PERSONALITIES.map(|personality| one("personality", argument(0, equal, personality))));
    if !has("CAP_SYS_ADMIN") {
        // s390 has the arguments of `clone` the other way round.
        let flags = if go.starts_with("s390") { 1 } else { 0 };
        syscalls.push(one("clone", argument(flags, LinuxSeccompOperator::ScmpCmpMaskedEq, NAMESPACES)));
        let mut clone3 = rule(vec!["clone3".to_owned()], None);
        clone3.set_action(LinuxSeccompAction::ScmpActErrno).set_errno_ret(Some(ENOSYS));
        syscalls.push(clone3);
    }

    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(LinuxSeccompAction::ScmpActErrno)
        .set_default_errno_ret(Some(EPERM))
        .set_architectures(Some(architectures(machine)))
        .set_syscalls(Some(syscalls));
    profile
}

/// The architectures whose programs a machine runs.
fn architectures(machine: &str) -> Vec<Arch> {
    match machine {
        "x86_64" => vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
        "aarch64" => vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm],
        _ => vec![Arch::ScmpArchNative],
    }
}

fn rule(names: Vec<String>, test: Option<LinuxSeccompArg>) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(names).set_action(LinuxSeccompAction::ScmpActAllow).set_args(test.map(|test| vec![test]));
    rule
}

fn argument(index: usize, operator: LinuxSeccompOperator, value: u64) -> LinuxSeccompArg {
    let argument = LinuxSeccompArgBuilder::default().index(index).op(operator).value(value);
    argument.build().expect("every field of the builder has a default")
}
