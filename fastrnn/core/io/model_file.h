/* This library's files: safetensors files (8 bytes of length, a header of JSON, then arrays) with a layer's or a model's options in
 * the header's metadata. fastrnn/files/native.py writes them. The bytes may be hostile: everything but the values of the arrays
 * is checked before memory is taken, and that is at most some twice the bytes of the header. */
#ifndef FR_MODEL_FILE_H
#define FR_MODEL_FILE_H

#include "json.h"

/* Of an array's elements; other types may be in a file, but not in what is read from it. */
typedef enum fr_array_type { FR_ARRAY_FLOAT32, FR_ARRAY_FLOAT64, FR_ARRAY_FLOAT16, FR_ARRAY_INT8, FR_ARRAY_OTHER } fr_array_type;

#define FR_ARRAY_AXES 3 /* at most, of arrays that are used */

typedef struct fr_array {
    const char *name; /* not terminated by zero */
    size_t name_size;
    fr_array_type type;
    const char *type_name; /* NumPy's */
    int64_t num_axes, shape[FR_ARRAY_AXES], count; /* count: of elements */
    size_t begin, end; /* bytes from the start of the arrays */
    const void *data;
    bool used;
} fr_array;

enum { FR_WEIGHT_IH, FR_WEIGHT_HH, FR_WEIGHT_HR, FR_BIAS_IH, FR_BIAS_HH, FR_PEEPHOLE, FR_NUM_PARTS, FR_NUM_WEIGHTS = 3 };

typedef struct fr_file_cell {
    fastrnn_cell_options options;
    const fr_array *parts[FR_NUM_PARTS], *scales[FR_NUM_WEIGHTS]; /* scales: of int8 weights */
} fr_file_cell;

typedef struct fr_file_op {
    fastrnn_op op; /* without weight, bias, config and cells; widths that the file does not give are those of the op before it */
    fastrnn_config config;
    int64_t first_cell;
    const fr_array *weight, *bias;
    bool masks_zero, is_batch_norm; /* which models of Python do, and this library does not */
} fr_file_op;

typedef struct fr_file {
    int64_t num_arrays, num_ops, num_cells;
    fr_array *arrays; /* by name */
    fr_file_op *ops;  /* a layer's file has one, the layer */
    fr_file_cell *cells;
} fr_file;

/* Reads `size` bytes, which must outlive the file. Otherwise the text of fastrnn_last_error lists what is wrong. */
fastrnn_status fr_file_open(const void *data, size_t size, fr_file *file);
void fr_file_close(fr_file *file);

#endif
