/*
 * Both ends of what `cargo xtask bench network` measures; static, so that every engine's containers and the host run the same file.
 *
 * usage: wire serve PORT                             TCP; a connection's first byte says what comes:
 *                                                    'e' every byte comes back, 's' swallow and tell how much, 'r' send for ever
 *        wire send ADDRESS PORT MILLISECONDS         prints the bits per second that the other end has swallowed
 *        wire receive ADDRESS PORT MILLISECONDS      prints the bits per second that came
 *        wire connect ADDRESS PORT SPAN COUNT        COUNT times to one of SPAN ports: nanoseconds to the first byte, one a line
 *        wire ask NAME SPAN COUNT [SERVER]           COUNT times the address of one of NAME0 … NAME(SPAN-1): nanoseconds, one a line
 *        wire end LINKS MARK COMMAND [ARGUMENT...]   runs COMMAND, kills the `sleep MARK` that appears, prints the nanoseconds
 *                                                    from there to the end of COMMAND and to the end of the first network
 *                                                    device (0 when LINKS is 0)
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PIECE = 128 * 1024, PATIENCE = 10 /* seconds */ };

extern char **environ;
static char piece[PIECE];

static void fail(const char *what)
{
	fprintf(stderr, "wire: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void be_patient(int fd)
{
	struct timeval limit = { .tv_sec = PATIENCE };

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

static int reach(const char *address, int port)
{
	struct sockaddr_in peer = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (inet_pton(AF_INET, address, &peer.sin_addr) != 1)
		fail(address);
	be_patient(fd);
	if (connect(fd, (struct sockaddr *)&peer, sizeof peer)) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Connects and gets one byte back. */
static int touch(const char *address, int port)
{
	int fd = reach(address, port);
	char byte = 'e';

	if (fd >= 0 && (send(fd, &byte, 1, MSG_NOSIGNAL) != 1 || recv(fd, &byte, 1, 0) != 1)) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Again until the server is there: what listens for a published port may do so before the server does. */
static int reach_soon(int (*way)(const char *, int), const char *address, int port)
{
	int64_t end = now() + PATIENCE * 1000000000LL;

	for (;;) {
		int fd = way(address, port);

		if (fd >= 0)
			return fd;
		if (now() > end)
			fail("cannot connect");
		usleep(20000);
	}
}

static void attend(int fd)
{
	uint64_t total = 0;
	ssize_t got;
	char kind;

	if (recv(fd, &kind, 1, 0) != 1)
		return;
	if (kind == 'e') {
		do {
			send(fd, &kind, 1, MSG_NOSIGNAL);
		} while (recv(fd, &kind, 1, 0) == 1);
	} else if (kind == 's') {
		while ((got = recv(fd, piece, sizeof piece, 0)) > 0)
			total += got;
		send(fd, &total, sizeof total, MSG_NOSIGNAL);
	} else {
		while (send(fd, piece, sizeof piece, MSG_NOSIGNAL) > 0)
			continue;
	}
}

/* Four processes accept, made before anybody comes: no fork is in the time to the first byte. */
static _Noreturn void serve(int port)
{
	struct sockaddr_in own = { .sin_family = AF_INET, .sin_port = htons(port) };
	int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(listener, (struct sockaddr *)&own, sizeof own) || listen(listener, 1024))
		fail("cannot listen");
	for (int lane = 0; lane < 3; lane++)
		if (fork() == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			break;
		}
	for (;;) {
		int fd = accept(listener, NULL, NULL);

		if (fd < 0)
			continue;
		attend(fd);
		close(fd);
	}
}

static int send_for(const char *address, int port, int64_t length)
{
	uint64_t total = 0;
	int fd = reach_soon(touch, address, port);
	int64_t start;

	close(fd);
	fd = reach_soon(reach, address, port);
	send(fd, "s", 1, MSG_NOSIGNAL);
	start = now();
	while (now() - start < length)
		if (send(fd, piece, sizeof piece, MSG_NOSIGNAL) <= 0)
			fail("cannot send");
	shutdown(fd, SHUT_WR);
	if (recv(fd, &total, sizeof total, MSG_WAITALL) != sizeof total)
		fail("no count came");
	printf("%.0f\n", total * 8e9 / (now() - start));
	return 0;
}

static int receive_for(const char *address, int port, int64_t length)
{
	uint64_t total = 0;
	int fd = reach_soon(touch, address, port);
	int64_t start;

	close(fd);
	fd = reach_soon(reach, address, port);
	start = now();
	send(fd, "r", 1, MSG_NOSIGNAL);
	while (now() - start < length) {
		ssize_t got = recv(fd, piece, sizeof piece, 0);

		if (got <= 0)
			fail("nothing came");
		total += got;
	}
	printf("%.0f\n", total * 8e9 / (now() - start));
	return 0;
}

static int connect_times(const char *address, int port, int span, int count)
{
	close(reach_soon(touch, address, port));
	for (int number = 0; number < count; number++) {
		/* 617 is a prime: all ports have their turn. */
		int64_t start = now();
		int fd = touch(address, port + (int)(number * 617L % span));

		if (fd < 0)
			fail("cannot connect");
		printf("%lld\n", (long long)(now() - start));
		close(fd);
	}
	return 0;
}

/* One question in a socket of its own, as resolvers of C libraries do. */
static int ask(const struct sockaddr_in *server, const char *name, uint16_t id)
{
	uint8_t question[300] = { id >> 8, id & 255, 1, 0, 0, 1 }, answer[1500];
	size_t length = strlen(name), at = 12;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ssize_t got;

	question[at++] = length;
	memcpy(question + at, name, length);
	at += length + 1;
	question[at + 1] = question[at + 3] = 1;
	at += 4;
	be_patient(fd);
	if (connect(fd, (const struct sockaddr *)server, sizeof *server) || send(fd, question, at, 0) < 0) {
		close(fd);
		return -1;
	}
	got = recv(fd, answer, sizeof answer, 0);
	close(fd);
	return got > 12 && answer[0] == question[0] && answer[1] == question[1] && (answer[3] & 15) == 0 &&
	       (answer[6] || answer[7]) ? 0 : -1;
}

static int ask_times(const char *stem, int span, int count, const char *at)
{
	struct sockaddr_in server = { .sin_family = AF_INET, .sin_port = htons(53) };
	char line[300], name[64], address[64] = "";
	int64_t end = now() + PATIENCE * 1000000000LL;
	FILE *file = at ? NULL : fopen("/etc/resolv.conf", "r");

	if (at)
		snprintf(address, sizeof address, "%s", at);
	while (file && fgets(line, sizeof line, file) && sscanf(line, "nameserver %63s", address) != 1)
		continue;
	if (inet_pton(AF_INET, address, &server.sin_addr) != 1)
		fail("no name server");
	/* The names are announced by others, maybe a moment later. */
	for (int number = 0; number < span; number++) {
		snprintf(name, sizeof name, "%s%d", stem, number);
		while (ask(&server, name, number)) {
			if (now() > end) {
				fprintf(stderr, "wire: `%s` has no address\n", name);
				return 1;
			}
			usleep(50000);
		}
	}
	for (int number = 0; number < count; number++) {
		int64_t start;

		snprintf(name, sizeof name, "%s%d", stem, (int)(number * 617L % span));
		start = now();
		if (ask(&server, name, 7000 + number)) {
			fprintf(stderr, "wire: `%s` got no answer\n", name);
			return 1;
		}
		printf("%lld\n", (long long)(now() - start));
	}
	return 0;
}

/* The process that is `sleep MARK` and nothing else; 0 when there is none. */
static pid_t find(const char *mark)
{
	char wanted[64], path[64], text[128];
	int length = snprintf(wanted, sizeof wanted, "sleep%c%s", 0, mark) + 1;
	DIR *all = opendir("/proc");
	struct dirent *entry;
	pid_t found = 0;

	while (all && !found && (entry = readdir(all))) {
		int fd;

		snprintf(path, sizeof path, "/proc/%.20s/cmdline", entry->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		if (read(fd, text, sizeof text) == length && memcmp(text, wanted, length) == 0)
			found = atoi(entry->d_name);
		close(fd);
	}
	if (all)
		closedir(all);
	return found;
}

/* Whether a network device's end is among the messages that wait. */
static int link_ended(int fd)
{
	static char messages[64 * 1024];
	int ended = 0;
	ssize_t got;

	while ((got = recv(fd, messages, sizeof messages, MSG_DONTWAIT)) > 0)
		for (struct nlmsghdr *head = (struct nlmsghdr *)messages; NLMSG_OK(head, got); head = NLMSG_NEXT(head, got))
			/* A bridge tells with its own family that a port leaves it. */
			if (head->nlmsg_type == RTM_DELLINK &&
			    ((struct ifinfomsg *)NLMSG_DATA(head))->ifi_family == AF_UNSPEC)
				ended = 1;
	return ended;
}

static int end(int links, const char *mark, char **words)
{
	struct sockaddr_nl own = { .nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK };
	int64_t start, limit, link = 0, whole = 0;
	posix_spawn_file_actions_t actions;
	struct pollfd polled[2];
	pid_t command, sleeper;
	int status;

	posix_spawn_file_actions_init(&actions);
	for (int fd = 0; fd < 3; fd++)
		posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", O_RDWR, 0);
	if (posix_spawnp(&command, words[0], &actions, NULL, words, environ))
		fail(words[0]);
	limit = now() + 30 * 1000000000LL;
	while (!(sleeper = find(mark))) {
		if (waitpid(command, &status, WNOHANG) == command || now() > limit) {
			fprintf(stderr, "wire: the command ended, or started nothing\n");
			return 1;
		}
		usleep(5000);
	}
	/* What the start still does is not measured. */
	usleep(300000);
	polled[0] = (struct pollfd){ .fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), .events = POLLIN };
	polled[1] = (struct pollfd){ .fd = syscall(SYS_pidfd_open, command, 0), .events = POLLIN };
	if (bind(polled[0].fd, (struct sockaddr *)&own, sizeof own))
		fail("netlink");
	start = now();
	kill(sleeper, SIGKILL);
	while ((!whole || (links && !link)) && now() - start < 30 * 1000000000LL) {
		poll(polled, 2, 1000);
		if (!link && link_ended(polled[0].fd))
			link = now() - start;
		if (!whole && (polled[1].revents & POLLIN)) {
			whole = now() - start;
			waitpid(command, &status, 0);
			polled[1].fd = -1;
		}
	}
	if (!whole || (links && !link)) {
		fprintf(stderr, "wire: no end came\n");
		return 1;
	}
	printf("%lld\n%lld\n", (long long)whole, (long long)(links ? link : 0));
	return 0;
}

int main(int count, char **words)
{
	const char *verb = count > 1 ? words[1] : "";

	if (count == 3 && !strcmp(verb, "serve"))
		serve(atoi(words[2]));
	if (count == 5 && !strcmp(verb, "send"))
		return send_for(words[2], atoi(words[3]), atoll(words[4]) * 1000000);
	if (count == 5 && !strcmp(verb, "receive"))
		return receive_for(words[2], atoi(words[3]), atoll(words[4]) * 1000000);
	if (count == 6 && !strcmp(verb, "connect"))
		return connect_times(words[2], atoi(words[3]), atoi(words[4]), atoi(words[5]));
	if ((count == 5 || count == 6) && !strcmp(verb, "ask"))
		return ask_times(words[2], atoi(words[3]), atoi(words[4]), words[5]);
	if (count > 4 && !strcmp(verb, "end"))
		return end(atoi(words[2]), words[3], words + 4);
	fprintf(stderr, "wire: no such way to call it\n");
	return 2;
}
