/*
 * Runs one command and prints what it took: wall nanoseconds, user and system microseconds of the command, its waited-for
 * children and the orphans of it that have ended, minor page faults, exit code, context switches. A program of its own, so that a peer can be measured inside the name spaces it
 * needs (`nsenter ... measure ...`) without counting the way there, and so that `wait4` needs no unsafe Rust.
 *
 * usage: measure COMMAND [ARGUMENT...]      the command's standard input and output are /dev/null
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

int main(int count, char **words)
{
	posix_spawn_file_actions_t actions;
	struct timespec start, end;
	struct rusage usage;
	int status = 0, ended, error;
	pid_t pid;

	if (count < 2)
		return 2;
	/* What a command forks twice and leaves comes here when it ends. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
	clock_gettime(CLOCK_MONOTONIC, &start);
	error = posix_spawnp(&pid, words[1], &actions, NULL, words + 1, environ);
	if (error) {
		fprintf(stderr, "measure: cannot start %s: %s\n", words[1], strerror(error));
		return 2;
	}
	if (waitpid(pid, &status, 0) < 0)
		return 2;
	clock_gettime(CLOCK_MONOTONIC, &end);
	while (waitpid(-1, &ended, WNOHANG) > 0)
		continue;
	getrusage(RUSAGE_CHILDREN, &usage);
	printf("%lld %lld %lld %ld %d %ld\n",
	       (end.tv_sec - start.tv_sec) * 1000000000LL + (end.tv_nsec - start.tv_nsec),
	       usage.ru_utime.tv_sec * 1000000LL + usage.ru_utime.tv_usec,
	       usage.ru_stime.tv_sec * 1000000LL + usage.ru_stime.tv_usec,
	       usage.ru_minflt,
	       WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
	       usage.ru_nvcsw + usage.ru_nivcsw);
	return 0;
}
