//go:build cgo

// glibc gives each thread its own arena, and Go moves goroutines between threads:
// large native buffers (video frames, tensors) then leave a high-water mark in every
// arena, and an agent that runs for weeks grows. One arena costs nothing here, since
// few threads allocate natively. It has to be set before the first thread starts,
// hence a constructor; MALLOC_ARENA_MAX in the environment overrules it.

#include <malloc.h>
#include <stdlib.h>

__attribute__((constructor)) static void postern_one_arena(void) {
#ifdef M_ARENA_MAX
	if (getenv("MALLOC_ARENA_MAX") == NULL)
		mallopt(M_ARENA_MAX, 1);
#endif
}
