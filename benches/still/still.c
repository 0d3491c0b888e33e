/*
 * The least of programs: what a container under measurement runs, so that nothing of it is measured. It ends at once with 0;
 * built with FOREVER it waits for a signal instead. Built without a C library, static: about 9 KiB.
 */
#if !defined(__x86_64__)
#error "only x86-64 was tried"
#endif

#ifdef FOREVER
enum { NUMBER = 34 /* pause */ };
#else
enum { NUMBER = 231 /* exit_group */ };
#endif

void _start(void)
{
	for (;;) {
		long result;

		__asm__ volatile("syscall" : "=a"(result) : "a"((long)NUMBER), "D"(0L) : "rcx", "r11", "memory");
	}
}
