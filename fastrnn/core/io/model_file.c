#include "model_file.h"

#include <string.h>

#include "../allocator.h"
#include "../error.h"

/* ---- The arrays ------------------------------------------------------------------------------------------------ */

#define LEAST_HEADER_LIMIT ((size_t)1 << 19) /* bytes of a header whatever the arrays' size is */
#define MOST_AXES 32                         /* of arrays of a safetensors file */

static const struct {
    const char *name, *own_name; /* the format's, and ours */
    fr_array_type type;
    int64_t size;
} array_types[] = {
    {"F32", "float32", FR_ARRAY_FLOAT32, 4}, {"F64", "float64", FR_ARRAY_FLOAT64, 8}, {"F16", "float16", FR_ARRAY_FLOAT16, 2},
    {"I8", "int8", FR_ARRAY_INT8, 1},        {"BOOL", "bool", FR_ARRAY_OTHER, 1},     {"U8", "uint8", FR_ARRAY_OTHER, 1},
    {"I16", "int16", FR_ARRAY_OTHER, 2},     {"U16", "uint16", FR_ARRAY_OTHER, 2},    {"BF16", "bfloat16", FR_ARRAY_OTHER, 2},
    {"I32", "int32", FR_ARRAY_OTHER, 4},     {"U32", "uint32", FR_ARRAY_OTHER, 4},    {"I64", "int64", FR_ARRAY_OTHER, 8},
    {"U64", "uint64", FR_ARRAY_OTHER, 8},    {"C64", "complex64", FR_ARRAY_OTHER, 8}, {"F8_E4M3", "float8_e4m3fn", FR_ARRAY_OTHER, 1},
    {"F8_E5M2", "float8_e5m2", FR_ARRAY_OTHER, 1}};

/* A name as a string, cut if it is long, for messages. */
static fr_json_text text_of(const char *name, size_t size)
{
    fr_json_text text = {0};
    memcpy(text.characters, name, size < sizeof text ? size : sizeof text - 1);
    return text;
}

/* Values of the members of an object by their names. Adds faults for names that are unknown, missing or there twice. Of the names,
 * those from num_required on may be missing: the value's `at` is NULL. */
static bool read_members(fr_json object, const char *what, const char *const *names, int count, int num_required, fr_json *values)
{
    bool right = true;
    for (int i = 0; i < count; i++)
        values[i] = (fr_json){0};
    if (fr_json_kind(object) != '{') {
        fr_add_fault("%s is no object", what);
        return false;
    }
    for (fr_json name, value; fr_json_next(&object, &name, &value);) {
        int i = 0;
        while (i < count && !fr_json_is(name, names[i]))
            i++;
        if (i < count && !values[i].at) {
            values[i] = value;
            continue;
        }
        const fr_json_text text = fr_json_text_of(name);
        fr_add_fault("%s has the %s name %s", what, i < count ? "repeated" : "unknown", text.characters);
        right = false;
    }
    for (int i = 0; i < num_required; i++)
        if (!values[i].at) {
            fr_add_fault("%s has no %s", what, names[i]);
            right = false;
        }
    return right;
}

static bool read_sizes(fr_json list, int64_t *sizes, int64_t most, int64_t *count)
{
    *count = 0;
    if (fr_json_kind(list) != '[')
        return false;
    for (fr_json value; fr_json_next(&list, NULL, &value); ++*count)
        if (*count == most || !fr_json_integer(value, &sizes[*count]) || sizes[*count] < 0)
            return false;
    return true;
}

/* An array's entry in the header. `size` is that of all arrays. */
static bool read_array(fr_json name, fr_json entry, size_t size, fr_array *array)
{
    static const char *const members[] = {"dtype", "shape", "data_offsets"};
    const fr_json_text text = fr_json_text_of(name);
    fr_json values[3];
    int64_t shape[MOST_AXES], offsets[2], count, bytes = 0;
    if (!read_members(entry, text.characters, members, 3, 3, values))
        return false;
    size_t type = 0;
    while (type < sizeof array_types / sizeof *array_types && !fr_json_is(values[0], array_types[type].name))
        type++;
    if (type == sizeof array_types / sizeof *array_types) {
        fr_add_fault("%s is of the unknown type %s", text.characters, fr_json_text_of(values[0]).characters);
        return false;
    }
    *array = (fr_array){.type = array_types[type].type, .type_name = array_types[type].own_name, .count = 1};
    if (!read_sizes(values[1], shape, MOST_AXES, &array->num_axes)) {
        fr_add_fault("%s has a shape that is not a list of up to 32 integers of at least 0", text.characters);
        return false;
    }
    if (!read_sizes(values[2], offsets, 2, &count) || count != 2 || offsets[0] > offsets[1]) {
        fr_add_fault("%s has data_offsets that are not two ascending integers", text.characters);
        return false;
    }
    bool fits = (uint64_t)offsets[1] <= size, empty = false;
    for (int64_t i = 0; i < array->num_axes; i++) {
        if (i < FR_ARRAY_AXES)
            array->shape[i] = shape[i];
        empty = empty || shape[i] == 0;
    }
    for (int64_t i = 0; i < array->num_axes && fits && !empty; i++) {
        fits = shape[i] <= INT64_MAX / 8 / array->count;
        array->count *= fits ? shape[i] : 1;
    }
    array->count = empty ? 0 : array->count;
    bytes = array->count * array_types[type].size;
    if (!fits || offsets[1] - offsets[0] != bytes) {
        fr_add_fault("%s has the bytes from %lld to %lld of %zu, which is not what its dtype and shape take", text.characters,
                     (long long)offsets[0], (long long)offsets[1], size);
        return false;
    }
    array->begin = (size_t)offsets[0];
    array->end = (size_t)offsets[1];
    fr_json_string(name, &array->name, &array->name_size);
    return true;
}

static int compare_places(const fr_array *a, const fr_array *b)
{
    return a->begin != b->begin ? (a->begin < b->begin ? -1 : 1) : a->end < b->end ? -1 : a->end > b->end;
}

static int compare_to(const fr_array *a, const char *name, size_t size)
{
    const int order = memcmp(a->name, name, a->name_size < size ? a->name_size : size);
    return order ? order : a->name_size < size ? -1 : a->name_size > size;
}

static int compare_names(const fr_array *a, const fr_array *b) { return compare_to(a, b->name, b->name_size); }

/* Moves the root of the heap arrays[root..count) down to its place; the largest is on top. */
static void sift(fr_array *arrays, int64_t root, int64_t count, int (*compare)(const fr_array *, const fr_array *))
{
    for (int64_t child = 2 * root + 1; child < count; root = child, child = 2 * root + 1) {
        if (child + 1 < count && compare(&arrays[child + 1], &arrays[child]) > 0)
            child++;
        if (compare(&arrays[root], &arrays[child]) >= 0)
            return;
        const fr_array moved = arrays[root];
        arrays[root] = arrays[child];
        arrays[child] = moved;
    }
}

/* Heapsort: qsort may allocate. */
static void sort(fr_array *arrays, int64_t count, int (*compare)(const fr_array *, const fr_array *))
{
    for (int64_t root = count / 2 - 1; root >= 0; root--)
        sift(arrays, root, count, compare);
    for (int64_t last = count - 1; last > 0; last--) {
        const fr_array largest = arrays[0];
        arrays[0] = arrays[last];
        arrays[last] = largest;
        sift(arrays, 0, last, compare);
    }
}

static void check_places(const fr_file *file, size_t size)
{
    size_t end = 0;
    for (int64_t i = 0; i < file->num_arrays; i++) {
        const fr_array *array = &file->arrays[i];
        if (array->begin != end)
            fr_add_fault("%s %s", text_of(array->name, array->name_size).characters,
                         array->begin < end ? "overlaps the array before it" : "leaves a gap before it");
        end = array->end;
    }
    if (end != size)
        fr_add_fault("the arrays end at byte %zu of %zu", end, size);
}

/* Reads the header's arrays; *metadata is set to the value of __metadata__. */
static fastrnn_status read_arrays(fr_file *file, fr_json header, const char *data, size_t size, fr_json *metadata)
{
    fr_json next = header, name, value;
    fr_array array;
    fr_clear_faults();
    while (fr_json_next(&next, &name, &value))
        if (!fr_json_is(name, "__metadata__"))
            file->num_arrays += read_array(name, value, size, &array);
        else if (metadata->at)
            fr_add_fault("the header has the repeated name '__metadata__'");
        else
            *metadata = value;
    if (fr_has_faults())
        return FASTRNN_ERROR_FILE;
    file->arrays = fr_allocate((size_t)file->num_arrays * sizeof *file->arrays);
    if (!file->arrays)
        return fr_fail_memory();
    int64_t count = 0;
    for (next = header; fr_json_next(&next, &name, &value);)
        if (!fr_json_is(name, "__metadata__"))
            read_array(name, value, size, &file->arrays[count++]);
    sort(file->arrays, count, compare_places);
    check_places(file, size);
    sort(file->arrays, count, compare_names);
    for (int64_t i = 0; i < count; i++) {
        file->arrays[i].data = data + file->arrays[i].begin;
        if (i && compare_names(&file->arrays[i - 1], &file->arrays[i]) == 0)
            fr_add_fault("the header has the repeated name %s", text_of(file->arrays[i].name, file->arrays[i].name_size).characters);
    }
    return fr_has_faults() ? FASTRNN_ERROR_FILE : FASTRNN_OK;
}

/* ---- Names of arrays ------------------------------------------------------------------------------------------- */

typedef struct fr_name {
    char characters[96];
    size_t size;
} fr_name;

static void add_text(fr_name *name, const char *text)
{
    const size_t size = strlen(text);
    memcpy(name->characters + name->size, text, size + 1);
    name->size += size;
}

static void add_number(fr_name *name, int64_t number)
{
    char digits[24];
    size_t first = sizeof digits - 1;
    digits[first] = 0;
    do
        digits[--first] = (char)('0' + number % 10);
    while ((number /= 10) != 0);
    add_text(name, digits + first);
}

/* "<op>.<part>", or "<part>" of a layer's file, where op is -1. */
static fr_name name_of(int64_t op, const char *part)
{
    fr_name name = {.size = 0};
    if (op >= 0) {
        add_number(&name, op);
        add_text(&name, ".");
    }
    add_text(&name, part);
    return name;
}

static const fr_array *find(fr_file *file, const fr_name *name)
{
    int64_t first = 0, last = file->num_arrays;
    while (first < last) {
        const int64_t middle = (first + last) / 2;
        if (compare_to(&file->arrays[middle], name->characters, name->size) < 0)
            first = middle + 1;
        else
            last = middle;
    }
    if (first == file->num_arrays || compare_to(&file->arrays[first], name->characters, name->size) != 0)
        return NULL;
    file->arrays[first].used = true;
    return &file->arrays[first];
}

/* A shape as text. Axes that are negative can have any size. */
static fr_name shape_text(const int64_t *shape, int64_t num_axes)
{
    static const char *const letters[] = {"O", "I", "K"};
    fr_name text = {.size = 0};
    add_text(&text, "(");
    for (int64_t i = 0; i < num_axes && i < FR_ARRAY_AXES; i++) {
        if (i)
            add_text(&text, ", ");
        if (shape[i] < 0)
            add_text(&text, letters[i]);
        else
            add_number(&text, shape[i]);
    }
    add_text(&text, num_axes == 1 ? ",)" : num_axes > FR_ARRAY_AXES ? ", ...)" : ")");
    return text;
}

/* Adds a fault if the array's shape is another one; axes that are negative are set to those of the array. */
static void check_shape(const fr_name *name, const fr_array *array, int64_t num_axes, int64_t *shape)
{
    bool fits = array->num_axes == num_axes;
    for (int64_t i = 0; i < num_axes && fits; i++)
        fits = shape[i] < 0 ? array->shape[i] > 0 : array->shape[i] == shape[i];
    if (fits) {
        memcpy(shape, array->shape, (size_t)num_axes * sizeof *shape);
        return;
    }
    const fr_name found = shape_text(array->shape, array->num_axes), wanted = shape_text(shape, num_axes);
    fr_add_fault("%s has shape %s, wanted %s", name->characters, found.characters, wanted.characters);
}

/* An array of reals. `shape` as of check_shape. NULL, and a fault, if it is missing and wanted. */
static const fr_array *read_reals(fr_file *file, const fr_name *name, bool wanted, int64_t num_axes, int64_t *shape)
{
    const fr_array *array = find(file, name);
    if (!array) {
        if (wanted)
            fr_add_fault("%s is missing, wanted shape %s", name->characters, shape_text(shape, num_axes).characters);
        return NULL;
    }
    if (array->type != FR_ARRAY_FLOAT32 && array->type != FR_ARRAY_FLOAT64)
        fr_add_fault("%s is %s, wanted float32 or float64", name->characters, array->type_name);
    check_shape(name, array, num_axes, shape);
    return array;
}

/* ---- Layers ---------------------------------------------------------------------------------------------------- */

static const char *const part_names[] = {"weight_ih", "weight_hh", "weight_hr", "bias_ih", "bias_hh", "peephole"};

enum { KIND, INPUT_SIZE, HIDDEN_SIZE, NUM_LAYERS, PROJ_SIZE, BIDIRECTIONAL, REVERSE, CELLS, NUM_LAYER_OPTIONS };
#define LAYER_NAMES "kind", "input_size", "hidden_size", "num_layers", "proj_size", "bidirectional", "reverse", "cells"
enum { ACTIVATIONS, CELL_CLIP, GATE_CLIP, PROJ_CLIP, COUPLED, LINEAR_BEFORE_RESET, NUM_CELL_OPTIONS };
static const char *const cell_names[] = {"activations", "cell_clip", "gate_clip", "proj_clip", "coupled", "linear_before_reset"};

/* Where the options of an op are in its file. */
typedef struct fr_place {
    fr_file *file;
    int64_t op;       /* its index; -1 in a layer's file */
    const char *what; /* what messages call it: "ops[2]", or "config" */
} fr_place;

static fr_name what_of(int64_t op)
{
    fr_name name = {.size = 0};
    add_text(&name, "ops[");
    add_number(&name, op);
    add_text(&name, "]");
    return name;
}

static void fault_of(const fr_place *place, const char *option, fr_json value, const char *wanted)
{
    const fr_json_text text = fr_json_text_of(value);
    fr_add_fault("%s%s%s is %s, wanted %s", place->op < 0 ? "" : place->what, place->op < 0 ? "" : ".", option, text.characters, wanted);
}

static bool read_bool(const fr_place *place, const char *option, fr_json value)
{
    bool found = false;
    if (!fr_json_bool(value, &found))
        fault_of(place, option, value, "true or false");
    return found;
}

static int64_t read_integer(const fr_place *place, const char *option, fr_json value, int64_t least, int64_t most)
{
    int64_t found;
    if (fr_json_integer(value, &found) && fr_in_range(found, least, most))
        return found;
    fr_name wanted = {.size = 0};
    const bool is_large = fr_json_integer(value, &found) && found > most;
    add_text(&wanted, is_large ? "an integer of at most " : "an integer of at least ");
    add_number(&wanted, is_large ? most : least);
    fault_of(place, option, value, wanted.characters);
    return least;
}

/* [name, alpha, beta] */
static bool read_activation(fr_json list, fastrnn_activation *activation, const char *what)
{
    fr_json values[3];
    int count = 0;
    if (fr_json_kind(list) != '[' || fr_json_count(list) != 3)
        return false;
    while (fr_json_next(&list, NULL, &values[count]) && count < 2)
        count++;
    if (fr_json_kind(values[0]) != '"' || !fr_json_number(values[1], &activation->alpha) ||
        !fr_json_number(values[2], &activation->beta))
        return false;
    fastrnn_activation known;
    const char *name;
    for (size_t i = 0; (name = fastrnn_activation_info(i, &known, NULL)) != NULL; i++)
        if (fr_json_is(values[0], name)) {
            activation->name = known.name;
            return true;
        }
    const fr_json_text text = fr_json_text_of(values[0]);
    fr_add_fault("%s names %s, which is unknown", what, text.characters);
    return true;
}

static double read_clip(fr_json value, const char *what, const char *name)
{
    double clip = 0;
    if (fr_json_kind(value) == 'n')
        return 0;
    if (!fr_json_number(value, &clip) || !(clip > 0))
        fr_add_fault("%s has %s %s, wanted a positive number or null", what, name, fr_json_text_of(value).characters);
    return clip;
}

static void read_cell_options(const fr_place *place, const fastrnn_config *config, int64_t index, fr_json object,
                              fastrnn_cell_options *options)
{
    fr_json values[NUM_CELL_OPTIONS], activation;
    fr_name what = {.size = 0};
    const int64_t gates = config->kind == FASTRNN_LSTM ? 5 : config->kind == FASTRNN_GRU ? 3 : 1;
    if (place->op >= 0) {
        add_text(&what, place->what);
        add_text(&what, ".");
    }
    add_text(&what, "cells[");
    add_number(&what, index);
    add_text(&what, "]");
    if (!read_members(object, what.characters, cell_names, NUM_CELL_OPTIONS, NUM_CELL_OPTIONS, values))
        return;
    fr_json next = values[ACTIVATIONS];
    const int64_t count = fr_json_kind(next) == '[' ? fr_json_count(next) : -1;
    if (count != 0 && count != gates)
        fr_add_fault("%s has activations %s, wanted %lld of them, or none", what.characters, fr_json_text_of(next).characters,
                     (long long)gates);
    for (int64_t i = 0; count == gates && fr_json_next(&next, NULL, &activation); i++)
        if (!read_activation(activation, &options->activations[i], what.characters))
            fr_add_fault("%s has activations[%lld] %s, wanted [name, alpha, beta]", what.characters, (long long)i,
                         fr_json_text_of(activation).characters);
    options->cell_clip = read_clip(values[CELL_CLIP], what.characters, "cell_clip");
    options->gate_clip = read_clip(values[GATE_CLIP], what.characters, "gate_clip");
    options->proj_clip = read_clip(values[PROJ_CLIP], what.characters, "proj_clip");
    bool coupled = false, after = true;
    if (!fr_json_bool(values[COUPLED], &coupled) || !fr_json_bool(values[LINEAR_BEFORE_RESET], &after))
        fr_add_fault("%s has coupled %s and linear_before_reset %s, wanted true or false", what.characters,
                     fr_json_text_of(values[COUPLED]).characters, fr_json_text_of(values[LINEAR_BEFORE_RESET]).characters);
    options->coupled = coupled;
    options->reset_before = !after;
    if (config->kind != FASTRNN_LSTM && (coupled || options->cell_clip > 0))
        fr_add_fault("%s has coupled or cell_clip, which belong to an LSTM", what.characters);
    if (options->proj_clip > 0 && !config->proj_size)
        fr_add_fault("%s has proj_clip, but proj_size is 0", what.characters);
}

static bool has_smaller_weights(const fastrnn_config *config) { return config->weight_dtype != FASTRNN_WEIGHTS_FLOAT32; }

/* The arrays of a cell. */
static void read_parts(const fr_place *place, const fastrnn_config *config, int64_t index, fr_file_cell *cell)
{
    const int64_t D = config->bidirectional ? 2 : 1, H = config->hidden_size, P = config->proj_size ? config->proj_size : H;
    const int64_t rows = (config->kind == FASTRNN_LSTM ? 4 : config->kind == FASTRNN_GRU ? 3 : 1) * H;
    const struct {
        int64_t num_axes, shape[2];
        bool wanted, possible;
    } wanted[] = {
        [FR_WEIGHT_IH] = {2, {rows, index < D ? config->input_size : D * P}, true, true},
        [FR_WEIGHT_HH] = {2, {rows, P}, true, true},
        [FR_WEIGHT_HR] = {2, {P, H}, config->proj_size != 0, config->proj_size != 0},
        [FR_BIAS_IH] = {1, {rows}, false, true},
        [FR_BIAS_HH] = {1, {rows}, false, true},
        [FR_PEEPHOLE] = {2, {3, H}, false, config->kind == FASTRNN_LSTM},
    };
    const fr_array_type real = config->dtype == FASTRNN_FLOAT64 ? FR_ARRAY_FLOAT64 : FR_ARRAY_FLOAT32;
    for (int part = 0; part < FR_NUM_PARTS; part++) {
        int64_t shape[FR_ARRAY_AXES];
        fr_name name = name_of(place->op, part_names[part]);
        add_text(&name, "_l");
        add_number(&name, index / D);
        add_text(&name, index % D ? "_reverse" : "");
        memcpy(shape, wanted[part].shape, sizeof wanted[part].shape);
        const fr_array *array = cell->parts[part] = find(place->file, &name);
        if (!array || !wanted[part].possible) {
            if (array || wanted[part].wanted)
                fr_add_fault("%s is %s, wanted shape %s", name.characters, array ? "given, but the layer has none" : "missing",
                             shape_text(shape, wanted[part].num_axes).characters);
            continue;
        }
        const bool small = part < FR_NUM_WEIGHTS && has_smaller_weights(config);
        const fr_array_type type = !small ? real : config->weight_dtype == FASTRNN_WEIGHTS_INT8 ? FR_ARRAY_INT8 : FR_ARRAY_FLOAT16;
        const bool is_real = array->type == FR_ARRAY_FLOAT32 || array->type == FR_ARRAY_FLOAT64;
        if (array->type != type && !(place->op >= 0 && !small && is_real))
            fr_add_fault("%s is %s, wanted %s", name.characters, array->type_name, array_types[type].own_name);
        check_shape(&name, array, wanted[part].num_axes, shape);
        if (type != FR_ARRAY_INT8)
            continue;
        const fr_name weights = name;
        add_text(&name, "_scale");
        cell->scales[part] = read_reals(place->file, &name, false, 1, shape);
        if (!cell->scales[part])
            fr_add_fault("%s is missing, wanted the scales of %s", name.characters, weights.characters);
        if (cell->scales[part] && cell->scales[part]->type != FR_ARRAY_FLOAT32)
            fr_add_fault("%s is %s, wanted float32", name.characters, cell->scales[part]->type_name);
    }
}

/* A layer's options, which are the first of `values`; its cells are counted, and stored if there is memory for them. */
static void read_layer(const fr_place *place, const fr_json *values, fr_json weight_dtype, fr_file_op *op)
{
    static const char *const kinds[] = {"lstm", "gru", "rnn"};
    fastrnn_config *config = &op->config;
    fr_json next = values[CELLS], cell;
    int kind = 0;
    while (kind < 3 && !fr_json_is(values[KIND], kinds[kind]))
        kind++;
    if (kind == 3)
        fault_of(place, "kind", values[KIND], "lstm, gru or rnn");
    op->op.kind = FASTRNN_OP_LAYER;
    config->struct_size = sizeof *config;
    config->kind = kind == 3 ? FASTRNN_LSTM : (fastrnn_kind)kind;
    config->input_size = read_integer(place, "input_size", values[INPUT_SIZE], 0, 1 << 22);
    config->hidden_size = read_integer(place, "hidden_size", values[HIDDEN_SIZE], 1, 1 << 22);
    config->proj_size = read_integer(place, "proj_size", values[PROJ_SIZE], 0, kind == FASTRNN_LSTM ? 1 << 22 : 0);
    config->num_layers = read_integer(place, "num_layers", values[NUM_LAYERS], 1, INT64_MAX / 4);
    config->bidirectional = read_bool(place, "bidirectional", values[BIDIRECTIONAL]);
    config->reverse = read_bool(place, "reverse", values[REVERSE]);
    if (config->bidirectional && config->reverse)
        fault_of(place, "reverse", values[REVERSE], "false, as bidirectional is true");
    if (weight_dtype.at && fr_json_is(weight_dtype, "float16"))
        config->weight_dtype = FASTRNN_WEIGHTS_FLOAT16;
    else if (weight_dtype.at && fr_json_is(weight_dtype, "int8"))
        config->weight_dtype = FASTRNN_WEIGHTS_INT8;
    else if (weight_dtype.at && fr_json_kind(weight_dtype) != 'n')
        fault_of(place, "weight_dtype", weight_dtype, "float16 or int8, of dtype float32");
    const int64_t count = fr_json_kind(next) == '[' ? fr_json_count(next) : -1;
    const int64_t wanted = config->num_layers * (config->bidirectional ? 2 : 1);
    if (count < 0)
        fault_of(place, "cells", next, "a list");
    else if (count != wanted)
        fr_add_fault("%s%scells has %lld entries, wanted %lld", place->op < 0 ? "" : place->what, place->op < 0 ? "" : ".",
                     (long long)count, (long long)wanted);
    op->first_cell = place->file->num_cells;
    for (int64_t i = 0; count > 0 && fr_json_next(&next, NULL, &cell); i++) {
        fr_file_cell read = {0};
        read_cell_options(place, config, i, cell, &read.options);
        if (count == wanted)
            read_parts(place, config, i, &read);
        if (place->file->cells)
            place->file->cells[place->file->num_cells] = read;
        place->file->num_cells++;
    }
}

/* ---- Other ops ------------------------------------------------------------------------------------------------- */

enum { OP, STRIDE, DILATION, PADDING, EPS, MASK_ZERO, NAME, ALPHA, BETA, NUM_OPTIONS };
static const char *const option_names[] = {"op", "stride", "dilation", "padding", "eps", "mask_zero", "name", "alpha", "beta"};

#define HAS(option) (1u << (option))

static const struct fr_op_form {
    const char *name;
    fastrnn_op_kind kind;
    unsigned options;
    const char *weight, *bias; /* names of arrays */
    int num_axes;              /* of the weight */
    bool weight_wanted, bias_wanted;
} forms[] = {
    {"activation", FASTRNN_OP_ACTIVATION, HAS(NAME) | HAS(ALPHA) | HAS(BETA), NULL, NULL, 0, false, false},
    {"Embedding", FASTRNN_OP_EMBEDDING, HAS(MASK_ZERO), "weight", NULL, 2, true, false},
    {"Linear", FASTRNN_OP_LINEAR, 0, "weight", "bias", 2, true, false},
    {"Conv1d", FASTRNN_OP_CONV1D, HAS(STRIDE) | HAS(DILATION) | HAS(PADDING), "weight", "bias", 3, true, false},
    {"LayerNorm", FASTRNN_OP_LAYER_NORM, HAS(EPS), "weight", "bias", 1, false, false},
    {"Scale", FASTRNN_OP_SCALE, 0, "scale", "shift", 1, true, true},
    {"Softmax", FASTRNN_OP_SOFTMAX, 0, NULL, NULL, 0, false, false},
    {"LogSoftmax", FASTRNN_OP_LOG_SOFTMAX, 0, NULL, NULL, 0, false, false},
    {"Last", FASTRNN_OP_LAST, 0, NULL, NULL, 0, false, false},
    {"First", FASTRNN_OP_FIRST, 0, NULL, NULL, 0, false, false},
    {"Mean", FASTRNN_OP_MEAN, 0, NULL, NULL, 0, false, false},
    {"Max", FASTRNN_OP_MAX, 0, NULL, NULL, 0, false, false},
    {"Final", FASTRNN_OP_FINAL, 0, NULL, NULL, 0, false, false},
    {"Reverse", FASTRNN_OP_REVERSE, 0, NULL, NULL, 0, false, false},
};

/* "valid", "same", "causal", [left, right], or a number for both. */
static void read_padding(const fr_place *place, fr_json value, fastrnn_op *op)
{
    const int64_t reach = (op->kernel_size - 1) * op->dilation, most = INT64_C(1) << 31;
    int64_t zeros[2], count = 2;
    if (fr_json_is(value, "valid"))
        zeros[0] = zeros[1] = 0;
    else if (fr_json_is(value, "same")) {
        zeros[0] = reach / 2;
        zeros[1] = reach - reach / 2;
        if (op->stride != 1)
            fault_of(place, "padding", value, "[left, right], as stride is not 1");
    } else if (fr_json_is(value, "causal")) {
        zeros[0] = reach;
        zeros[1] = 0;
    } else if (fr_json_integer(value, &zeros[0]))
        zeros[1] = zeros[0];
    else if (!read_sizes(value, zeros, 2, &count))
        count = 0;
    if (count != 2 || !fr_in_range(zeros[0], 0, most) || !fr_in_range(zeros[1], 0, most)) {
        fault_of(place, "padding", value, "valid, same, causal, or one or two integers of at least 0");
        return;
    }
    op->padding_left = zeros[0];
    op->padding_right = zeros[1];
}

static void read_op_arrays(const fr_place *place, const struct fr_op_form *form, fr_file_op *op)
{
    int64_t shape[FR_ARRAY_AXES] = {-1, -1, -1}, width[1] = {-1};
    if (form->weight) {
        const fr_name name = name_of(place->op, form->weight);
        op->weight = read_reals(place->file, &name, form->weight_wanted, form->num_axes, shape);
        width[0] = op->weight ? shape[0] : -1;
    }
    if (form->bias) {
        const fr_name name = name_of(place->op, form->bias);
        op->bias = read_reals(place->file, &name, form->bias_wanted, 1, width);
    }
    fastrnn_op *to = &op->op;
    switch (form->kind) {
    case FASTRNN_OP_EMBEDDING: to->input_size = shape[0], to->output_size = shape[1]; break;
    case FASTRNN_OP_CONV1D: to->kernel_size = fr_max(shape[2], 1); /* fallthrough */
    case FASTRNN_OP_LINEAR: to->input_size = shape[1], to->output_size = shape[0]; break;
    default: to->input_size = fr_max(width[0], 0); break;
    }
}

static void read_batch_norm(const fr_place *place, fr_file_op *op)
{
    static const char *const names[] = {"running_mean", "running_var", "weight", "bias"};
    int64_t width[1] = {-1};
    for (int i = 0; i < 4; i++) {
        const fr_name name = name_of(place->op, names[i]);
        read_reals(place->file, &name, i < 2, 1, width);
    }
    op->is_batch_norm = true;
    op->op.kind = FASTRNN_OP_SCALE;
    op->op.input_size = fr_max(width[0], 0);
}

/* The names that an object of these options has, for read_members. */
static int names_of(unsigned options, const char *const *all, int count, const char **names)
{
    int found = 0;
    for (int i = 0; i < count; i++)
        if (options & HAS(i))
            names[found++] = all[i];
    return found;
}

static void read_other(const fr_place *place, fr_json object, const struct fr_op_form *form, fr_file_op *op)
{
    const char *names[NUM_OPTIONS];
    fr_json found[NUM_OPTIONS], values[NUM_OPTIONS];
    const unsigned options = form->options | HAS(OP);
    const int count = names_of(options, option_names, NUM_OPTIONS, names);
    if (!read_members(object, place->what, names, count, count, found))
        return;
    for (int i = 0, at = 0; i < NUM_OPTIONS; i++)
        if (options & HAS(i))
            values[i] = found[at++];
    op->op.kind = form->kind;
    read_op_arrays(place, form, op);
    if (options & HAS(MASK_ZERO))
        op->masks_zero = read_bool(place, "mask_zero", values[MASK_ZERO]);
    if (options & HAS(EPS) && (!fr_json_number(values[EPS], &op->op.eps) || !(op->op.eps >= 0)))
        fault_of(place, "eps", values[EPS], "a number of at least 0");
    if (options & HAS(PADDING)) {
        op->op.stride = read_integer(place, "stride", values[STRIDE], 1, 1 << 22);
        op->op.dilation = read_integer(place, "dilation", values[DILATION], 1, 1 << 22);
        read_padding(place, values[PADDING], &op->op);
    }
    if (!(options & HAS(NAME)))
        return;
    fastrnn_activation known;
    const char *name;
    for (size_t i = 0; (name = fastrnn_activation_info(i, &known, NULL)) != NULL; i++)
        if (fr_json_is(values[NAME], name))
            op->op.activation.name = known.name;
    if (fr_json_kind(values[NAME]) != '"' || !fr_json_number(values[ALPHA], &op->op.activation.alpha) ||
        !fr_json_number(values[BETA], &op->op.activation.beta))
        fr_add_fault("%s is no activation with two numbers", place->what);
    else if (op->op.activation.name == FASTRNN_DEFAULT)
        fr_add_fault("%s names %s, which is unknown", place->what, fr_json_text_of(values[NAME]).characters);
}

/* The value of the member "op"; a value without text if there is none. */
static fr_json kind_of(fr_json object)
{
    fr_json name, value;
    if (fr_json_kind(object) == '{')
        while (fr_json_next(&object, &name, &value))
            if (fr_json_is(name, "op"))
                return value;
    return (fr_json){0};
}

static void read_op(fr_file *file, int64_t index, fr_json object, fr_file_op *op)
{
    const fr_name what = what_of(index);
    const fr_place place = {.file = file, .op = index, .what = what.characters};
    const fr_json kind = kind_of(object);
    *op = (fr_file_op){.op = {.struct_size = sizeof op->op}};
    if (!kind.at) {
        fr_add_fault("%s has no op", place.what);
        return;
    }
    if (fr_json_is(kind, "layer")) {
        static const char *const names[] = {LAYER_NAMES, "op", "weight_dtype"};
        fr_json values[NUM_LAYER_OPTIONS + 2];
        if (read_members(object, place.what, names, NUM_LAYER_OPTIONS + 2, NUM_LAYER_OPTIONS + 1, values))
            read_layer(&place, values, values[NUM_LAYER_OPTIONS + 1], op);
        return;
    }
    if (fr_json_is(kind, "BatchNorm")) {
        static const char *const names[] = {"op", "eps"};
        fr_json values[2];
        if (read_members(object, place.what, names, 2, 2, values))
            read_batch_norm(&place, op);
        return;
    }
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        if (fr_json_is(kind, forms[i].name)) {
            read_other(&place, object, &forms[i], op);
            return;
        }
    fr_add_fault("%s has op %s, wanted layer, activation or one of Embedding, Linear, Conv1d, LayerNorm, BatchNorm, Scale, Softmax, "
                 "LogSoftmax, Last, First, Mean, Max, Final, Reverse", place.what, fr_json_text_of(kind).characters);
}

/* ---- The configuration ----------------------------------------------------------------------------------------- */

static void read_ops(fr_file *file, fr_json ops)
{
    fr_json object;
    file->num_cells = file->num_ops = 0;
    for (fr_file_op op; fr_json_next(&ops, NULL, &object); file->num_ops++) {
        read_op(file, file->num_ops, object, &op);
        if (file->ops)
            file->ops[file->num_ops] = op;
    }
}

static void read_layer_file(fr_file *file, const fr_json *values, fr_json dtype, fr_json weight_dtype)
{
    const fr_place place = {.file = file, .op = -1, .what = "config"};
    fr_file_op op = {.op = {.struct_size = sizeof op.op}};
    file->num_cells = 0;
    file->num_ops = 1;
    if (fr_json_is(dtype, "float64"))
        op.config.dtype = FASTRNN_FLOAT64;
    else if (!fr_json_is(dtype, "float32"))
        fault_of(&place, "dtype", dtype, "float32 or float64");
    if (weight_dtype.at && fr_json_kind(weight_dtype) != 'n' && op.config.dtype == FASTRNN_FLOAT64)
        fault_of(&place, "weight_dtype", weight_dtype, "float16 or int8, of dtype float32");
    read_layer(&place, values, weight_dtype, &op);
    if (file->ops)
        file->ops[0] = op;
}

/* Reads the configuration: without memory for ops and cells it checks and counts them. */
static void read_config(fr_file *file, fr_json config, bool is_model)
{
    static const char *const model_names[] = {"ops", "batch_first"};
    static const char *const layer_names[] = {LAYER_NAMES, "batch_first", "dtype", "weight_dtype"};
    const fr_place place = {.file = file, .op = -1, .what = "config"};
    fr_json values[NUM_LAYER_OPTIONS + 3];
    if (is_model) {
        if (!read_members(config, "config", model_names, 2, 2, values))
            return;
        read_bool(&place, "batch_first", values[1]);
        if (fr_json_kind(values[0]) != '[')
            fr_add_fault("ops is no list");
        else
            read_ops(file, values[0]);
        return;
    }
    if (!read_members(config, "config", layer_names, NUM_LAYER_OPTIONS + 3, NUM_LAYER_OPTIONS + 2, values))
        return;
    read_bool(&place, "batch_first", values[NUM_LAYER_OPTIONS]);
    read_layer_file(file, values, values[NUM_LAYER_OPTIONS + 1], values[NUM_LAYER_OPTIONS + 2]);
}

/* Reads the configuration twice: everything is checked before memory is taken. */
static fastrnn_status read_all(fr_file *file, fr_json config, bool is_model)
{
    read_config(file, config, is_model);
    for (int64_t i = 0; i < file->num_arrays; i++)
        if (!file->arrays[i].used)
            fr_add_fault("%s is surplus", text_of(file->arrays[i].name, file->arrays[i].name_size).characters);
    if (!fr_has_faults() && file->num_ops == 0)
        fr_add_fault("ops is empty, wanted at least one operation");
    if (fr_has_faults())
        return FASTRNN_ERROR_FILE;
    file->ops = fr_allocate((size_t)file->num_ops * sizeof *file->ops);
    file->cells = fr_allocate((size_t)file->num_cells * sizeof *file->cells);
    if (!file->ops || !file->cells)
        return fr_fail_memory();
    read_config(file, config, is_model);
    return FASTRNN_OK;
}

static int64_t width_after(const fr_file_op *op, int64_t width)
{
    if (op->op.kind != FASTRNN_OP_LAYER)
        return op->op.output_size ? op->op.output_size : width;
    return (op->config.bidirectional ? 2 : 1) * (op->config.proj_size ? op->config.proj_size : op->config.hidden_size);
}

/* Sets the widths that follow from those of other ops. */
static fastrnn_status fill_widths(fr_file *file)
{
    int64_t width = 0;
    for (int64_t i = 0; i < file->num_ops && !width; i++)
        width = file->ops[i].op.kind == FASTRNN_OP_LAYER ? file->ops[i].config.input_size : file->ops[i].op.input_size;
    if (!width && file->ops[0].op.kind != FASTRNN_OP_LAYER)
        return fr_fail(FASTRNN_ERROR_FILE, "no operation gives the width of x, wanted at least one with weights");
    for (int64_t i = 0; i < file->num_ops; i++) {
        fastrnn_op *op = &file->ops[i].op;
        if (op->kind != FASTRNN_OP_LAYER && !op->input_size)
            op->input_size = width;
        width = width_after(&file->ops[i], width);
    }
    return FASTRNN_OK;
}

static fastrnn_status read_metadata(fr_file *file, fr_json metadata)
{
    static const char *const names[] = {"format", "format_version", "config"};
    fr_json values[3], config;
    size_t wrong;
    fr_clear_faults();
    if (!metadata.at)
        return fr_fail(FASTRNN_ERROR_FILE, "is a safetensors file without metadata, wanted one that fastrnn saved");
    const bool right = read_members(metadata, "__metadata__", names, 3, 3, values);
    if (values[0].at && !fr_json_is(values[0], "fastrnn"))
        return fr_fail(FASTRNN_ERROR_FILE, "is a safetensors file of format %s, wanted one that fastrnn saved",
                       fr_json_text_of(values[0]).characters);
    const bool is_model = values[1].at && fr_json_is(values[1], "2");
    if (values[1].at && !is_model && !fr_json_is(values[1], "1"))
        return fr_fail(FASTRNN_ERROR_FILE, "is version %s of fastrnn's format, this fastrnn reads '1' and '2'",
                       fr_json_text_of(values[1]).characters);
    if (!right)
        return FASTRNN_ERROR_FILE;
    if (!fr_json_inside(values[2], &config))
        return fr_fail(FASTRNN_ERROR_FILE, "config is no string");
    if (!fr_json_check(config, &wrong))
        return fr_fail(FASTRNN_ERROR_FILE, "config is no JSON that is read: byte %zu does not fit", wrong);
    const fastrnn_status status = read_all(file, config, is_model);
    return status == FASTRNN_OK ? fill_widths(file) : status;
}

/* ---- The whole ------------------------------------------------------------------------------------------------- */

static uint64_t little_endian(const unsigned char *bytes)
{
    uint64_t value = 0;
    for (int i = 7; i >= 0; i--)
        value = value << 8 | bytes[i];
    return value;
}

static fastrnn_status open_bytes(const char *bytes, size_t size, fr_file *file)
{
    const uint64_t length = size >= 8 ? little_endian((const unsigned char *)bytes) : 0;
    size_t wrong;
    if (length < 2 || length > size - 8)
        return fr_fail(FASTRNN_ERROR_FILE, "is no safetensors file: its header does not end inside its %zu bytes", size);
    const size_t arrays_size = size - 8 - (size_t)length, limit = LEAST_HEADER_LIMIT + arrays_size / 16;
    if (length > limit)
        return fr_fail(FASTRNN_ERROR_FILE, "the header has %zu bytes, wanted at most %zu", (size_t)length, limit);
    const fr_json header = fr_json_of(bytes + 8, (size_t)length);
    if (!fr_json_check(header, &wrong) || fr_json_kind(header) != '{')
        return fr_fail(FASTRNN_ERROR_FILE, "the header is no JSON object that is read: byte %zu does not fit", wrong);
    fr_json metadata = {0};
    const fastrnn_status status = read_arrays(file, header, bytes + 8 + length, arrays_size, &metadata);
    return status == FASTRNN_OK ? read_metadata(file, metadata) : status;
}

fastrnn_status fr_file_open(const void *data, size_t size, fr_file *file)
{
    *file = (fr_file){0};
    const fastrnn_status status = open_bytes(data, size, file);
    if (status != FASTRNN_OK)
        fr_file_close(file);
    return status;
}

void fr_file_close(fr_file *file)
{
    fr_free(file->arrays);
    fr_free(file->ops);
    fr_free(file->cells);
    *file = (fr_file){0};
}
