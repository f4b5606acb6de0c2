#include "error.h"

#include <stdarg.h>
#include <string.h>

#define MOST_CHARACTERS 1023
#define CUT "..." /* how a text ends that was longer */

static _Thread_local struct {
    size_t length;
    char characters[MOST_CHARACTERS + 1];
} text;

const char *fastrnn_last_error(void) { return text.characters; }

static void put(const char *characters, size_t length)
{
    const size_t room = MOST_CHARACTERS - text.length;
    memcpy(text.characters + text.length, characters, length < room ? length : room);
    text.length += length < room ? length : room;
    if (length > room)
        memcpy(text.characters + MOST_CHARACTERS - strlen(CUT), CUT, strlen(CUT));
    text.characters[text.length] = 0;
}

static void put_number(unsigned long long magnitude, bool negative)
{
    char digits[24];
    size_t first = sizeof digits;
    do
        digits[--first] = (char)('0' + magnitude % 10);
    while ((magnitude /= 10) != 0);
    if (negative)
        digits[--first] = '-';
    put(digits + first, sizeof digits - first);
}

static void put_integer(long long number)
{
    put_number(number < 0 ? 0 - (unsigned long long)number : (unsigned long long)number, number < 0);
}

/* Not vsnprintf: it may lock and allocate for the locale, and it is large where programs are linked statically. */
static void put_format(const char *format, va_list arguments)
{
    for (const char *next; *format; format = next) {
        next = strchr(format, '%');
        if (!next)
            next = format + strlen(format);
        put(format, (size_t)(next - format));
        if (strncmp(next, "%s", 2) == 0) {
            const char *string = va_arg(arguments, const char *);
            put(string ? string : "NULL", string ? strlen(string) : strlen("NULL"));
            next += 2;
        } else if (strncmp(next, "%zu", 3) == 0) {
            put_number(va_arg(arguments, size_t), false);
            next += 3;
        } else if (strncmp(next, "%d", 2) == 0) {
            put_integer(va_arg(arguments, int));
            next += 2;
        } else if (strncmp(next, "%lld", 4) == 0) {
            put_integer(va_arg(arguments, long long));
            next += 4;
        }
    }
}

void fr_clear_faults(void) { text.characters[text.length = 0] = 0; }
bool fr_has_faults(void) { return text.length != 0; }

void fr_add_fault(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (text.length)
        put("; ", 2);
    put_format(format, arguments);
    va_end(arguments);
}

fastrnn_status fr_fail(fastrnn_status status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fr_clear_faults();
    put_format(format, arguments);
    va_end(arguments);
    return status;
}

fastrnn_status fr_fail_null(const char *argument) { return fr_fail(FASTRNN_ERROR_ARGUMENT, "%s is NULL", argument); }

fastrnn_status fr_fail_index(const char *argument, int64_t index, int64_t count)
{
    return fr_fail(FASTRNN_ERROR_ARGUMENT, "%s is %lld, wanted 0 to %lld", argument, (long long)index, (long long)count - 1);
}

fastrnn_status fr_fail_struct(const char *argument)
{
    return fr_fail(FASTRNN_ERROR_ARGUMENT,
                   "%s is NULL, or its struct_size is wrong, or it sets a member that version " FASTRNN_VERSION " does not know",
                   argument);
}

fastrnn_status fr_fail_isa(const char *isa)
{
    return fr_fail(FASTRNN_ERROR_ISA, "isa is %s: it is unknown, or this processor or this build does not have it",
                   isa ? isa : "NULL, and FASTRNN_ISA in the environment names another");
}

fastrnn_status fr_fail_store(void)
{
    return fr_fail(FASTRNN_ERROR_STORE, "store is NULL, not initialized, or of another layer, model or instruction set");
}

fastrnn_status fr_fail_slots(const int64_t *slots, int64_t count, int64_t capacity)
{
    if (count < 0 || !slots)
        return fr_fail(FASTRNN_ERROR_ARGUMENT, "%lld slots are named by %s, wanted %s of the store's capacity of %lld", (long long)count,
                       slots ? "slots" : "NULL", slots ? "some" : "all", (long long)capacity);
    for (int64_t i = 0; i < count; i++)
        if (!fr_in_range(slots[i], 0, capacity - 1))
            return fr_fail(FASTRNN_ERROR_ARGUMENT, "slots[%lld] is %lld, but the store's capacity is %lld", (long long)i,
                           (long long)slots[i], (long long)capacity);
    return fr_fail(FASTRNN_ERROR_ARGUMENT, "slots names a slot twice");
}

fastrnn_status fr_fail_memory(void) { return fr_fail(FASTRNN_ERROR_MEMORY, "out of memory"); }

fastrnn_status fr_fail_size(const char *what)
{
    return fr_fail(FASTRNN_ERROR_SIZE, "the bytes of %s do not fit in memory's address range", what);
}
