/* Passwords never come from the command line, which every user of the machine
 * can read. */
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "core/mem.h"
#include "ctl/accounts.h"

enum { SECRET_MAX = 511 /* bytes, as crypt(3) takes, and quota with it */ };

/* One line without its end; NULL if there is none or it is too long. */
static char *read_line(FILE *in)
{
    char text[SECRET_MAX + 3]; /* with CR, LF, NUL */
    if (!fgets(text, sizeof text, in))
        return NULL;
    size_t len = strcspn(text, "\n");
    bool whole = text[len] == '\n' || feof(in);
    text[len] = '\0';
    if (len && text[len - 1] == '\r')
        text[--len] = '\0';
    char *line = whole && len <= SECRET_MAX && *text ? xstrdup(text) : NULL;
    explicit_bzero(text, sizeof text);
    return line;
}

static char *ask(FILE *tty, const char *what, const char *again)
{
    struct termios before, quiet;
    int fd = fileno(tty);
    if (tcgetattr(fd, &before) < 0)
        return NULL;
    quiet = before;
    quiet.c_lflag &= ~(tcflag_t)ECHO;
    fprintf(stderr, "%s%s: ", what, again);
    fflush(stderr);
    tcsetattr(fd, TCSAFLUSH, &quiet);
    char *line = read_line(tty);
    tcsetattr(fd, TCSAFLUSH, &before);
    putc('\n', stderr);
    return line;
}

void secret_free(char *secret)
{
    if (secret)
        explicit_bzero(secret, strlen(secret));
    free(secret);
}

char *secret_read(const char *what)
{
    if (!isatty(STDIN_FILENO)) {
        char *line = read_line(stdin);
        if (!line)
            ctl_error(CTL_USAGE,
                      "the %s is expected as one line of at most %d bytes on standard input", what,
                      SECRET_MAX);
        return line;
    }
    char *first = ask(stdin, what, ""), *second = first ? ask(stdin, what, " again") : NULL;
    bool same = first && second && strcmp(first, second) == 0;
    if (!first || !second)
        ctl_error(CTL_USAGE, "no %s was given", what);
    else if (!same)
        ctl_error(CTL_USAGE, "the two are not the same; nothing was changed");
    secret_free(second);
    if (same)
        return first;
    secret_free(first);
    return NULL;
}
