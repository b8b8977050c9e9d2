/* Counts the primes up to its argument with a sieve. */
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
	long n = argc > 1 ? atol(argv[1]) : 100, count = 0;
	char *composite = calloc(n + 1, 1);
	if (n < 2 || !composite)
		return 1;
	for (long i = 2; i <= n; i++) {
		if (composite[i])
			continue;
		count++;
		for (long j = i * i; j <= n; j += i)
			composite[j] = 1;
	}
	printf("%ld primes up to %ld\n", count, n);
	return 0;
}
