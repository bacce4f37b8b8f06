/*
 * What went wrong, in words for an operator: made once where the error is
 * known, with what to do about it. Functions return 0, or -1 and fill one.
 */
#ifndef POSTERN_CORE_ERR_H
#define POSTERN_CORE_ERR_H

#include <stdarg.h>

enum { ERR_TEXT_MAX = 512 };

struct err {
    int number; /* errno, or 0 */
    char text[ERR_TEXT_MAX];
};

/* Sets the text; always returns -1, so that `return err_set(e, ...)` works.
 * e may be NULL. */
int err_set(struct err *e, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same with ": " and the text of errno appended; keeps errno in number. */
int err_sys(struct err *e, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Puts "context: " before the text that is there; returns -1. */
int err_prefix(struct err *e, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
