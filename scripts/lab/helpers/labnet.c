// SPDX-License-Identifier: GPL-2.0
/*
 * labnet: the lab's switch. QEMU's "stream" network back ends connect to one unix socket for each
 * port; frames travel behind a 32-bit big-endian length. Nothing leaves this process.
 *
 *   labnet CONTROL-SOCKET
 *
 * Commands, one line each on the control socket, answered by "ok" or "error: ...":
 *   port NAME SEGMENT NODE SOCKET    a port of node NODE on a segment, listening on SOCKET
 *   link NAME up|down                cable out
 *   delay NAME MS                    each frame that comes in by the port waits
 *   loss NAME PERCENT                of the frames that come in by the port
 *   group NODE NUMBER                frames pass between nodes of equal numbers only; 0 at first
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MAX_PORTS 128
#define MAX_FRAME 70000U
#define MAX_BACKLOG (8U << 20)
#define MACS 1024U

struct delayed {
	struct delayed *next;
	uint64_t due_ms;
	uint32_t bytes;
	uint8_t data[];
};

struct port {
	char name[64];
	unsigned int segment, node;
	int listener, fd;
	bool down;
	unsigned int delay_ms, loss_percent;
	uint8_t in[MAX_FRAME + 4];
	uint32_t in_bytes;
	uint8_t *out;
	uint32_t out_bytes, out_size;
	struct delayed *first, **last;
};

static struct port *ports[MAX_PORTS];
static unsigned int nr_ports;
static unsigned int groups[256];
static struct {
	uint8_t mac[6];
	unsigned int segment;
	struct port *port;
} macs[MACS];

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ULL + ts.tv_nsec / 1000000;
}

static int listen_on(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(addr.sun_path))
		return -1;
	strcpy(addr.sun_path, path);
	unlink(path);
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) || listen(fd, 4))
		return -1;
	return fd;
}

static void drain(struct port *port)
{
	while (port->out_bytes) {
		ssize_t put = send(port->fd, port->out, port->out_bytes, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (put <= 0)
			return;
		memmove(port->out, port->out + put, port->out_bytes - put);
		port->out_bytes -= put;
	}
}

/* A full queue drops, as a switch does. */
static void put_frame(struct port *port, const uint8_t *data, uint32_t bytes)
{
	uint32_t length = htonl(bytes);

	if (port->fd < 0 || port->down || port->out_bytes + bytes + 4 > MAX_BACKLOG)
		return;
	if (port->out_bytes + bytes + 4 > port->out_size) {
		port->out_size = (port->out_bytes + bytes + 4) * 2;
		port->out = realloc(port->out, port->out_size);
	}
	memcpy(port->out + port->out_bytes, &length, 4);
	memcpy(port->out + port->out_bytes + 4, data, bytes);
	port->out_bytes += bytes + 4;
	drain(port);
}

static unsigned int mac_slot(const uint8_t *mac, unsigned int segment)
{
	unsigned int hash = segment, i;

	for (i = 0; i < 6; i++)
		hash = hash * 31 + mac[i];
	return hash % MACS;
}

static void forward(struct port *from, const uint8_t *data, uint32_t bytes)
{
	unsigned int slot, i;
	struct port *only = NULL;

	if (bytes < 14)
		return;
	slot = mac_slot(data + 6, from->segment);
	memcpy(macs[slot].mac, data + 6, 6);
	macs[slot].segment = from->segment;
	macs[slot].port = from;
	slot = mac_slot(data, from->segment);
	if (!(data[0] & 1) && macs[slot].port && macs[slot].segment == from->segment &&
	    !memcmp(macs[slot].mac, data, 6))
		only = macs[slot].port;
	for (i = 0; i < nr_ports; i++) {
		struct port *to = ports[i];

		if (to == from || to->segment != from->segment || (only && to != only) ||
		    (to->node != from->node && groups[to->node] != groups[from->node]))
			continue;
		put_frame(to, data, bytes);
	}
}

static void receive_frame(struct port *port, const uint8_t *data, uint32_t bytes)
{
	struct delayed *frame;

	if (port->down || (port->loss_percent && (unsigned int)rand() % 100 < port->loss_percent))
		return;
	if (!port->delay_ms && !port->first) {
		forward(port, data, bytes);
		return;
	}
	frame = malloc(sizeof(*frame) + bytes);
	frame->next = NULL;
	frame->due_ms = now_ms() + port->delay_ms;
	frame->bytes = bytes;
	memcpy(frame->data, data, bytes);
	*port->last = frame;
	port->last = &frame->next;
}

static void send_due(struct port *port, uint64_t now)
{
	while (port->first && port->first->due_ms <= now) {
		struct delayed *frame = port->first;

		port->first = frame->next;
		if (!port->first)
			port->last = &port->first;
		if (!port->down)
			forward(port, frame->data, frame->bytes);
		free(frame);
	}
}

static void disconnect(struct port *port)
{
	close(port->fd);
	port->fd = -1;
	port->in_bytes = 0;
	port->out_bytes = 0;
}

static void receive(struct port *port)
{
	ssize_t got = recv(port->fd, port->in + port->in_bytes, sizeof(port->in) - port->in_bytes, MSG_DONTWAIT);
	uint32_t used = 0, length;

	if (got <= 0) {
		if (got == 0 || (errno != EAGAIN && errno != EINTR))
			disconnect(port);
		return;
	}
	port->in_bytes += got;
	while (port->in_bytes - used >= 4) {
		memcpy(&length, port->in + used, 4);
		length = ntohl(length);
		if (length > MAX_FRAME) {
			disconnect(port);
			return;
		}
		if (port->in_bytes - used < 4 + length)
			break;
		receive_frame(port, port->in + used + 4, length);
		if (port->fd < 0)
			return;
		used += 4 + length;
	}
	memmove(port->in, port->in + used, port->in_bytes - used);
	port->in_bytes -= used;
}

static struct port *find_port(const char *name)
{
	unsigned int i;

	for (i = 0; i < nr_ports; i++)
		if (!strcmp(ports[i]->name, name))
			return ports[i];
	return NULL;
}

static const char *add_port(const char *name, unsigned int segment, unsigned int node, const char *path)
{
	struct port *port;

	if (nr_ports == MAX_PORTS || find_port(name) || node > 255)
		return "error: exists or too many\n";
	port = calloc(1, sizeof(*port));
	snprintf(port->name, sizeof(port->name), "%s", name);
	port->segment = segment;
	port->node = node;
	port->fd = -1;
	port->last = &port->first;
	port->listener = listen_on(path);
	if (port->listener < 0) {
		free(port);
		return "error: cannot listen\n";
	}
	ports[nr_ports++] = port;
	return "ok\n";
}

static const char *command(const char *line)
{
	char verb[16], name[64], a[32] = "", b[32] = "", path[512] = "";
	int words = sscanf(line, "%15s %63s %31s %31s %511s", verb, name, a, b, path);
	struct port *port;

	if (words == 5 && !strcmp(verb, "port"))
		return add_port(name, atoi(a), atoi(b), path);
	if (words == 3 && !strcmp(verb, "group") && atoi(name) >= 0 && atoi(name) < 256) {
		groups[atoi(name)] = atoi(a);
		return "ok\n";
	}
	port = words >= 2 ? find_port(name) : NULL;
	if (words != 3 || !port)
		return "error: no such port or command\n";
	if (!strcmp(verb, "link"))
		port->down = !strcmp(a, "down");
	else if (!strcmp(verb, "delay"))
		port->delay_ms = atoi(a);
	else if (!strcmp(verb, "loss"))
		port->loss_percent = atoi(a);
	else
		return "error: unknown command\n";
	return "ok\n";
}

static void control_input(int fd)
{
	char line[2048];
	ssize_t got = read(fd, line, sizeof(line) - 1);
	const char *answer;

	if (got > 0) {
		line[got] = 0;
		answer = command(line);
		if (write(fd, answer, strlen(answer)) < 0)
			perror("control");
	}
	close(fd);
}

int main(int argc, char **argv)
{
	int control;

	if (argc != 2) {
		fprintf(stderr, "usage: labnet CONTROL-SOCKET\n");
		return 2;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGPIPE, SIG_IGN);
	control = listen_on(argv[1]);
	if (control < 0) {
		perror(argv[1]);
		return 1;
	}
	for (;;) {
		struct pollfd fds[MAX_PORTS + 1] = { { .fd = control, .events = POLLIN } };
		bool waiting = false;
		uint64_t now;
		unsigned int i;

		for (i = 0; i < nr_ports; i++) {
			fds[i + 1].fd = ports[i]->fd < 0 ? ports[i]->listener : ports[i]->fd;
			fds[i + 1].events = POLLIN | (ports[i]->out_bytes ? POLLOUT : 0);
			waiting = waiting || ports[i]->first;
		}
		if (poll(fds, nr_ports + 1, waiting ? 1 : -1) < 0 && errno != EINTR)
			return 1;
		now = now_ms();
		/* Ports that a command adds below have no events yet. */
		for (i = nr_ports; i > 0; i--) {
			struct port *port = ports[i - 1];

			send_due(port, now);
			if (port->fd < 0 && fds[i].revents & POLLIN)
				port->fd = accept(port->listener, NULL, NULL);
			else if (port->fd >= 0 && fds[i].fd == port->fd && fds[i].revents & (POLLIN | POLLHUP | POLLERR))
				receive(port);
			if (port->fd >= 0 && fds[i].revents & POLLOUT)
				drain(port);
		}
		if (fds[0].revents & POLLIN) {
			int fd = accept(control, NULL, NULL);

			if (fd >= 0)
				control_input(fd);
		}
	}
}
