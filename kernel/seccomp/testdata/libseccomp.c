/* A second opinion: compiles profiles with libseccomp for the tests.
 *
 * Standard input has lines of words, numbers in decimal:
 *   P action            a new profile with this default action
 *   A arch              its architecture, by libseccomp's token
 *   R action name n {index operator value value2}...
 *   E                   the profile ends: its program is written out
 *   K arch              writes the names of the numbers below 1024 there, a line for each
 * Answers are a 32-bit length and that many bytes. */
#define _GNU_SOURCE
#include <inttypes.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static scmp_filter_ctx ctx;
static uint32_t arch;

static void fail(const char *what, int rc)
{
	fprintf(stderr, "%s: %s\n", what, strerror(-rc));
	exit(1);
}

static void answer(const void *b, uint32_t n)
{
	fwrite(&n, sizeof n, 1, stdout);
	fwrite(b, 1, n, stdout);
	fflush(stdout);
}

static void rule(void)
{
	struct scmp_arg_cmp args[6];
	uint32_t action;
	unsigned n, i;
	char name[64];
	if (scanf("%" SCNu32 " %63s %u", &action, name, &n) != 3 || n > 6)
		fail("rule", -22);
	for (i = 0; i < n; i++) {
		unsigned index, op;
		uint64_t a, b;
		if (scanf("%u %u %" SCNu64 " %" SCNu64, &index, &op, &a, &b) != 4)
			fail("argument", -22);
		args[i] = (struct scmp_arg_cmp){index, op, a, b};
	}
	int nr = seccomp_syscall_resolve_name(name);
	/* Calls the architecture lacks (from -10001 down) are left out: with version
	 * 2.5.4 they can make the program lose the load of the number. */
	if (nr == __NR_SCMP_ERROR || seccomp_syscall_resolve_name_arch(arch, name) < -10000)
		return;
	int rc = seccomp_rule_add_array(ctx, action, nr, n, args);
	if (rc < 0)
		fail(name, rc);
}

static void program(void)
{
	int fd = memfd_create("bpf", 0);
	int rc = seccomp_export_bpf(ctx, fd);
	if (rc < 0)
		fail("export", rc);
	off_t n = lseek(fd, 0, SEEK_END);
	void *b = malloc(n);
	if (pread(fd, b, n, 0) != n)
		fail("read", -5);
	answer(b, n);
	free(b);
	close(fd);
	seccomp_release(ctx);
}

static void known(uint32_t a)
{
	char b[1024 * 40];
	size_t n = 0;
	for (int nr = 0; nr < 1024; nr++) {
		char *name = seccomp_syscall_resolve_num_arch(a, a == SCMP_ARCH_X32 ? nr | 0x40000000 : nr);
		n += snprintf(b + n, sizeof b - n, "%s\n", name ? name : "");
		free(name);
	}
	answer(b, n);
}

int main(void)
{
	char word[2];
	uint32_t v;
	int rc;
	while (scanf("%1s", word) == 1) {
		switch (word[0]) {
		case 'P':
			if (scanf("%" SCNu32, &v) != 1)
				fail("profile", -22);
			ctx = seccomp_init(v);
			if (!ctx)
				fail("profile", -22);
			seccomp_arch_remove(ctx, SCMP_ARCH_NATIVE);
			break;
		case 'A':
			if (scanf("%" SCNu32, &v) != 1)
				fail("architecture", -22);
			arch = v;
			rc = seccomp_arch_add(ctx, arch);
			if (rc < 0)
				fail("architecture", rc);
			break;
		case 'R':
			rule();
			break;
		case 'K':
			if (scanf("%" SCNu32, &v) != 1)
				fail("architecture", -22);
			known(v);
			break;
		case 'E':
			program();
			break;
		}
	}
	return 0;
}
