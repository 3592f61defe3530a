// SPDX-License-Identifier: GPL-2.0
/*
 * labcount: a plugin of QEMU's emulator that counts the instructions of a guest.
 *
 *   -plugin labcount.so,path=FILE
 *
 * FILE is made eight bytes long, and holds the sum, in this machine's byte order, at any moment. A block that
 * an interrupt or a fault leaves early counts as a whole, and processors that run at once lose some to each
 * other: of a guest with one processor it says the same for the same work, within a thousandth.
 *
 * Debian has no package with QEMU's header: what is used of its interface, version 1, is declared here, as
 * docs/devel/tcg-plugins of QEMU 7.2 describes it.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct qemu_plugin_tb;
struct qemu_info;
enum { INLINE_ADD_U64 };

void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*translated)(uint64_t id, struct qemu_plugin_tb *block));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *block, int operation, void *to, uint64_t what);

int qemu_plugin_version = 1;
int qemu_plugin_install(uint64_t id, const struct qemu_info *info, int argc, char **argv);

static uint64_t *count;

static void translated(uint64_t id, struct qemu_plugin_tb *block)
{
	(void)id;
	qemu_plugin_register_vcpu_tb_exec_inline(block, INLINE_ADD_U64, count, qemu_plugin_tb_n_insns(block));
}

int qemu_plugin_install(uint64_t id, const struct qemu_info *info, int argc, char **argv)
{
	int file;

	(void)info;
	if (argc != 1 || strncmp(argv[0], "path=", 5)) {
		fprintf(stderr, "labcount: path=FILE is needed\n");
		return -1;
	}
	file = open(argv[0] + 5, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (file < 0 || ftruncate(file, sizeof(*count))) {
		perror(argv[0] + 5);
		return -1;
	}
	count = mmap(NULL, sizeof(*count), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	close(file);
	if (count == MAP_FAILED) {
		perror(argv[0] + 5);
		return -1;
	}
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
