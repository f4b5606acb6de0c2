/* JSON in memory that may be hostile, read in place, without memory of its own. ASCII only, as this library's files are. */
#ifndef FR_JSON_H
#define FR_JSON_H

#include "../common.h"

/* A position in a text. Each function that reads a value begins there, and white space before it is skipped. */
typedef struct fr_json {
    const char *at, *end;
    bool in_string; /* the text is inside a string of another, whose escape sequences are undone while it is read */
} fr_json;

static inline fr_json fr_json_of(const char *text, size_t size) { return (fr_json){.at = text, .end = text + size}; }

/* Whether the whole text is one value, without names that are not ASCII, and not nested too deep. *wrong is the first byte that
 * does not fit. The other functions are for texts that passed it. */
bool fr_json_check(fr_json json, size_t *wrong);

/* The first character of the value: one of {["-0123456789, or of null, true, false, NaN, Infinity. */
char fr_json_kind(fr_json json);

/* Skips the value. */
void fr_json_skip(fr_json *json);

/* Goes to the next member of an object, or element of an array: `json` begins at the object or array; before the first call *next
 * is it. Returns false after the last. Sets *value, and of an object *name, to its string. */
bool fr_json_next(fr_json *next, fr_json *name, fr_json *value);

/* The number of elements or members. */
int64_t fr_json_count(fr_json json);

/* Whether the value is this string. Strings with escape sequences are equal to none. */
bool fr_json_is(fr_json json, const char *string);

/* The characters of a string. False if it is not one. */
bool fr_json_string(fr_json json, const char **characters, size_t *size);
/* A text inside a string. False if it is not one. */
bool fr_json_inside(fr_json json, fr_json *inside);

bool fr_json_number(fr_json json, double *number);
bool fr_json_integer(fr_json json, int64_t *integer); /* written without point and exponent, and of 64 bits */
bool fr_json_bool(fr_json json, bool *value);

/* The value as text, cut if it is long, for messages. */
typedef struct fr_json_text {
    char characters[44];
} fr_json_text;
fr_json_text fr_json_text_of(fr_json json);

#endif
