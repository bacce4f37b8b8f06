/* Whether this is a build with AddressSanitizer, whose leak checker needs
 * ptrace and clone. For tests only; never in a package. */
#ifndef POSTERN_SERVICE_SANITIZED_H
#define POSTERN_SERVICE_SANITIZED_H

#if defined __SANITIZE_ADDRESS__
#define SANITIZED 1
#elif defined __has_feature
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

#endif
