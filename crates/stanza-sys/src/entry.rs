//! Where a program that enters containers begins, if it asks the linker to (`-e stanza_entry`): before its C library, it makes
//! sure that the file it runs from cannot be written to through it.
//!
//! A process of a container can reach the program file of whoever enters the container (`/proc/PID/exe`, or an entry point
//! `#!/proc/self/exe`), and root in it could overwrite the file on the host (CVE-2019-5736). So the program runs from a
//! read-only clone of the mount that its file is on, or where that is not allowed, from a sealed copy in memory.
//!
//! ```text
//!  execve ─▶ stanza_entry ─ enters no container ───────────────────────────▶ _start
//!               │  └────── runs from /dev/fd/N, read-only or sealed ──────▶ _start
//!               └─ clone the mount, read-only ─ execveat ─▶ stanza_entry ─▶ _start
//! ```
//!
//! Doing that in `main` would cost another start of the C library, the larger part of a start (two thirds of a millisecond
//! where a virtual machine traps `cpuid`). So this runs before anything is set up: no thread-local storage, no `memcpy` of
//! the library's, no heap; system calls only.

use core::arch::{asm, global_asm};

/// Words among the arguments that may make this process enter a container.
const ENTERING: [&[u8]; 5] = [b"create\0", b"run\0", b"exec\0", b"restore\0", b"mounts\0"];

const AT_FDCWD: isize = -100;
const AT_EMPTY_PATH: isize = 0x1000;
const OPEN_TREE_CLONE: isize = 1;
const CLOEXEC: isize = 0o2_000_000;
const ATTRIBUTE_READ_ONLY: u64 = 1;
const ST_RDONLY: isize = 1;
const MFD_CLOEXEC_ALLOW_SEALING: isize = 1 | 2;
const F_ADD_SEALS: isize = 1033;
const F_GET_SEALS: isize = 1034;
/// Seal, shrink, grow, write.
const ALL_SEALS: isize = 1 | 2 | 4 | 8;
const AT_EXECFN: usize = 31;
const EXECUTABLE: &[u8] = b"/proc/self/exe\0";

#[cfg(target_arch = "x86_64")]
global_asm!(
    ".globl stanza_entry",
    ".type stanza_entry,@function",
    "stanza_entry:",
    "xor ebp, ebp",
    "mov rbx, rsp",
    "mov r12, rdx",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {protect}",
    "mov rsp, rbx",
    "mov rdx, r12",
    "jmp _start",
    protect = sym protect,
);

#[cfg(target_arch = "aarch64")]
global_asm!(
    ".globl stanza_entry",
    ".type stanza_entry,%function",
    "stanza_entry:",
    "mov x29, #0",
    "mov x19, sp",
    "mov x20, x0",
    "mov x0, sp",
    "bl {protect}",
    "mov sp, x19",
    "mov x0, x20",
    "b _start",
    protect = sym protect,
);

#[cfg(target_arch = "x86_64")]
fn call(number: i64, a: [isize; 5]) -> isize {
    let result: isize;
    // SAFETY: the callers pass what the call of that number takes. The kernel changes rcx and r11 and what the arguments point
    // to, nothing else.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") a[0], in("rsi") a[1], in("rdx") a[2],
            in("r10") a[3], in("r8") a[4], lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

#[cfg(target_arch = "aarch64")]
fn call(number: i64, a: [isize; 5]) -> isize {
    let result: isize;
    // SAFETY: as above; the kernel changes nothing but x0.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a[0] => result, in("x1") a[1], in("x2") a[2],
            in("x3") a[3], in("x4") a[4], options(nostack));
    }
    result
}

fn address<T: ?Sized>(value: &T) -> isize {
    core::ptr::from_ref(value).cast::<u8>().addr().cast_signed()
}

/// Whether the string at `text` starts with `wanted`. Read by volatile steps, which the compiler cannot make a call of.
///
/// # Safety
/// `text` points to a string that ends in a NUL byte.
unsafe fn starts_with(text: *const u8, wanted: &[u8]) -> bool {
    let mut at = 0;
    while at < wanted.len() {
        // SAFETY: all bytes before this one were equal to those of `wanted`, so the string has not ended yet, unless by an
        // equal NUL, which `wanted` has at its own end only.
        if unsafe { text.add(at).read_volatile() != *wanted.as_ptr().add(at) } {
            return false;
        }
        at += 1;
    }
    true
}

/// Runs the program again from a file that nobody can write to, unless it needs not be, or is already. Returns to go on.
///
/// # Safety
/// `stack` is the initial stack of a process (the System V ABI's): argc, argv, a null, envp, a null, auxv.
unsafe extern "C" fn protect(stack: *const usize) {
    // SAFETY: the initial stack has this layout.
    let (argc, argv) = unsafe { (*stack, stack.add(1)) };
    let mut enters = false;
    let mut at = 1;
    while at < argc {
        // SAFETY: argv has argc strings.
        let word = unsafe { (*argv.add(at)) as *const u8 };
        let mut verb = 0;
        while verb < ENTERING.len() {
            // SAFETY: arguments end in a NUL byte; there are as many verbs.
            enters |= unsafe { starts_with(word, *ENTERING.as_ptr().add(verb)) };
            verb += 1;
        }
        at += 1;
    }
    if !enters {
        return;
    }
    // SAFETY: the environment follows the null after the arguments, and the auxiliary vector the null after that.
    let environment = unsafe { argv.add(argc + 1) };
    let mut auxiliary = environment;
    // SAFETY: as above.
    unsafe {
        while *auxiliary != 0 {
            auxiliary = auxiliary.add(1);
        }
        auxiliary = auxiliary.add(1);
        while *auxiliary != 0 && *auxiliary != AT_EXECFN {
            auxiliary = auxiliary.add(2);
        }
        // What fexecve(3) runs has this for a name; it is told from a file of that name by what it is.
        if *auxiliary == AT_EXECFN
            && starts_with(*auxiliary.add(1) as *const u8, b"/dev/fd/")
            && is_protected()
        {
            return;
        }
    }
    let program = read_only_clone();
    let program = if program < 0 { sealed_copy() } else { program };
    if program >= 0 {
        let (argv, environment) = (argv.addr().cast_signed(), environment.addr().cast_signed());
        call(libc::SYS_execveat, [program, address(&0u8), argv, environment, AT_EMPTY_PATH]);
    }
    // A container that is entered from a file it can change is no container.
    let words = b"stanza-oci: cannot protect its own executable from the container: is /proc mounted?\n";
    call(libc::SYS_write, [2, address(words), words.len().cast_signed(), 0, 0]);
    call(libc::SYS_exit_group, [1, 0, 0, 0, 0]);
}

/// Whether the file that this process runs from is on a read-only mount or is sealed.
fn is_protected() -> bool {
    // `struct statfs`, with its flags at the eleventh word.
    let mut status = core::mem::MaybeUninit::<[isize; 16]>::uninit();
    let place = status.as_mut_ptr().cast::<isize>();
    if call(libc::SYS_statfs, [address(EXECUTABLE), place.addr().cast_signed(), 0, 0, 0]) == 0 {
        // SAFETY: the call has filled 15 words.
        if unsafe { place.add(10).read_volatile() } & ST_RDONLY != 0 {
            return true;
        }
    }
    let file = call(libc::SYS_openat, [AT_FDCWD, address(EXECUTABLE), CLOEXEC, 0, 0]);
    if file < 0 {
        return false;
    }
    let seals = call(libc::SYS_fcntl, [file, F_GET_SEALS, 0, 0, 0]);
    call(libc::SYS_close, [file, 0, 0, 0, 0]);
    seals >= 0 && seals & ALL_SEALS == ALL_SEALS
}

/// A read-only clone of the mount of this program's file; a negative error number where that is not allowed.
fn read_only_clone() -> isize {
    let tree = call(libc::SYS_open_tree, [AT_FDCWD, address(EXECUTABLE), OPEN_TREE_CLONE | CLOEXEC, 0, 0]);
    if tree < 0 {
        return tree;
    }
    let attributes = [ATTRIBUTE_READ_ONLY, 0, 0, 0];
    let size = 32;
    let set = call(libc::SYS_mount_setattr, [tree, address(&0u8), AT_EMPTY_PATH, address(&attributes), size]);
    if set < 0 { set } else { tree }
}

/// A copy of this program's file in memory that nobody can write to any more; negative when there is none to be had.
fn sealed_copy() -> isize {
    let file = call(libc::SYS_openat, [AT_FDCWD, address(EXECUTABLE), CLOEXEC, 0, 0]);
    let copy = call(libc::SYS_memfd_create, [address(b"stanza-oci\0"), MFD_CLOEXEC_ALLOW_SEALING, 0, 0, 0]);
    if file < 0 || copy < 0 {
        return -1;
    }
    let most = 0x7fff_f000;
    loop {
        match call(libc::SYS_sendfile, [copy, file, 0, most, 0]) {
            0 => break,
            copied if copied < 0 => return copied,
            _ => {}
        }
    }
    call(libc::SYS_close, [file, 0, 0, 0, 0]);
    let sealed = call(libc::SYS_fcntl, [copy, F_ADD_SEALS, ALL_SEALS, 0, 0]);
    if sealed < 0 { sealed } else { copy }
}
