// The C side of package litert: the few prototypes of LiteRT's C API that the
// package uses, resolved with dlsym, and a sink for what the library prints.
//
// Handles are opaque pointers here. A status of 0 is success everywhere.
#ifndef POSTERN_LITERT_NATIVE_H
#define POSTERN_LITERT_NATIVE_H

#include <stddef.h>
#include <stdint.h>

// Room for what one native call prints; the rest is counted, not kept.
enum { LRT_SINK_BYTES = 16 << 10 };

// lrt_sink collects the lines the library prints during one call.
typedef struct {
	size_t len;
	size_t lost; // bytes that did not fit
	char text[LRT_SINK_BYTES];
} lrt_sink;

// lrt_type is the element type and the shape of a tensor, as LiteRT lays it out.
typedef struct {
	int32_t element;
	uint32_t rank : 7;
	uint32_t strided : 1;
	int32_t dims[8];
	uint32_t strides[8];
} lrt_type;

// lrt_quant is a per-tensor quantisation.
typedef struct {
	float scale;
	int64_t zero_point;
} lrt_quant;

// lrt_env_option is one integer option of an environment: a tag and a tagged value.
typedef struct {
	int32_t tag;
	int32_t pad0;
	int32_t kind;
	int32_t pad1;
	int64_t value;
} lrt_env_option;

_Static_assert(sizeof(lrt_type) == 72, "layout of a ranked tensor type");
_Static_assert(sizeof(lrt_quant) == 16, "layout of a per-tensor quantisation");
_Static_assert(sizeof(lrt_env_option) == 24, "layout of an environment option");

typedef void (*lrt_destroy)(void *);

// lrt_api holds the resolved functions of one loaded library.
typedef struct {
	int (*create_environment)(int, const void *, void **);
	lrt_destroy destroy_environment;

	int (*create_model)(void *env, const void *, size_t, void **);
	lrt_destroy destroy_model;
	int (*num_signatures)(void *model, size_t *);
	int (*signature)(void *model, size_t, void **);
	int (*signature_key)(void *sig, const char **);
	int (*num_inputs)(void *sig, size_t *);
	int (*num_outputs)(void *sig, size_t *);
	int (*input_name)(void *sig, size_t, const char **);
	int (*output_name)(void *sig, size_t, const char **);
	int (*input_tensor)(void *sig, size_t, void **);
	int (*output_tensor)(void *sig, size_t, void **);
	int (*tensor_type_id)(void *tensor, int *);
	int (*tensor_type)(void *tensor, lrt_type *);
	int (*quant_id)(void *tensor, int *);
	int (*quant)(void *tensor, lrt_quant *);

	int (*create_options)(void **);
	lrt_destroy destroy_options;
	int (*set_accelerators)(void *options, int);
	int (*create_opaque)(const char *, void *, lrt_destroy, void **);
	lrt_destroy destroy_opaque;
	int (*add_opaque)(void *options, void *opaque);

	int (*create_compiled)(void *env, void *model, void *options, void **);
	lrt_destroy destroy_compiled;
	int (*input_requirements)(void *compiled, size_t, size_t, void **);
	int (*output_requirements)(void *compiled, size_t, size_t, void **);
	int (*requirements_size)(void *requirements, size_t *);
	int (*output_layouts)(void *compiled, size_t, size_t, void *, _Bool);
	int (*run)(void *compiled, size_t, size_t, void **, size_t, void **);

	int (*create_buffer)(void *env, const lrt_type *, void *requirements, void **);
	lrt_destroy destroy_buffer;
	int (*buffer_size)(void *buffer, size_t *);
	int (*lock_buffer)(void *buffer, void **, int);
	int (*unlock_buffer)(void *buffer);
} lrt_api;

// lrt_open loads the library; NULL and a message in err on failure.
void *lrt_open(const char *path, char *err, size_t errlen);
// lrt_resolve fills api; it returns the first missing symbol or NULL.
const char *lrt_resolve(void *lib, lrt_api *api);
// lrt_capture points the library's stderr at the sinks; 0 on success.
int lrt_capture(void *lib);
// lrt_drain moves what threads without a sink of their own have printed to out.
void lrt_drain(lrt_sink *out);

// The calls. Each collects what the library prints in s.
int lrt_create_environment(const lrt_api *, lrt_sink *s, int min_severity, void **out);
int lrt_create_model(const lrt_api *, lrt_sink *s, void *env, const void *bytes, size_t n, void **out);
int lrt_create_options(const lrt_api *, lrt_sink *s, void **out);
int lrt_set_options(const lrt_api *, lrt_sink *s, void *options, int threads);
int lrt_create_compiled(const lrt_api *, lrt_sink *s, void *env, void *model, void *options, void **out);
int lrt_run(const lrt_api *, lrt_sink *s, void *compiled, size_t nin, void **in, size_t nout, void **out);
void lrt_free(lrt_sink *s, lrt_destroy destroy, void *object);

int lrt_signature(const lrt_api *, void *model, void **sig);
int lrt_count(const lrt_api *, void *sig, int output, size_t *n);
int lrt_tensor(const lrt_api *, void *sig, int output, size_t i, const char **name, lrt_type *, lrt_quant *);
int lrt_output_layouts(const lrt_api *, lrt_sink *s, void *compiled, size_t n, lrt_type *out);
int lrt_create_buffer(const lrt_api *, lrt_sink *s, void *env, void *compiled, int output, size_t i,
                      const lrt_type *, void **buffer, size_t *size);
int lrt_write(const lrt_api *, void *buffer, const void *src, size_t n);
int lrt_read(const lrt_api *, void *buffer, void *dst, size_t n);

#endif
