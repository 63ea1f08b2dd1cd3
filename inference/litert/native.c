//go:build cgo

#define _GNU_SOURCE
#include "native.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

// LiteRT's numbers.
enum {
	SEVERITY_OPTION = 25,     // environment option: least severity to print
	ACCELERATORS_OPTION = 24, // environment option: what to register
	KIND_INT = 2,
	CPU = 1,
	LOCK_READ = 0,
	LOCK_WRITE = 1,
	RANKED = 0,
	PER_TENSOR = 1,
};

// ---- loading ----

void *lrt_open(const char *path, char *err, size_t errlen) {
	void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (lib == NULL) {
		const char *why = dlerror();
		snprintf(err, errlen, "%s", why ? why : "unknown reason");
	}
	return lib;
}

const char *lrt_resolve(void *lib, lrt_api *api) {
	const struct {
		void *slot;
		const char *name;
	} table[] = {
		{&api->create_environment, "LiteRtCreateEnvironment"},
		{&api->destroy_environment, "LiteRtDestroyEnvironment"},
		{&api->create_model, "LiteRtCreateModelFromBuffer"},
		{&api->destroy_model, "LiteRtDestroyModel"},
		{&api->num_signatures, "LiteRtGetNumModelSignatures"},
		{&api->signature, "LiteRtGetModelSignature"},
		{&api->signature_key, "LiteRtGetSignatureKey"},
		{&api->num_inputs, "LiteRtGetNumSignatureInputs"},
		{&api->num_outputs, "LiteRtGetNumSignatureOutputs"},
		{&api->input_name, "LiteRtGetSignatureInputName"},
		{&api->output_name, "LiteRtGetSignatureOutputName"},
		{&api->input_tensor, "LiteRtGetSignatureInputTensorByIndex"},
		{&api->output_tensor, "LiteRtGetSignatureOutputTensorByIndex"},
		{&api->tensor_type_id, "LiteRtGetTensorTypeId"},
		{&api->tensor_type, "LiteRtGetRankedTensorType"},
		{&api->quant_id, "LiteRtGetQuantizationTypeId"},
		{&api->quant, "LiteRtGetPerTensorQuantization"},
		{&api->create_options, "LiteRtCreateOptions"},
		{&api->destroy_options, "LiteRtDestroyOptions"},
		{&api->set_accelerators, "LiteRtSetOptionsHardwareAccelerators"},
		{&api->create_opaque, "LiteRtCreateOpaqueOptions"},
		{&api->destroy_opaque, "LiteRtDestroyOpaqueOptions"},
		{&api->add_opaque, "LiteRtAddOpaqueOptions"},
		{&api->create_compiled, "LiteRtCreateCompiledModel"},
		{&api->destroy_compiled, "LiteRtDestroyCompiledModel"},
		{&api->input_requirements, "LiteRtGetCompiledModelInputBufferRequirements"},
		{&api->output_requirements, "LiteRtGetCompiledModelOutputBufferRequirements"},
		{&api->requirements_size, "LiteRtGetTensorBufferRequirementsBufferSize"},
		{&api->output_layouts, "LiteRtGetCompiledModelOutputTensorLayouts"},
		{&api->run, "LiteRtRunCompiledModel"},
		{&api->create_buffer, "LiteRtCreateManagedTensorBufferFromRequirements"},
		{&api->destroy_buffer, "LiteRtDestroyTensorBuffer"},
		{&api->buffer_size, "LiteRtGetTensorBufferSize"},
		{&api->lock_buffer, "LiteRtLockTensorBuffer"},
		{&api->unlock_buffer, "LiteRtUnlockTensorBuffer"},
	};
	for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
		void *f = dlsym(lib, table[i].name);
		if (f == NULL) {
			return strdup(table[i].name); // the caller frees it
		}
		memcpy(table[i].slot, &f, sizeof f);
	}
	return NULL;
}

// ---- what the library prints ----
//
// LiteRT 2.3.0 exports no way to set a logger: everything goes to stderr. So the
// library gets a stderr of its own. It reads the variable through one entry of
// its global offset table; that entry is pointed at own_stderr, a stream whose
// writes land in a sink. The process's stderr and every other library keep
// theirs.

static FILE *own_stderr;
static __thread lrt_sink *current; // the sink of the call this thread is in
static lrt_sink orphans;           // printed by threads that are in no call
static pthread_mutex_t orphans_mu = PTHREAD_MUTEX_INITIALIZER;

static void sink_add(lrt_sink *s, const char *text, size_t n) {
	size_t room = LRT_SINK_BYTES - s->len;
	size_t take = n < room ? n : room;
	memcpy(s->text + s->len, text, take);
	s->len += take;
	s->lost += n - take;
}

static ssize_t sink_write(void *cookie, const char *text, size_t n) {
	(void)cookie;
	// A failed check prints "F<digit>..." and aborts: nobody would read the sink.
	if (n > 1 && text[0] == 'F' && text[1] >= '0' && text[1] <= '9') {
		ssize_t ignored = write(STDERR_FILENO, text, n);
		(void)ignored;
	}
	if (current != NULL) {
		sink_add(current, text, n);
		return (ssize_t)n;
	}
	pthread_mutex_lock(&orphans_mu);
	sink_add(&orphans, text, n);
	pthread_mutex_unlock(&orphans_mu);
	return (ssize_t)n;
}

void lrt_drain(lrt_sink *out) {
	pthread_mutex_lock(&orphans_mu);
	sink_add(out, orphans.text, orphans.len);
	out->lost += orphans.lost;
	orphans.len = orphans.lost = 0;
	pthread_mutex_unlock(&orphans_mu);
}

static int open_own_stderr(void) {
	if (own_stderr != NULL) {
		return 0;
	}
	cookie_io_functions_t io = {.write = sink_write};
	FILE *f = fopencookie(NULL, "w", io);
	if (f == NULL) {
		return -1;
	}
	setvbuf(f, NULL, _IOLBF, 4096);
	own_stderr = f;
	return 0;
}

#if defined(__x86_64__)
enum { GLOB_DAT = R_X86_64_GLOB_DAT, ABSOLUTE = R_X86_64_64 };
#elif defined(__aarch64__)
enum { GLOB_DAT = R_AARCH64_GLOB_DAT, ABSOLUTE = R_AARCH64_ABS64 };
#else
enum { GLOB_DAT = -1, ABSOLUTE = -1 };
#endif

// patch_slot points one table entry at own_stderr. The entry lies in memory that
// the loader has made read-only, so the page is opened for the moment.
static int patch_slot(void **slot) {
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	void *start = (void *)((uintptr_t)slot & ~(page - 1));
	if (*slot == (void *)&own_stderr) {
		return 0;
	}
	if (*slot != (void *)&stderr || mprotect(start, page, PROT_READ | PROT_WRITE) != 0) {
		return -1;
	}
	*slot = (void *)&own_stderr;
	mprotect(start, page, PROT_READ);
	return 0;
}

int lrt_capture(void *lib) {
	struct link_map *map = NULL;
	if (dlinfo(lib, RTLD_DI_LINKMAP, &map) != 0 || open_own_stderr() != 0) {
		return -1;
	}
	const ElfW(Rela) *rela = NULL;
	const ElfW(Sym) *symbols = NULL;
	const char *names = NULL;
	size_t bytes = 0;
	for (const ElfW(Dyn) *d = map->l_ld; d->d_tag != DT_NULL; d++) {
		switch (d->d_tag) {
		case DT_RELA: rela = (const void *)d->d_un.d_ptr; break;
		case DT_RELASZ: bytes = d->d_un.d_val; break;
		case DT_SYMTAB: symbols = (const void *)d->d_un.d_ptr; break;
		case DT_STRTAB: names = (const void *)d->d_un.d_ptr; break;
		}
	}
	if (rela == NULL || symbols == NULL || names == NULL) {
		return -1;
	}
	for (size_t i = 0; i < bytes / sizeof *rela; i++) {
		int kind = (int)ELF64_R_TYPE(rela[i].r_info);
		const char *name = names + symbols[ELF64_R_SYM(rela[i].r_info)].st_name;
		if ((kind == GLOB_DAT || kind == ABSOLUTE) && strcmp(name, "stderr") == 0) {
			return patch_slot((void **)(map->l_addr + rela[i].r_offset));
		}
	}
	return -1;
}

static void enter(lrt_sink *s) { current = s; }

static int leave(int status) {
	if (own_stderr != NULL && current != NULL) {
		fflush(own_stderr); // a last line without its newline
	}
	current = NULL;
	return status;
}

// ---- calls ----

int lrt_create_environment(const lrt_api *api, lrt_sink *s, int min_severity, void **out) {
	lrt_env_option options[] = {
		{.tag = SEVERITY_OPTION, .kind = KIND_INT, .value = min_severity},
		{.tag = ACCELERATORS_OPTION, .kind = KIND_INT, .value = CPU},
	};
	enter(s);
	return leave(api->create_environment(2, options, out));
}

int lrt_create_model(const lrt_api *api, lrt_sink *s, void *env, const void *bytes, size_t n, void **out) {
	enter(s);
	return leave(api->create_model(env, bytes, n, out));
}

int lrt_create_options(const lrt_api *api, lrt_sink *s, void **out) {
	enter(s);
	return leave(api->create_options(out));
}

// lrt_set_options chooses the CPU and its number of threads. The CPU accelerator
// reads its settings as text from an opaque option named "xnnpack"; once added,
// that option belongs to options.
int lrt_set_options(const lrt_api *api, lrt_sink *s, void *options, int threads) {
	char *text = malloc(32);
	void *opaque = NULL;
	if (text == NULL) {
		return 2;
	}
	snprintf(text, 32, "num_threads = %d\n", threads);
	enter(s);
	int status = api->set_accelerators(options, CPU);
	if (status == 0) {
		status = api->create_opaque("xnnpack", text, free, &opaque);
	}
	if (opaque == NULL) {
		free(text);
		return leave(status);
	}
	status = api->add_opaque(options, opaque);
	if (status != 0) {
		api->destroy_opaque(opaque);
	}
	return leave(status);
}

int lrt_create_compiled(const lrt_api *api, lrt_sink *s, void *env, void *model, void *options, void **out) {
	enter(s);
	return leave(api->create_compiled(env, model, options, out));
}

int lrt_run(const lrt_api *api, lrt_sink *s, void *compiled, size_t nin, void **in, size_t nout, void **out) {
	enter(s);
	return leave(api->run(compiled, 0, nin, in, nout, out));
}

void lrt_free(lrt_sink *s, lrt_destroy destroy, void *object) {
	enter(s);
	destroy(object);
	leave(0);
}

int lrt_signature(const lrt_api *api, void *model, void **sig) {
	size_t n = 0;
	int status = api->num_signatures(model, &n);
	if (status != 0) {
		return status;
	}
	return n == 0 ? 6 : api->signature(model, 0, sig);
}

int lrt_count(const lrt_api *api, void *sig, int output, size_t *n) {
	return output ? api->num_outputs(sig, n) : api->num_inputs(sig, n);
}

int lrt_tensor(const lrt_api *api, void *sig, int output, size_t i, const char **name, lrt_type *type,
               lrt_quant *quant) {
	void *tensor = NULL;
	int id = 0;
	int status = output ? api->output_name(sig, i, name) : api->input_name(sig, i, name);
	if (status == 0) {
		status = output ? api->output_tensor(sig, i, &tensor) : api->input_tensor(sig, i, &tensor);
	}
	if (status == 0) {
		status = api->tensor_type_id(tensor, &id);
	}
	if (status == 0) {
		status = id == RANKED ? api->tensor_type(tensor, type) : 5;
	}
	if (status != 0 || api->quant_id(tensor, &id) != 0 || id != PER_TENSOR) {
		return status;
	}
	return api->quant(tensor, quant);
}

int lrt_output_layouts(const lrt_api *api, lrt_sink *s, void *compiled, size_t n, lrt_type *out) {
	// LiteRT writes layouts, that is a type without its element, side by side.
	enum { LAYOUT = sizeof(lrt_type) - offsetof(lrt_type, dims) + sizeof(uint32_t) };
	char *layouts = calloc(n, LAYOUT);
	if (layouts == NULL) {
		return 2;
	}
	enter(s);
	int status = leave(api->output_layouts(compiled, 0, n, layouts, 1));
	for (size_t i = 0; i < n; i++) {
		memcpy((char *)&out[i] + sizeof(lrt_type) - LAYOUT, layouts + i * LAYOUT, LAYOUT);
	}
	free(layouts);
	return status;
}

int lrt_create_buffer(const lrt_api *api, lrt_sink *s, void *env, void *compiled, int output, size_t i,
                      const lrt_type *type, void **buffer, size_t *size) {
	void *requirements = NULL; // belongs to compiled
	enter(s);
	int status = output ? api->output_requirements(compiled, 0, i, &requirements)
	                    : api->input_requirements(compiled, 0, i, &requirements);
	if (status == 0) {
		status = api->create_buffer(env, type, requirements, buffer);
	}
	if (status == 0) {
		status = api->buffer_size(*buffer, size);
	}
	return leave(status);
}

int lrt_write(const lrt_api *api, void *buffer, const void *src, size_t n) {
	void *at = NULL;
	int status = api->lock_buffer(buffer, &at, LOCK_WRITE);
	if (status != 0) {
		return status;
	}
	memcpy(at, src, n);
	return api->unlock_buffer(buffer);
}

int lrt_read(const lrt_api *api, void *buffer, void *dst, size_t n) {
	void *at = NULL;
	int status = api->lock_buffer(buffer, &at, LOCK_READ);
	if (status != 0) {
		return status;
	}
	memcpy(dst, at, n);
	return api->unlock_buffer(buffer);
}
