/*
 * Names and passwords in the form in which they are compared: SASLprep (RFC 4013),
 * which PLAIN (RFC 4616) and SCRAM (RFC 5802) ask for. The same letters can come as
 * different bytes: "ü" as one character or as "u" and two dots, a space as one of a
 * dozen. What is ASCII stays as it is, and costs nothing.
 */
#ifndef POSTERN_QUOTA_PREPARE_H
#define POSTERN_QUOTA_PREPARE_H

#include "quota/hash.h"
#include "quota/records.h"

/* The prepared password, without a NUL; its length. What SASLprep has no answer to
 * (bytes that are not UTF-8, control characters, nothing left, more than PASSWORD_MAX)
 * stays as it came: such a password is a bad idea, but it is its owner's, and it is
 * the same bytes each time. `in` has at most PASSWORD_MAX bytes. */
size_t prepare_password(struct slice in, char out[static PASSWORD_MAX]);

/* The forms of one password that a hash may have been made of. We hash the prepared
 * one; hashes of other systems are of what their clients happened to send: the bytes
 * as they are, or composed (NFC), or decomposed (NFD, as by macOS). */
enum { PASSWORD_FORMS = 4 };
struct password_forms {
    unsigned count; /* different ones; 1 for ASCII */
    size_t len[PASSWORD_FORMS];
    char text[PASSWORD_FORMS][PASSWORD_MAX];
};
void password_forms(struct slice in, struct password_forms *out);
void password_forms_wipe(struct password_forms *f);

/* A login name prepared, then as name_login has it; 0 or -1. */
int prepare_login(struct slice in, char out[static LOGIN_MAX + 1]);

#endif
