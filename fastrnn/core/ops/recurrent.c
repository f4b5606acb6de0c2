/* Recurrent layers, which the executor runs as the plan of a layer. */
#include "../error.h"
#include "op.h"

static bool is_valid(const fastrnn_op *given)
{
    fastrnn_config config;
    if (!given->cells)
        fr_fail_null("cells of an op");
    return given->cells && fr_config_read(&config, given->config);
}

static int64_t input_size(const fastrnn_op *given)
{
    fastrnn_config config;
    return fr_config_read(&config, given->config) ? config.input_size : 0;
}

static int64_t output_size(const fastrnn_op *given)
{
    fastrnn_config config;
    if (!fr_config_read(&config, given->config))
        return 0;
    return (config.bidirectional ? 2 : 1) * (config.proj_size ? config.proj_size : config.hidden_size);
}

const fr_op_type fr_op_recurrent = {.is_valid = is_valid, .input_size = input_size, .output_size = output_size};
