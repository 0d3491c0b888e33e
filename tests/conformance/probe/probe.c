/* What the cases need inside containers and no busybox applet does: raw system calls, descriptors, terminals, races.
 * `probe WORD...` prints plain lines; see each function. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* `syscall NUMBER [ARG...]`: the result, or the error's number as `errno=N`. */
static int raw(int count, char **words) {
    long arguments[7] = {0};
    for (int at = 0; at < count && at < 7; at++)
        arguments[at] = strtol(words[at], NULL, 0);
    errno = 0;
    long result = syscall(arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5],
                          arguments[6]);
    if (result == -1)
        printf("errno=%d\n", errno);
    else
        printf("ret=%ld\n", result);
    return 0;
}

/* `int80 NUMBER`: the same by the 32-bit entry, without arguments. */
static int raw32(char *number) {
    long result = strtol(number, NULL, 0);
#ifdef __x86_64__
    __asm__ volatile("int $0x80" : "+a"(result) : "b"(0), "c"(0), "d"(0) : "memory", "r8", "r9", "r10", "r11");
#else
    result = -ENOSYS;
#endif
    printf("%s=%d\n", (int)result < 0 ? "errno" : "ret", (int)result < 0 ? -(int)result : (int)result);
    return 0;
}

/* `fds`: one line per open descriptor: its number and what it is. */
static int fds(void) {
    for (int fd = 0; fd < 4096; fd++) {
        char path[64], target[4096];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        if (fcntl(fd, F_GETFD) < 0)
            continue;
        ssize_t length = readlink(path, target, sizeof target - 1);
        target[length < 0 ? 0 : length] = 0;
        printf("%d %s\n", fd, target);
    }
    return 0;
}

/* `sched [PID]`: policy, nice value, priority, flags, as sched_getattr tells them. */
static int sched(void) {
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } attributes = {.size = sizeof attributes};
    if (syscall(SYS_sched_getattr, 0, &attributes, sizeof attributes, 0) < 0) {
        printf("errno=%d\n", errno);
        return 1;
    }
    printf("policy=%u nice=%d priority=%u flags=%llu\n", attributes.policy, attributes.nice, attributes.priority,
           (unsigned long long)attributes.flags);
    return 0;
}

/* `ioprio`: class and level of this process. */
static int ioprio(void) {
    long value = syscall(SYS_ioprio_get, 1, 0);
    printf("class=%ld level=%ld\n", value >> 13, value & 0x1fff);
    return 0;
}

/* `mempolicy`: mode of the default memory policy. */
static int mempolicy(void) {
    int mode = -1;
    unsigned long nodes[16] = {0};
    if (syscall(SYS_get_mempolicy, &mode, nodes, sizeof nodes * 8, 0, 0) < 0)
        printf("errno=%d\n", errno);
    else
        printf("mode=%d nodes=%lu\n", mode, nodes[0]);
    return 0;
}

/* `clock`: seconds of the monotonic and the boot clock. */
static int clocks(void) {
    struct timespec monotonic, boot;
    clock_gettime(CLOCK_MONOTONIC, &monotonic);
    clock_gettime(CLOCK_BOOTTIME, &boot);
    printf("%lld %lld\n", (long long)monotonic.tv_sec, (long long)boot.tv_sec);
    return 0;
}

/* `eat MEBIBYTES`: touches so much memory, then says so and ends. */
static int eat(char *count) {
    size_t bytes = strtoul(count, NULL, 0) << 20;
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        printf("errno=%d\n", errno);
        return 1;
    }
    memset(memory, 1, bytes);
    printf("ate %s\n", count);
    return 0;
}

/* `forks N`: makes processes that wait until the end, as many as the kernel allows but at most N; says how many. */
static int forks(char *count) {
    int wanted = atoi(count), made = 0, error = 0;
    pid_t children[1024];
    while (made < wanted && made < 1024) {
        pid_t pid = fork();
        if (pid < 0) {
            error = errno;
            break;
        }
        if (pid == 0) {
            pause();
            _exit(0);
        }
        children[made++] = pid;
    }
    printf("made=%d errno=%d\n", made, error);
    fflush(stdout);
    for (int at = 0; at < made; at++) {
        kill(children[at], SIGKILL);
        waitpid(children[at], NULL, 0);
    }
    return 0;
}

/* `open PATH r|w|rw`: whether it opens. */
static int try_open(char *path, char *how) {
    int flags = strcmp(how, "r") == 0 ? O_RDONLY : strcmp(how, "w") == 0 ? O_WRONLY : O_RDWR;
    int fd = open(path, flags | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        printf("errno=%d\n", errno);
    else
        printf("opened\n");
    return 0;
}

/* `tiocsti`: pushes a byte into the terminal of descriptor 0, as an attacker would. */
static int tiocsti(void) {
    char byte = 'x';
    printf("%s\n", ioctl(0, TIOCSTI, &byte) < 0 ? strerror(errno) : "pushed");
    return 0;
}

/* `swap A B SECONDS`: exchanges two names in a loop. */
static int swap(char *a, char *b, char *seconds) {
    time_t end = time(NULL) + atoi(seconds);
    while (time(NULL) < end)
        for (int at = 0; at < 1000; at++)
            if (syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, 2) < 0 && errno != ENOENT) {
                printf("errno=%d\n", errno);
                return 1;
            }
    return 0;
}

/* `overwrite SECONDS`: looks for other processes whose executable lies outside, and opens it for writing once they
 * run something else: the attack of CVE-2019-5736. Says `written` or `safe`. */
static int overwrite(char *seconds) {
    time_t end = time(NULL) + atoi(seconds);
    char path[64], descriptor[64];
    while (time(NULL) < end) {
        for (int pid = 2; pid < 400; pid++) {
            if (pid == getpid())
                continue;
            snprintf(path, sizeof path, "/proc/%d/exe", pid);
            int fd = open(path, O_PATH);
            if (fd < 0)
                continue;
            char name[4096];
            ssize_t length = readlink(path, name, sizeof name - 1);
            name[length < 0 ? 0 : length] = 0;
            if (strstr(name, "busybox") || strstr(name, "probe") || length <= 0) {
                close(fd);
                continue;
            }
            printf("seen %s\n", name);
            fflush(stdout);
            snprintf(descriptor, sizeof descriptor, "/proc/self/fd/%d", fd);
            for (int tries = 0; tries < 100000 && time(NULL) < end; tries++) {
                int out = open(descriptor, O_WRONLY);
                if (out >= 0) {
                    if (write(out, "hijacked\n", 9) == 9)
                        printf("written\n");
                    return 0;
                }
                if (errno != ETXTBSY)
                    break;
            }
            close(fd);
        }
    }
    printf("safe\n");
    return 0;
}

/* `trace SECONDS`: tries to attach to every other process; `attached NAME` for those it can. The attack of
 * CVE-2016-9962. */
static int trace(char *seconds) {
    time_t end = time(NULL) + atoi(seconds);
    printf("ready\n");
    fflush(stdout);
    while (time(NULL) < end) {
        for (int pid = 2; pid < 400; pid++) {
            if (pid == getpid())
                continue;
            char path[64], name[64] = {0}, link[4096] = {0};
            snprintf(path, sizeof path, "/proc/%d/comm", pid);
            int fd = open(path, O_RDONLY);
            if (fd < 0)
                continue;
            ssize_t length = read(fd, name, sizeof name - 2);
            close(fd);
            if (length <= 0)
                continue;
            name[strcspn(name, "\n")] = 0;
            snprintf(path, sizeof path, "/proc/%d/exe", pid);
            length = readlink(path, link, sizeof link - 1);
            if (length > 0 && (strstr(link, "busybox") || strstr(link, "probe")))
                continue;
            if (ptrace(PTRACE_SEIZE, pid, 0, 0) == 0) {
                /* Meanwhile it may have become the container's own program. */
                memset(link, 0, sizeof link);
                length = readlink(path, link, sizeof link - 1);
                if (length <= 0 || strstr(link, "busybox") || strstr(link, "probe")) {
                    ptrace(PTRACE_DETACH, pid, 0, 0);
                    continue;
                }
                printf("attached %s %s\n", name, link);
                fflush(stdout);
                ptrace(PTRACE_DETACH, pid, 0, 0);
                return 0;
            }
        }
    }
    printf("safe\n");
    return 0;
}

/* Takes one message with descriptors from a listening socket; prints its bytes. */
static int receive(const char *path, int *fds, int wanted) {
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 8) < 0)
        return -1;
    printf("ready\n");
    fflush(stdout);
    int connection = accept(listener, NULL, NULL);
    char bytes[65536];
    char control[CMSG_SPACE(sizeof(int) * 16)];
    struct iovec vector = {bytes, sizeof bytes - 1};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t length = recvmsg(connection, &message, 0);
    if (length < 0)
        return -1;
    int count = 0;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(&message); part; part = CMSG_NXTHDR(&message, part))
        if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_RIGHTS)
            for (size_t at = 0; at < (part->cmsg_len - CMSG_LEN(0)) / sizeof(int) && count < wanted; at++)
                memcpy(&fds[count++], CMSG_DATA(part) + at * sizeof(int), sizeof(int));
    bytes[length] = 0;
    printf("message %s\n", bytes);
    fflush(stdout);
    return count;
}

/* `notify SOCKET ERRNO`: takes a seccomp listener from a runtime, answers every notification with the error. */
static int notify(char *path, char *error) {
    int fds[16];
    int count = receive(path, fds, 16);
    printf("descriptors=%d\n", count);
    fflush(stdout);
    if (count < 1)
        return 1;
    for (;;) {
        struct seccomp_notif request;
        struct seccomp_notif_resp response;
        memset(&request, 0, sizeof request);
        memset(&response, 0, sizeof response);
        if (ioctl(fds[count - 1], SECCOMP_IOCTL_NOTIF_RECV, &request) < 0)
            return 0;
        printf("notified %d\n", request.data.nr);
        fflush(stdout);
        response.id = request.id;
        response.error = -atoi(error);
        ioctl(fds[count - 1], SECCOMP_IOCTL_NOTIF_SEND, &response);
    }
}

/* `pidfd SOCKET`: takes a pidfd from a runtime, says the pid it names. */
static int pidfd(char *path) {
    int fds[16];
    int count = receive(path, fds, 16);
    if (count < 1)
        return 1;
    char name[64], line[256];
    snprintf(name, sizeof name, "/proc/self/fdinfo/%d", fds[0]);
    FILE *file = fopen(name, "r");
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, "Pid:", 4) == 0)
            printf("pid %d\n", atoi(line + 4));
    return 0;
}

/* `console SOCKET [INPUT [AFTER]]`: takes the controlling end of a terminal from a runtime; says its size, writes the
 * input to it, at once or when the text AFTER has come, passes on what comes out of it until its end. */
static int console(char *path, char *input, char *after) {
    int fds[16];
    struct winsize size = {0};
    char bytes[4096];
    ssize_t length;
    if (receive(path, fds, 16) < 1)
        return 1;
    if (ioctl(fds[0], TIOCGWINSZ, &size) == 0)
        printf("size %dx%d\n", size.ws_row, size.ws_col);
    fflush(stdout);
    if (input && !after && write(fds[0], input, strlen(input)) < 0)
        printf("errno=%d\n", errno);
    while ((length = read(fds[0], bytes, sizeof bytes - 1)) > 0) {
        fwrite(bytes, 1, length, stdout);
        fflush(stdout);
        bytes[length] = 0;
        if (after && strstr(bytes, after)) {
            after = NULL;
            if (write(fds[0], input, strlen(input)) < 0)
                printf("errno=%d\n", errno);
        }
    }
    return 0;
}

/* `keyring`: the session keyring's serial number and description. */
static int keyring(void) {
    char description[512] = {0};
    long serial = syscall(SYS_keyctl, 0 /* GET_KEYRING_ID */, -3 /* SESSION */, 0);
    syscall(SYS_keyctl, 6 /* DESCRIBE */, -3, description, sizeof description - 1);
    printf("%ld %s\n", serial, description);
    return 0;
}

/* `dumpable`, `nonewprivs`, `pdeathsig`: what prctl tells. */
static int get(int option) {
    printf("%d\n", prctl(option, 0, 0, 0, 0));
    return 0;
}

/* `sigmask`: the signals that are blocked or ignored. */
static int signals(void) {
    char line[256];
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, "SigBlk", 6) == 0 || strncmp(line, "SigIgn", 6) == 0)
            fputs(line, stdout);
    return 0;
}

/* `linux54 COMMAND [ARG...]`: runs a command for which the kernel has no call that came after Linux 5.4, and whose setns(2) does
 * not know several kinds at once, which is how a pidfd is used. */
static int linux54(char **words) {
    enum { FIRST_UNKNOWN = 436, X32 = 0x40000000 };
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32, 9, 0),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, FIRST_UNKNOWN, 7, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_setns, 0, 7),
        /* More than one bit: A & (A - 1). */
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_STMT(BPF_MISC | BPF_TAX, 0),
        BPF_STMT(BPF_ALU | BPF_SUB | BPF_K, 1),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_X, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 2, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    if (syscall(__NR_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) != 0) {
        perror("seccomp");
        return 1;
    }
    execvp(words[0], words);
    perror(words[0]);
    return 127;
}

int main(int count, char **words) {
    const char *verb = count > 1 ? words[1] : "";
    if (strcmp(verb, "syscall") == 0 && count > 2)
        return raw(count - 2, words + 2);
    if (strcmp(verb, "int80") == 0 && count > 2)
        return raw32(words[2]);
    if (strcmp(verb, "fds") == 0)
        return fds();
    if (strcmp(verb, "sched") == 0)
        return sched();
    if (strcmp(verb, "ioprio") == 0)
        return ioprio();
    if (strcmp(verb, "mempolicy") == 0)
        return mempolicy();
    if (strcmp(verb, "clock") == 0)
        return clocks();
    if (strcmp(verb, "eat") == 0 && count > 2)
        return eat(words[2]);
    if (strcmp(verb, "forks") == 0 && count > 2)
        return forks(words[2]);
    if (strcmp(verb, "open") == 0 && count > 3)
        return try_open(words[2], words[3]);
    if (strcmp(verb, "tiocsti") == 0)
        return tiocsti();
    if (strcmp(verb, "swap") == 0 && count > 4)
        return swap(words[2], words[3], words[4]);
    if (strcmp(verb, "overwrite") == 0 && count > 2)
        return overwrite(words[2]);
    if (strcmp(verb, "trace") == 0 && count > 2)
        return trace(words[2]);
    if (strcmp(verb, "notify") == 0 && count > 3)
        return notify(words[2], words[3]);
    if (strcmp(verb, "pidfd") == 0 && count > 2)
        return pidfd(words[2]);
    if (strcmp(verb, "console") == 0 && count > 2)
        return console(words[2], count > 3 ? words[3] : NULL, count > 4 ? words[4] : NULL);
    if (strcmp(verb, "keyring") == 0)
        return keyring();
    if (strcmp(verb, "dumpable") == 0)
        return get(PR_GET_DUMPABLE);
    if (strcmp(verb, "signals") == 0)
        return signals();
    if (strcmp(verb, "linux54") == 0 && count > 2)
        return linux54(words + 2);
    fprintf(stderr, "probe: what is `%s`?\n", verb);
    return 64;
}
