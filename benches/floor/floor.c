/*
 * The floor: the least that a container costs on this kernel. The same clone3 with the same name spaces, the same mounts,
 * masks, pivot_root and cgroups as `stanza run --rm --network none IMAGE true`, and nothing else: no image store, no state, no
 * log, no seccomp, no capabilities, no limits, no monitor.
 *
 * With `-` in place of a directory it is the floor of an OCI runtime's `run` with the default configuration: LAYER is the root
 * itself, read-only; the cgroups are mounted; the default capabilities, limit of descriptors and no-new-privileges are set.
 *
 * usage: floor LAYER DIRECTORY CGROUPS COMMAND [ARGUMENT...]
 *   LAYER      an unpacked root file system: the overlay's lower directory, or the root itself
 *   DIRECTORY  where the upper, work and mount point directories are made, and removed again; or `-`
 *   CGROUPS    v1 hierarchies' mount points, joined by `:`; or one v2 mount point, marked by a leading `2`; or `-`
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOST 32

static char cgroups[MOST][PATH_MAX];
static int tasks[MOST], cgroup_count, cgroup_directory = -1, bundle;
static char upper[PATH_MAX], work[PATH_MAX], merged[PATH_MAX], inner_work[PATH_MAX + 8], options[3 * PATH_MAX + 64];

static void need(int result, const char *what)
{
	if (result < 0) {
		fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
		_exit(125);
	}
}

static void make_cgroups(char *list)
{
	int two = list[0] == '2';
	char *save = NULL;

	if (list[0] == '-')
		return;
	for (char *at = strtok_r(list + two, ":", &save); at && cgroup_count < MOST; at = strtok_r(NULL, ":", &save)) {
		char path[PATH_MAX + 8], text[64];
		int from, to, length;

		snprintf(cgroups[cgroup_count], PATH_MAX, "%s/stanza-floor-%d", at, getpid());
		need(mkdir(cgroups[cgroup_count], 0755), cgroups[cgroup_count]);
		if (two) {
			cgroup_directory = open(cgroups[cgroup_count++], O_PATH | O_DIRECTORY | O_CLOEXEC);
			return;
		}
		/* A cpuset without processors takes no process. */
		for (int i = 0; strstr(at, "cpuset") && i < 2; i++) {
			const char *name = i ? "cpuset.mems" : "cpuset.cpus";
			snprintf(path, sizeof path, "%s/%s", at, name);
			from = open(path, O_RDONLY | O_CLOEXEC);
			snprintf(path, sizeof path, "%s/%s", cgroups[cgroup_count], name);
			to = open(path, O_WRONLY | O_CLOEXEC);
			length = read(from, text, sizeof text);
			if (length > 0)
				need(write(to, text, length), path);
			close(from);
			close(to);
		}
		snprintf(path, sizeof path, "%s/tasks", cgroups[cgroup_count]);
		tasks[cgroup_count] = open(path, O_WRONLY | O_CLOEXEC);
		need(tasks[cgroup_count++], path);
	}
}

static void device(const char *name, mode_t mode, int major, int minor)
{
	need(mknod(name, S_IFCHR | mode, makedev(major, minor)), name);
	chmod(name, mode);
}

static void mask(const char *path)
{
	if (mount("dev/null", path, NULL, MS_BIND, NULL) && errno == ENOTDIR)
		need(mount("tmpfs", path, "tmpfs", MS_RDONLY, "size=0k"), path);
}

static void read_only(const char *path)
{
	if (mount(path, path, NULL, MS_BIND | MS_REC, NULL))
		return;
	need(mount(path, path, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL), path);
}

/* The cgroup mount of the default configuration: a directory with each hierarchy's cgroup of the container. */
static void mount_cgroups(void)
{
	const unsigned long plain = MS_NOSUID | MS_NODEV | MS_NOEXEC;

	if (cgroup_directory >= 0) {
		need(mount("cgroup2", "sys/fs/cgroup", "cgroup2", plain | MS_RDONLY, NULL), "cgroup2");
		return;
	}
	need(mount("tmpfs", "sys/fs/cgroup", "tmpfs", plain, "mode=755"), "sys/fs/cgroup");
	for (int i = 0; i < cgroup_count; i++) {
		/* The hierarchy's name is the last word of its mount point, above the container's cgroup. */
		char target[PATH_MAX + 16], *end = strrchr(cgroups[i], '/'), *name = end;

		while (*--name != '/')
			continue;
		snprintf(target, sizeof target, "sys/fs/cgroup/%.*s", (int)(end - name - 1), name + 1);
		need(mkdir(target, 0755), target);
		need(mount(cgroups[i], target, NULL, MS_BIND, NULL), target);
		need(mount(NULL, target, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | plain, NULL), target);
	}
	need(mount(NULL, "sys/fs/cgroup", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | plain, NULL), "sys/fs/cgroup");
}

static void drop_rights(void)
{
	const uint32_t kept = 1U << CAP_AUDIT_WRITE | 1U << CAP_KILL | 1U << CAP_NET_BIND_SERVICE;
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { { kept, kept, 0 }, { 0, 0, 0 } };
	struct rlimit descriptors = { 1024, 1024 };

	for (int i = 0; i <= CAP_LAST_CAP; i++)
		if (i > 31 || !(kept >> i & 1))
			prctl(PR_CAPBSET_DROP, i, 0, 0, 0);
	need(syscall(SYS_capset, &header, data), "capset");
	need(setrlimit(RLIMIT_NOFILE, &descriptors), "setrlimit");
	need(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges");
}

static void child(char **command)
{
	static char *const environment[] = { "PATH=/bin:/usr/bin", NULL };
	const unsigned long plain = MS_NOSUID | MS_NODEV | MS_NOEXEC;

	if (cgroup_directory < 0)
		for (int i = 0; i < cgroup_count; i++)
			need(write(tasks[i], "0", 1), "tasks");
	need(unshare(CLONE_NEWCGROUP), "unshare");
	need(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "private");
	if (bundle) {
		need(mount(merged, merged, NULL, MS_BIND | MS_REC, NULL), merged);
	} else {
		need(mount("overlay", merged, "overlay", 0, options), "overlay");
	}
	need(chdir(merged), merged);
	if (!bundle) {
		mkdir("proc", 0555);
		mkdir("sys", 0555);
		mkdir("dev", 0755);
	}
	need(mount("proc", "proc", "proc", plain, NULL), "proc");
	need(mount("sysfs", "sys", "sysfs", plain | MS_RDONLY, NULL), "sysfs");
	need(mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k"), "dev");
	mkdir("dev/pts", 0755);
	mkdir("dev/shm", 01777);
	mkdir("dev/mqueue", 01777);
	need(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"), "devpts");
	need(mount("shm", "dev/shm", "tmpfs", plain, "mode=1777,size=65536k"), "shm");
	need(mount("mqueue", "dev/mqueue", "mqueue", plain, NULL), "mqueue");
	if (bundle)
		mount_cgroups();
	device("dev/null", 0666, 1, 3);
	device("dev/zero", 0666, 1, 5);
	device("dev/full", 0666, 1, 7);
	device("dev/random", 0666, 1, 8);
	device("dev/urandom", 0666, 1, 9);
	device("dev/tty", 0666, 5, 0);
	symlink("pts/ptmx", "dev/ptmx");
	symlink("/proc/self/fd", "dev/fd");
	symlink("/proc/self/fd/0", "dev/stdin");
	symlink("/proc/self/fd/1", "dev/stdout");
	symlink("/proc/self/fd/2", "dev/stderr");
	symlink("/proc/kcore", "dev/core");
	mask("proc/acpi");
	mask("proc/kcore");
	mask("proc/keys");
	mask("proc/latency_stats");
	mask("proc/timer_list");
	mask("proc/timer_stats");
	mask("proc/sched_debug");
	mask("proc/scsi");
	mask("sys/firmware");
	mask("sys/devices/virtual/powercap");
	read_only("proc/bus");
	read_only("proc/fs");
	read_only("proc/irq");
	read_only("proc/sys");
	read_only("proc/sysrq-trigger");
	need(syscall(SYS_pivot_root, ".", "."), "pivot_root");
	need(umount2(".", MNT_DETACH), "umount");
	need(chdir("/"), "/");
	setsid();
	if (bundle) {
		need(mount(NULL, "/", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL), "read-only");
		drop_rights();
	}
	syscall(SYS_close_range, 3, ~0U, 0);
	execvpe(command[0], command, environment);
	_exit(errno == ENOENT ? 127 : 126);
}

int main(int count, char **words)
{
	struct clone_args arguments = {
		.flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS,
		.exit_signal = SIGCHLD,
	};
	int status = 0;
	pid_t pid;

	if (count < 5)
		return 2;
	bundle = !strcmp(words[2], "-");
	snprintf(upper, sizeof upper, "%s/upper", words[2]);
	snprintf(work, sizeof work, "%s/work", words[2]);
	snprintf(merged, sizeof merged, bundle ? "%s" : "%s/merged", words[bundle ? 1 : 2]);
	snprintf(inner_work, sizeof inner_work, "%s/work", work);
	snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s,workdir=%s", words[1], upper, work);
	if (!bundle) {
		need(mkdir(upper, 0755), upper);
		need(mkdir(work, 0755), work);
		need(mkdir(merged, 0755), merged);
	}
	make_cgroups(words[3]);
	if (cgroup_directory >= 0) {
		arguments.flags |= CLONE_INTO_CGROUP;
		arguments.cgroup = cgroup_directory;
	}
	pid = syscall(SYS_clone3, &arguments, sizeof arguments);
	need(pid, "clone3");
	if (pid == 0)
		child(words + 4);
	need(waitpid(pid, &status, 0), "waitpid");
	for (int i = 0; i < cgroup_count; i++)
		need(rmdir(cgroups[i]), cgroups[i]);
	if (bundle)
		goto done;
	rmdir(inner_work);
	rmdir(work);
	rmdir(merged);
	/* What the mount points and devices above left in the upper directory. */
	for (const char **name = (const char *[]){ "proc", "sys", "dev", NULL }; *name; name++) {
		char path[PATH_MAX + 8];
		snprintf(path, sizeof path, "%s/%s", upper, *name);
		rmdir(path);
	}
	need(rmdir(upper), upper);
done:
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
