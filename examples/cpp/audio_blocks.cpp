// An LSTM of 32 units on audio, sample by sample, as in the model of an amplifier: blocks of 64 samples at 48 kHz, and their share
// of the time that a block lasts.
//
//     c++ -O2 -std=c++11 examples/cpp/audio_blocks.cpp -I INCLUDE LIBRARY -lm -pthread -o audio_blocks && ./audio_blocks
//
// The weights are random here; a plug-in loads a file by fastrnn_model_load. process() is what the audio thread calls: it allocates
// nothing, takes no lock and makes no system call.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>
#include <random>
#include <stdexcept>
#include <vector>

#include <fastrnn.h>

constexpr int units = 32, block_size = 64, rate = 48000;

void check(fastrnn_status status)
{
    if (status != FASTRNN_OK)
        throw std::runtime_error(fastrnn_last_error());
}

struct DestroyLayer {
    void operator()(fastrnn_layer *layer) const { fastrnn_layer_destroy(layer); }
};

// Aligned to 64 bytes, as a store has to be.
class Memory {
public:
    void *allocate(size_t size)
    {
        size_t room = size + 64;
        bytes.resize(room);
        void *start = bytes.data();
        return aligned = std::align(64, size, start, room);
    }
    void *get() const { return aligned; }

private:
    std::vector<char> bytes;
    void *aligned = nullptr;
};

class Amplifier {
public:
    Amplifier()
    {
        std::mt19937 random(1);
        std::uniform_real_distribution<float> uniform(-0.3f, 0.3f);
        std::vector<float> weight_ih(4 * units), weight_hh(4 * units * units), bias(4 * units);
        for (auto *values : {&weight_ih, &weight_hh, &bias})
            std::generate(values->begin(), values->end(), [&] { return uniform(random); });
        std::generate(output, output + units, [&] { return uniform(random); });

        fastrnn_config config = {};
        config.struct_size = sizeof config;
        config.kind = FASTRNN_LSTM;
        config.input_size = 1;
        config.hidden_size = units;
        config.num_layers = 1;
        fastrnn_cell cell = {};
        cell.struct_size = sizeof cell;
        cell.weight_ih = weight_ih.data();
        cell.weight_hh = weight_hh.data();
        cell.bias_ih = bias.data();
        fastrnn_layer *made = nullptr;
        check(fastrnn_layer_create(&config, &cell, nullptr, nullptr, &made));
        layer.reset(made);

        size_t bytes;
        check(fastrnn_store_size(layer.get(), 1, 0, &bytes));
        store.allocate(bytes);
        check(fastrnn_store_init(layer.get(), 1, 0, store.get()));
        fastrnn_batch batch = {};
        batch.struct_size = sizeof batch;
        batch.num_rows = batch.num_steps = 1;
        batch.store = store.get();
        check(fastrnn_step_size(layer.get(), &batch, &bytes));
        memory.allocate(bytes);
        check(fastrnn_step_prepare(layer.get(), &batch, FASTRNN_STEP_CALLER_MODE, memory.get(), bytes, &step));
    }

    // One block, in place.
    void process(float *samples, int count) noexcept
    {
        const auto mode = fastrnn_fp_flush(); // once for all steps of the block
        for (int i = 0; i < count; i++) {
            float h[units], sum = samples[i];
            fastrnn_step_run(step, &samples[i], h);
            for (int unit = 0; unit < units; unit++)
                sum += output[unit] * h[unit];
            samples[i] = sum;
        }
        fastrnn_fp_restore(mode);
    }

private:
    std::unique_ptr<fastrnn_layer, DestroyLayer> layer;
    Memory store, memory;
    fastrnn_step *step = nullptr;
    float output[units];
};

int main()
try {
    Amplifier amplifier;
    std::vector<float> sound(2 * rate);
    for (size_t i = 0; i < sound.size(); i++)
        sound[i] = 0.5f * std::sin(0.0288f * static_cast<float>(i)); // 220 Hz
    double worst = 0, total = 0;
    int blocks = 0;
    for (size_t at = 0; at + block_size <= sound.size(); at += block_size, blocks++) {
        const auto start = std::chrono::steady_clock::now();
        amplifier.process(&sound[at], block_size);
        const double spent = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        total += spent;
        worst = std::max(worst, spent);
    }
    const double block = static_cast<double>(block_size) / rate;
    std::printf("%d blocks of %d samples; a block lasts %.0f us\n", blocks, block_size, 1e6 * block);
    std::printf("mean %.1f us, %.1f%% of it; the longest %.1f us\n", 1e6 * total / blocks, 100 * total / blocks / block, 1e6 * worst);
    std::printf("last sample %.6f\n", static_cast<double>(sound.back()));
    return std::isfinite(sound.back()) ? 0 : 1;
} catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
