// SPDX-License-Identifier: GPL-2.0
/*
 * labdisk: disks with a volatile write cache, for QEMU over NBD on unix sockets.
 *
 *   labdisk CONTROL-SOCKET
 *
 * A write goes to memory and is acknowledged; FLUSH and FUA bring it to the file. Killing this
 * process is therefore a power cut: what was not flushed is gone. Like a real drive, it also writes
 * back by itself when its cache is full, oldest first.
 *
 * Commands, one line each on the control socket, answered by "ok" or "error: ...":
 *   add NAME FILE SOCKET     export FILE (its size is the disk's size)
 *   fail NAME | failwrites NAME | slow NAME MS | hang NAME | ok NAME
 *   cut NAME SEED PERCENT    before a kill: bring a random part of the cache to the file, as a
 *                            drive may have done
 */
#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096U
#define SECTOR 512U
#define BUCKETS 16384U
#define CACHE_PAGES 8192U /* 32 MiB */
#define MAX_DISKS 64
#define MAX_REQUEST (32U << 20)

struct page {
	struct page *hash_next;
	struct page *older, *newer;
	uint64_t index;
	uint8_t valid; /* a bit for each sector */
	uint8_t data[PAGE];
};

struct disk {
	char name[64];
	int fd;
	int listener;
	uint64_t bytes;
	pthread_mutex_t lock;
	struct page *buckets[BUCKETS];
	struct page *oldest, *newest;
	unsigned int nr_pages;
	bool fail_reads, fail_writes;
	unsigned int slow_ms;
	atomic_bool hangs;
};

static struct disk *disks[MAX_DISKS];
static unsigned int nr_disks;

static bool read_full(int fd, void *data, size_t bytes)
{
	while (bytes) {
		ssize_t got = read(fd, data, bytes);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		data = (char *)data + got;
		bytes -= got;
	}
	return true;
}

static bool write_full(int fd, const void *data, size_t bytes)
{
	while (bytes) {
		ssize_t put = write(fd, data, bytes);

		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			return false;
		data = (const char *)data + put;
		bytes -= put;
	}
	return true;
}

/* Cache; all under disk->lock */

static struct page *find_page(struct disk *disk, uint64_t index)
{
	struct page *page = disk->buckets[index % BUCKETS];

	while (page && page->index != index)
		page = page->hash_next;
	return page;
}

static void unlink_page(struct disk *disk, struct page *page)
{
	struct page **at = &disk->buckets[page->index % BUCKETS];

	while (*at != page)
		at = &(*at)->hash_next;
	*at = page->hash_next;
	*(page->older ? &page->older->newer : &disk->oldest) = page->newer;
	*(page->newer ? &page->newer->older : &disk->newest) = page->older;
	disk->nr_pages--;
}

static bool write_back(struct disk *disk, struct page *page)
{
	unsigned int first = 0, last;

	while (first < 8) {
		if (!(page->valid >> first & 1)) {
			first++;
			continue;
		}
		for (last = first; last < 8 && page->valid >> last & 1; last++)
			;
		if (pwrite(disk->fd, page->data + first * SECTOR, (last - first) * SECTOR,
			   page->index * PAGE + first * SECTOR) != (ssize_t)((last - first) * SECTOR))
			return false;
		first = last;
	}
	unlink_page(disk, page);
	free(page);
	return true;
}

static bool write_back_range(struct disk *disk, uint64_t offset, uint64_t bytes)
{
	uint64_t index;

	for (index = offset / PAGE; index * PAGE < offset + bytes; index++) {
		struct page *page = find_page(disk, index);

		if (page && !write_back(disk, page))
			return false;
	}
	return true;
}

static bool write_back_all(struct disk *disk)
{
	while (disk->oldest)
		if (!write_back(disk, disk->oldest))
			return false;
	return true;
}

static struct page *make_page(struct disk *disk, uint64_t index)
{
	struct page *page = find_page(disk, index);

	if (page)
		return page;
	if (disk->nr_pages >= CACHE_PAGES && !write_back(disk, disk->oldest))
		return NULL;
	page = calloc(1, sizeof(*page));
	if (!page)
		return NULL;
	page->index = index;
	page->hash_next = disk->buckets[index % BUCKETS];
	disk->buckets[index % BUCKETS] = page;
	page->older = disk->newest;
	*(disk->newest ? &disk->newest->newer : &disk->oldest) = page;
	disk->newest = page;
	disk->nr_pages++;
	return page;
}

static bool cache_write(struct disk *disk, uint64_t offset, uint32_t bytes, const uint8_t *data)
{
	while (bytes) {
		uint32_t at = offset % PAGE;
		uint32_t part = PAGE - at < bytes ? PAGE - at : bytes;
		struct page *page = make_page(disk, offset / PAGE);

		if (!page)
			return false;
		memcpy(page->data + at, data, part);
		page->valid |= ((1U << part / SECTOR) - 1) << at / SECTOR;
		offset += part;
		data += part;
		bytes -= part;
	}
	return true;
}

static bool cache_read(struct disk *disk, uint64_t offset, uint32_t bytes, uint8_t *data)
{
	uint32_t done, sector;

	for (done = 0; done < bytes;) {
		ssize_t got = pread(disk->fd, data + done, bytes - done, offset + done);

		if (got <= 0)
			return false;
		done += got;
	}
	for (done = 0; done < bytes && disk->nr_pages; done += PAGE - (offset + done) % PAGE) {
		struct page *page = find_page(disk, (offset + done) / PAGE);

		for (sector = (offset + done) % PAGE / SECTOR; page && sector < 8; sector++) {
			uint64_t at = page->index * PAGE + sector * SECTOR;

			if (at < offset + bytes && page->valid >> sector & 1)
				memcpy(data + (at - offset), page->data + sector * SECTOR, SECTOR);
		}
	}
	return true;
}

/* NBD, fixed newstyle, simple replies */

struct request {
	uint32_t magic;
	uint16_t flags, type;
	uint64_t handle, offset;
	uint32_t length;
} __attribute__((packed));

struct reply {
	uint32_t magic, error;
	uint64_t handle;
} __attribute__((packed));

#define FLAGS (1 | 4 | 8 | 32 | 64) /* has flags, flush, fua, trim, write zeroes */

static bool option_reply(int fd, uint32_t option, uint32_t type, const void *data, uint32_t bytes)
{
	struct {
		uint64_t magic;
		uint32_t option, type, length;
	} __attribute__((packed)) head = { htobe64(0x3e889045565a9), htobe32(option), htobe32(type), htobe32(bytes) };

	return write_full(fd, &head, sizeof(head)) && (!bytes || write_full(fd, data, bytes));
}

static bool negotiate(struct disk *disk, int fd)
{
	struct {
		uint64_t magic, version;
		uint16_t flags;
	} __attribute__((packed)) hello = { htobe64(0x4e42444d41474943), htobe64(0x49484156454f5054), htobe16(3) };
	uint32_t client_flags;

	if (!write_full(fd, &hello, sizeof(hello)) || !read_full(fd, &client_flags, 4))
		return false;
	for (;;) {
		struct {
			uint64_t magic;
			uint32_t option, length;
		} __attribute__((packed)) option;
		struct {
			uint16_t type;
			uint64_t bytes;
			uint16_t flags;
		} __attribute__((packed)) info = { 0, htobe64(disk->bytes), htobe16(FLAGS) };
		char skip[4096];

		if (!read_full(fd, &option, sizeof(option)))
			return false;
		option.option = be32toh(option.option);
		option.length = be32toh(option.length);
		if (option.length > sizeof(skip) || !read_full(fd, skip, option.length))
			return false;
		if (option.option == 1) /* EXPORT_NAME */
			return write_full(fd, &info.bytes, 10) && (be32toh(client_flags) & 2 || write_full(fd, (char[124]){ 0 }, 124));
		if (option.option == 7) /* GO */
			return option_reply(fd, 7, 3, &info, sizeof(info)) && option_reply(fd, 7, 1, NULL, 0);
		if (!option_reply(fd, option.option, 0x80000001, NULL, 0))
			return false;
		if (option.option == 2)
			return false;
	}
}

static int execute(struct disk *disk, const struct request *req, uint8_t *data)
{
	bool write = req->type == 1 || req->type == 4 || req->type == 6;
	bool good = true;

	if (disk->slow_ms)
		usleep(disk->slow_ms * 1000);
	while (disk->hangs)
		usleep(100000);
	pthread_mutex_lock(&disk->lock);
	if ((disk->fail_writes && req->type != 0) || (disk->fail_reads && req->type == 0)) {
		good = false;
	} else if (req->type != 3 && (req->length > disk->bytes || req->offset > disk->bytes - req->length)) {
		good = false;
	} else if (req->type == 0) {
		good = cache_read(disk, req->offset, req->length, data);
	} else if (req->type == 3) {
		good = write_back_all(disk);
	} else if (req->type == 1) {
		good = cache_write(disk, req->offset, req->length, data);
	} else {
		/* TRIM, WRITE_ZEROES: at once on the medium, the cache above it dropped */
		good = write_back_range(disk, req->offset, req->length) &&
		       !fallocate(disk->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, req->offset, req->length);
	}
	if (good && write && req->flags & 1)
		good = write_back_range(disk, req->offset, req->length);
	pthread_mutex_unlock(&disk->lock);
	return good ? 0 : EIO;
}

struct session {
	struct disk *disk;
	int fd;
};

static void *serve(void *arg)
{
	struct session *session = arg;
	uint8_t *data = malloc(MAX_REQUEST);
	struct disk *disk = session->disk;
	int fd = session->fd;
	struct request req;

	free(session);
	if (data && negotiate(disk, fd)) {
		while (read_full(fd, &req, sizeof(req)) && be32toh(req.magic) == 0x25609513) {
			struct reply reply = { htobe32(0x67446698), 0, req.handle };

			req.flags = be16toh(req.flags);
			req.type = be16toh(req.type);
			req.offset = be64toh(req.offset);
			req.length = be32toh(req.length);
			if (req.type == 2 || ((req.type < 2) && req.length > MAX_REQUEST))
				break;
			if (req.type == 1 && !read_full(fd, data, req.length))
				break;
			reply.error = htobe32(execute(disk, &req, data));
			if (!write_full(fd, &reply, sizeof(reply)) ||
			    (req.type == 0 && !reply.error && !write_full(fd, data, req.length)))
				break;
		}
	}
	free(data);
	close(fd);
	return NULL;
}

static int listen_on(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(addr.sun_path))
		return -1;
	strcpy(addr.sun_path, path);
	unlink(path);
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) || listen(fd, 16))
		return -1;
	return fd;
}

static void *accept_all(void *arg)
{
	struct disk *disk = arg;

	for (;;) {
		struct session *session = malloc(sizeof(*session));
		pthread_t thread;

		session->disk = disk;
		session->fd = accept(disk->listener, NULL, NULL);
		if (session->fd < 0 || pthread_create(&thread, NULL, serve, session)) {
			free(session);
			return NULL;
		}
		pthread_detach(thread);
	}
}

static struct disk *find_disk(const char *name)
{
	unsigned int i;

	for (i = 0; i < nr_disks; i++)
		if (!strcmp(disks[i]->name, name))
			return disks[i];
	return NULL;
}

static const char *add_disk(const char *name, const char *file, const char *path)
{
	struct disk *disk;
	struct stat st;
	pthread_t thread;

	if (find_disk(name) || nr_disks == MAX_DISKS)
		return "error: exists or too many\n";
	disk = calloc(1, sizeof(*disk));
	if (!disk)
		return "error: no memory\n";
	snprintf(disk->name, sizeof(disk->name), "%s", name);
	pthread_mutex_init(&disk->lock, NULL);
	disk->fd = open(file, O_RDWR | O_CLOEXEC);
	if (disk->fd >= 0 && !fstat(disk->fd, &st)) {
		disk->bytes = st.st_size;
		disk->listener = listen_on(path);
		if (disk->listener >= 0 && !pthread_create(&thread, NULL, accept_all, disk)) {
			disks[nr_disks++] = disk;
			return "ok\n";
		}
	}
	free(disk);
	return "error: cannot open the file or listen\n";
}

static const char *cut_disk(struct disk *disk, unsigned int seed, unsigned int percent)
{
	struct page *page, *newer;

	pthread_mutex_lock(&disk->lock);
	for (page = disk->oldest; page; page = newer) {
		newer = page->newer;
		if ((unsigned int)rand_r(&seed) % 100 < percent)
			write_back(disk, page);
	}
	disk->fail_reads = true;
	disk->fail_writes = true;
	pthread_mutex_unlock(&disk->lock);
	return "ok\n";
}

static const char *command(char *line)
{
	char verb[16], name[64], file[512] = "", path[512] = "";
	int words = sscanf(line, "%15s %63s %511s %511s", verb, name, file, path);
	struct disk *disk;

	if (words == 4 && !strcmp(verb, "add"))
		return add_disk(name, file, path);
	disk = words >= 2 ? find_disk(name) : NULL;
	if (!disk)
		return "error: no such disk or command\n";
	if (words == 4 && !strcmp(verb, "cut"))
		return cut_disk(disk, atoi(file), atoi(path));
	if (words == 3 && !strcmp(verb, "slow")) {
		disk->slow_ms = atoi(file);
		return "ok\n";
	}
	if (words == 2 && !strcmp(verb, "hang")) {
		disk->hangs = true;
		return "ok\n";
	}
	if (words == 2 && (!strcmp(verb, "fail") || !strcmp(verb, "failwrites") || !strcmp(verb, "ok"))) {
		disk->fail_writes = verb[0] == 'f';
		disk->fail_reads = !strcmp(verb, "fail");
		disk->slow_ms = 0;
		disk->hangs = false;
		return "ok\n";
	}
	return "error: unknown command\n";
}

int main(int argc, char **argv)
{
	int control;

	if (argc != 2) {
		fprintf(stderr, "usage: labdisk CONTROL-SOCKET\n");
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
		int fd = accept(control, NULL, NULL);
		FILE *in = fd < 0 ? NULL : fdopen(fd, "r+");
		char line[2048];

		if (!in)
			continue;
		while (fgets(line, sizeof(line), in)) {
			const char *answer = command(line);

			if (!write_full(fd, answer, strlen(answer)))
				break;
		}
		fclose(in);
	}
}
