/* Is somebody speaking? silero-vad's model on a sound, 32 ms at a time, as a device does it: no Python, no framework.
 *
 *     python examples/c/convert_silero.py encoder.safetensors detector.safetensors
 *     cc -O2 examples/c/speech_activity.c -I INCLUDE LIBRARY -lm -pthread -o speech_activity
 *     ./speech_activity encoder.safetensors detector.safetensors sound.wav
 *
 * INCLUDE and LIBRARY are what fastrnn.get_include() and fastrnn.get_library() return. The sound is a .wav of 16 kHz, one channel
 * and 16 bits. Prints the probability of speech of each frame, and last, on the standard error, how many times faster than the
 * sound it was. After the set-up nothing allocates memory. */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <fastrnn.h>

enum { RATE = 16000, FRAME = 512, CONTEXT = 64, PADDING = 64, WINDOW = 256, HOP = 128, BINS = WINDOW / 2 + 1, WINDOWS = 4 };

/* ---- The short-time Fourier transform of a frame, with Hann windows -------------------------------------------- */

typedef struct transform {
    float cosine[WINDOW][BINS], sine[WINDOW][BINS]; /* with the window multiplied into them */
} transform;

static void transform_init(transform *t)
{
    const double turn = 2 * acos(-1);
    for (int i = 0; i < WINDOW; i++)
        for (int bin = 0; bin < BINS; bin++) {
            const double window = 0.5 - 0.5 * cos(turn * i / WINDOW), angle = turn * (bin * i % WINDOW) / WINDOW;
            t->cosine[i][bin] = (float)(window * cos(angle));
            t->sine[i][bin] = (float)(window * sin(angle));
        }
}

/* samples: the last CONTEXT ones of the frame before, and the frame. magnitudes: (WINDOWS, BINS) */
static void transform_run(const transform *t, const float *samples, float magnitudes[WINDOWS][BINS])
{
    float padded[CONTEXT + FRAME + PADDING];
    const int last = CONTEXT + FRAME - 1;
    memcpy(padded, samples, (last + 1) * sizeof *padded);
    for (int i = 1; i <= PADDING; i++) /* reflected */
        padded[last + i] = padded[last - i];
    for (int w = 0; w < WINDOWS; w++) {
        float real[BINS] = {0}, imaginary[BINS] = {0};
        for (int i = 0; i < WINDOW; i++)
            for (int bin = 0; bin < BINS; bin++) {
                real[bin] += t->cosine[i][bin] * padded[w * HOP + i];
                imaginary[bin] += t->sine[i][bin] * padded[w * HOP + i];
            }
        for (int bin = 0; bin < BINS; bin++)
            magnitudes[w][bin] = sqrtf(real[bin] * real[bin] + imaginary[bin] * imaginary[bin]);
    }
}

/* ---- The two models -------------------------------------------------------------------------------------------- */

typedef struct detector {
    transform transform;
    fastrnn_model *encoder_model, *model; /* the LSTM and what follows it */
    fastrnn_batch encoder_batch, batch;
    fastrnn_model_plan *encoder, *stream;
    void *encoder_memory, *memory, *store;
    float magnitudes[WINDOWS][BINS], features[128], probability;
    float samples[CONTEXT + FRAME];
} detector;

static fastrnn_status prepare(const fastrnn_model *model, const fastrnn_batch *batch, void **memory, fastrnn_model_plan **plan)
{
    size_t size;
    fastrnn_status status = fastrnn_model_plan_size(model, batch, &size);
    *memory = status ? NULL : malloc(size);
    return status ? status : fastrnn_model_plan_make(model, batch, *memory, size, plan);
}

static fastrnn_status detector_init(detector *d, const char *encoder_path, const char *path)
{
    size_t size;
    memset(d, 0, sizeof *d);
    transform_init(&d->transform);
    fastrnn_status status = fastrnn_model_load(encoder_path, NULL, &d->encoder_model);
    if (!status)
        status = fastrnn_model_load(path, NULL, &d->model);
    if (!status)
        status = fastrnn_model_store_size(d->model, 1, &size);
    if (status)
        return status;
    d->store = aligned_alloc(64, size);
    status = fastrnn_model_store_init(d->model, 1, d->store);
    d->encoder_batch = (fastrnn_batch){.struct_size = sizeof d->encoder_batch, .num_rows = 1, .num_steps = WINDOWS,
                                       .x = {.base = d->magnitudes, .row_stride = WINDOWS * BINS, .step_stride = BINS},
                                       .y = {.base = d->features}};
    d->batch = (fastrnn_batch){.struct_size = sizeof d->batch, .num_rows = 1, .num_steps = 1, .store = d->store,
                               .x = {.base = d->features}, .y = {.base = &d->probability}};
    if (!status)
        status = prepare(d->encoder_model, &d->encoder_batch, &d->encoder_memory, &d->encoder);
    return status ? status : prepare(d->model, &d->batch, &d->memory, &d->stream);
}

static void detector_free(detector *d)
{
    fastrnn_model_destroy(d->encoder_model);
    fastrnn_model_destroy(d->model);
    free(d->encoder_memory), free(d->memory), free(d->store);
}

/* The probability that the next FRAME samples are speech. This is all that a real-time thread calls. */
static fastrnn_status detector_run(detector *d, const float *samples)
{
    memmove(d->samples, d->samples + FRAME, CONTEXT * sizeof *d->samples);
    memcpy(d->samples + CONTEXT, samples, FRAME * sizeof *d->samples);
    transform_run(&d->transform, d->samples, d->magnitudes);
    const fastrnn_status status = fastrnn_model_plan_run(d->encoder);
    return status ? status : fastrnn_model_plan_run(d->stream);
}

/* ---- The sound ------------------------------------------------------------------------------------------------- */

static uint32_t number(const unsigned char *bytes, int size)
{
    uint32_t value = 0;
    while (size-- > 0)
        value = value << 8 | bytes[size];
    return value;
}

/* Goes to a .wav file's samples. Returns their bytes, or -1 if it is another file. */
static long find_samples(FILE *file)
{
    unsigned char head[16];
    bool is_known = fread(head, 1, 12, file) == 12 && !memcmp(head, "RIFF", 4) && !memcmp(head + 8, "WAVE", 4), has_format = false;
    while (is_known && fread(head, 1, 8, file) == 8) {
        const uint32_t size = number(head + 4, 4);
        if (!memcmp(head, "data", 4))
            return has_format ? (long)size : -1;
        if (!memcmp(head, "fmt ", 4) && size >= 16) {
            if (fread(head, 1, 16, file) != 16)
                return -1;
            has_format = number(head, 2) == 1 && number(head + 2, 2) == 1 && number(head + 4, 4) == RATE && number(head + 14, 2) == 16;
            is_known = has_format && fseek(file, (long)size - 16, SEEK_CUR) == 0;
        } else {
            is_known = fseek(file, (long)(size + size % 2), SEEK_CUR) == 0;
        }
    }
    return -1;
}

static double seconds(void)
{
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int main(int argc, char **argv)
{
    static detector d;
    if (argc != 4)
        return fprintf(stderr, "usage: speech_activity encoder.safetensors detector.safetensors sound.wav\n"), 2;
    if (detector_init(&d, argv[1], argv[2]))
        return fprintf(stderr, "%s\n", fastrnn_last_error()), 1;
    FILE *file = fopen(argv[3], "rb");
    long left = file ? find_samples(file) / 2 : -1;
    if (left < 0)
        return fprintf(stderr, "%s: wanted a .wav of 16 kHz, one channel and 16 bits\n", argv[3]), 1;
    double spent = 0;
    long frames = 0;
    for (; left > 0; left -= FRAME, frames++) {
        unsigned char bytes[2 * FRAME] = {0}; /* the last frame is filled with silence */
        float samples[FRAME];
        const size_t count = fread(bytes, 2, left < FRAME ? (size_t)left : FRAME, file);
        if (count == 0)
            break;
        for (int i = 0; i < FRAME; i++)
            samples[i] = (float)(int16_t)number(bytes + 2 * i, 2) / 32768;
        const double start = seconds();
        const fastrnn_status status = detector_run(&d, samples);
        spent += seconds() - start;
        if (status)
            return fprintf(stderr, "%s\n", fastrnn_status_message(status)), 1;
        printf("%.7f\n", d.probability);
    }
    const double sound = (double)frames * FRAME / RATE;
    fprintf(stderr, "%ld frames, %.1f s of sound in %.3f s: %.0f times as fast as the sound\n", frames, sound, spent, sound / spent);
    fclose(file);
    detector_free(&d);
    return 0;
}
