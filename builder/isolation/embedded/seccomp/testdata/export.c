// Compiles a profile with libseccomp. Input lines:
//   default ACTION | arch NAME | rule ACTION CALL N {INDEX OP A B}...
// with numbers in hexadecimal, OP as in enum scmp_compare. The program goes to
// standard output, names that the library does not know to standard error.
#include <errno.h>
#include <inttypes.h>
#include <seccomp.h>
#include <stdio.h>
#include <string.h>

int main(void) {
	scmp_filter_ctx ctx = NULL;
	char word[64], name[128];
	uint32_t action;
	int rc;

	while (scanf("%63s", word) == 1) {
		if (!strcmp(word, "default")) {
			if (scanf("%" SCNx32, &action) != 1) return 2;
			ctx = seccomp_init(action);
			if (!ctx) return 3;
		} else if (!strcmp(word, "arch")) {
			if (scanf("%127s", name) != 1) return 2;
			rc = seccomp_arch_add(ctx, seccomp_arch_resolve_name(name));
			if (rc && rc != -EEXIST) return 4;
		} else if (!strcmp(word, "rule")) {
			struct scmp_arg_cmp args[6];
			unsigned n;
			if (scanf("%" SCNx32 " %127s %x", &action, name, &n) != 3 || n > 6) return 2;
			for (unsigned i = 0; i < n; i++) {
				unsigned index, op;
				if (scanf("%x %x %" SCNx64 " %" SCNx64, &index, &op, &args[i].datum_a, &args[i].datum_b) != 4) return 2;
				args[i].arg = index;
				args[i].op = op;
			}
			int nr = seccomp_syscall_resolve_name(name);
			if (nr == __NR_SCMP_ERROR) {
				fprintf(stderr, "%s\n", name);
				continue;
			}
			rc = seccomp_rule_add_array(ctx, action, nr, n, args);
			if (rc) {
				fprintf(stderr, "!%s: %s\n", name, strerror(-rc));
				return 5;
			}
		} else {
			return 2;
		}
	}
	return seccomp_export_bpf(ctx, fileno(stdout)) ? 6 : 0;
}
